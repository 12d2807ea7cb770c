"""Logits of very many classes, made a few rows at a time: the same loss, fewer of them at once."""

import pytest
import torch
from torch import Tensor, nn

from selfdistill import DDGSD, SDDropout, SelfDistiller
from selfdistill.method import Method
from selfdistill.methods import many_classes
from selfdistill.methods.many_classes import divergence_of_samples
from tests.counting import gradients, rows_of_calls
from tests.nets import CLASSES, batch, mlp


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of each sample at a time."""
    monkeypatch.setattr(many_classes, "MANY", 1)
    monkeypatch.setattr(many_classes, "_PART", 2 * 2 * CLASSES)


METHODS = [SDDropout(), SDDropout(direction="reverse"), DDGSD() + SDDropout(), DDGSD() + SDDropout(pairing="within")]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_same_step(method: Method, few_at_a_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, y) = mlp().double(), batch("mlp", 7)
    x, views = x.double(), [x.double() + 1] * (method.needs.views - 1)
    steps = []
    for many in (1, 2**24):
        monkeypatch.setattr(many_classes, "MANY", many)
        torch.manual_seed(7)
        output = SelfDistiller(model, method)(x, y, views)
        steps.append((output.loss, output.terms, gradients(output.loss, model)))
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-12, atol=1e-14)


def test_parts_are_classified_once_more_in_the_backward_pass(few_at_a_time: None) -> None:
    head = nn.Linear(3, CLASSES)
    rows = rows_of_calls(head)
    divergence_of_samples(head, torch.randn(10, 3), lambda z: (z[0] - z[1]).square().sum()).backward()
    assert rows == [4, 4, 2, 2, 4, 4]  # u and v of each part, and backwards


def test_no_logits_are_kept(few_at_a_time: None) -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        divergence_of_samples(
            nn.Linear(3, CLASSES), torch.randn(10, 3, requires_grad=True), lambda z: (z[0] * z[1]).sum()
        )
    assert kept
    assert all(tensor.shape[-1:] != (CLASSES,) for tensor in kept if tensor.dim() == 2)


@pytest.mark.parametrize(
    "head", [nn.Sequential(nn.Linear(3, CLASSES)), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))]
)
def test_other_heads_are_called_once(head: nn.Module, few_at_a_time: None) -> None:
    """Rows of a BatchNorm depend on each other; of a head of unknown layers nothing is known."""
    rows = rows_of_calls(head)
    divergence_of_samples(head, torch.randn(10, 3), lambda z: (z[0] - z[1]).sum()).backward()
    assert rows == [10]


def test_few_classes_are_classified_at_once() -> None:
    head = nn.Linear(3, CLASSES)
    rows = rows_of_calls(head)
    divergence_of_samples(head, torch.randn(10, 3), lambda z: (z[0] - z[1]).sum()).backward()
    assert rows == [10]


@pytest.mark.parametrize(
    "dynamic",
    [
        False,
        pytest.param(
            True,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    torch.__version__.startswith("2.11."), reason="a failed assertion of torch 2.11's own tracer"
                ),
            ],
        ),
    ],
)
def test_compiled(dynamic: bool, few_at_a_time: None) -> None:
    model, (x, y) = mlp(), batch("mlp", 7)
    distiller = SelfDistiller(model, SDDropout(p=0.0), example_input=x)
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    parameters = list(model.parameters())
    found, expected = compiled(x, y).loss, distiller(x, y).loss
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_under_autocast(few_at_a_time: None) -> None:
    model, (x, y) = mlp(), batch("mlp", 7)
    with torch.autocast("cpu", torch.bfloat16):
        output = SelfDistiller(model, SDDropout())(x, y)
    output.loss.backward()
    assert output.terms["sdd"].dtype == torch.float32
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
