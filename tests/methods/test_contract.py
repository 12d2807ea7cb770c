"""What every method promises, on every kind of net."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfdistill import CrossEntropy, Dropout, LabelSmoothing, Method, SDDropout, SelfDistiller, methods
from selfdistill.methods import parse_method
from selfdistill.tap import call, logits_of
from tests.nets import CLASSES, INNER, NETS, batch


def combinations(net: str) -> Iterator[Method]:
    for name in methods.__all__:
        yield getattr(methods, name)()
    yield LabelSmoothing() + SDDropout(weight=0.1)
    yield Dropout() + SDDropout()
    yield SDDropout(at=INNER[net])


CASES = [pytest.param(net, method, id=f"{net}-{method!r}") for net in NETS for method in combinations(net)]
every_method_on_every_net = pytest.mark.parametrize(("net", "method"), CASES)


def wrapped(net: str, method: Method) -> tuple[SelfDistiller, Any, Tensor]:
    x, y = batch(net)
    return SelfDistiller(NETS[net](), copy.deepcopy(method)), x, y


@every_method_on_every_net
def test_the_loss_is_finite_and_reaches_every_parameter(net: str, method: Method) -> None:
    distiller, x, y = wrapped(net, method)
    loss, logits, terms = distiller(x, y)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert logits.shape == (6, CLASSES)
    assert next(iter(terms)) == "ce"
    assert all(term.shape == () and torch.isfinite(term) and not term.requires_grad for term in terms.values())
    loss.backward()
    for name, parameter in distiller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every_method_on_every_net
def test_keys_and_evaluation_output_are_those_of_the_bare_model(net: str, method: Method) -> None:
    distiller, x, y = wrapped(net, method)
    model = distiller.model
    bare = copy.deepcopy(model)
    distiller(x, y)
    assert list(model.state_dict()) == list(bare.state_dict())
    bare.load_state_dict(model.state_dict())
    for module in (distiller, model, bare):
        module.eval()
    expected = logits_of(call(bare, x))
    assert torch.equal(logits_of(distiller(x)), expected)
    assert torch.equal(distiller(x, y).logits, expected)
    released = distiller.release()
    assert torch.equal(logits_of(call(released, x)), expected)


@every_method_on_every_net
def test_repr_parses_back_to_the_same_loss(net: str, method: Method) -> None:
    again = parse_method(repr(method))
    assert repr(again) == repr(method)
    assert type(again) is type(method)
    assert again.needs == method.needs
    distiller, x, y = wrapped(net, method)
    other = SelfDistiller(copy.deepcopy(distiller.model), again)
    assert loss_under_seed(distiller, x, y) == loss_under_seed(other, x, y)


@every_method_on_every_net
def test_copies_give_the_same_loss(net: str, method: Method) -> None:
    distiller, x, y = wrapped(net, method)
    distiller(x, y)
    copies = [copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))]
    expected = loss_under_seed(distiller, x, y)
    for each in copies:
        assert loss_under_seed(each, x, y) == expected


@every_method_on_every_net
def test_autocast_is_close_to_float32(net: str, method: Method) -> None:
    distiller, x, y = wrapped(net, method)
    expected = loss_under_seed(distiller, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(3)
        output = distiller(x, y)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss.detach(), expected, rtol=0.03, atol=0.03)


@every_method_on_every_net
def test_one_optimiser_step_moves_the_model(net: str, method: Method) -> None:
    distiller, x, y = wrapped(net, method)
    optimiser = torch.optim.SGD(distiller.parameters(), lr=0.1)
    before = copy.deepcopy(distiller.model.state_dict())
    distiller(x, y).loss.backward()
    optimiser.step()
    weights = [name for name, _ in distiller.model.named_parameters() if name.endswith("weight")]
    assert all(not torch.equal(distiller.model.state_dict()[name], before[name]) for name in weights)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "neutral", [LabelSmoothing(eps=0.0), Dropout(p=0.0), SDDropout(p=0.0), SDDropout(weight=0.0)], ids=repr
)
def test_neutral_settings_are_cross_entropy(net: str, neutral: Method) -> None:
    x, y = batch(net)
    model = NETS[net]()
    losses, gradients = [], []
    for method in (CrossEntropy(), neutral):
        loss = SelfDistiller(model, method)(x, y).loss
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("net", NETS)
def test_dropping_nothing_inside_is_cross_entropy(net: str) -> None:
    """With p = 0 the three copies are one: BatchNorm after them has the same statistics."""
    x, y = batch(net)
    model = NETS[net]()
    losses = [SelfDistiller(model, method)(x, y).loss for method in (CrossEntropy(), SDDropout(p=0.0, at=INNER[net]))]
    torch.testing.assert_close(*losses)


@every_method_on_every_net
def test_no_method_has_state_that_ddp_would_overwrite(net: str, method: Method) -> None:
    distiller, x, y = wrapped(net, method)
    distiller(x, y)
    assert [name for name, _ in distiller.method.named_buffers()] == []


def loss_under_seed(distiller: nn.Module, x: Any, y: Tensor) -> Tensor:
    torch.manual_seed(3)
    return distiller(x, y).loss.detach()
