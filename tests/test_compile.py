"""`torch.compile` around the distiller, around the model before it, and where that cannot work."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from selfdistill import CrossEntropy, Dropout, LabelSmoothing, Method, SDDropout, SelfDistiller
from tests.nets import HEADS, NETS, batch, mlp

METHODS = [
    CrossEntropy(),
    LabelSmoothing(),
    Dropout(),
    SDDropout(),
    SDDropout(warmup=0.5, direction="reverse"),
    SDDropout(at="1"),
    LabelSmoothing() + SDDropout(weight=0.1),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(module: nn.Module, x: Any, y: Tensor, seed: int = 1) -> tuple[Any, list[Tensor]]:
    """Return the output and the gradients of one step under one random state."""
    torch.manual_seed(seed)
    output = module(x, y)
    parameters = list(module.parameters())
    return output, list(torch.autograd.grad(output.loss, parameters))


def assert_same_step(module: nn.Module, other: nn.Module, x: Any, y: Tensor) -> None:
    (got, gradients), (expected, expected_gradients) = step(module, x, y), step(other, x, y)
    torch.testing.assert_close(got.loss, expected.loss)
    torch.testing.assert_close(got.terms, expected.terms)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_distiller_compiles_whole(method: Method) -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller = SelfDistiller(model, method, example_input=x)
    distiller.set_progress(0.25)
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True)
    assert_same_step(compiled, distiller, x, y)


@pytest.mark.parametrize("net", ["conv", "mapping"])
def test_other_nets_compile_whole(net: str) -> None:
    model, (x, y) = NETS[net](), batch(net)
    distiller = SelfDistiller(model, SDDropout(), head=HEADS[net])
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True)
    assert_same_step(compiled, distiller, x, y)


def test_features_are_fresh_in_each_step() -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller = SelfDistiller(model, SDDropout(), head="3")
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True)
    for inputs in (x, 2 * x, -x):
        assert_same_step(compiled, distiller, inputs, y)
        with torch.no_grad():
            model[1].weight.mul_(1.1)
    tap = distiller._tap
    assert tap is not None
    assert tap.feature_hook.features is None
    assert not tap.feature_hook.armed


def test_progress_does_not_compile_anew() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    model, (x, y) = mlp(), batch("mlp")
    distiller = SelfDistiller(model, SDDropout(warmup=0.5), head="3")
    compiled = torch.compile(distiller, backend=counter, fullgraph=True)
    losses = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        distiller.set_progress(progress)
        torch.manual_seed(1)
        losses.append(compiled(x, y).loss.item())
    assert counter.frame_count == 1
    assert losses[0] < losses[1] < losses[2] == losses[3]


def test_an_unknown_head_is_refused() -> None:
    x, y = batch("mlp")
    compiled = torch.compile(SelfDistiller(mlp(), SDDropout()), backend="aot_eager")
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match="the head is not known yet when the distiller is compiled; pass head= or example_input="
        ):
            compiled(x, y)


def test_a_first_step_before_compiling_is_enough() -> None:
    distiller, (x, y) = SelfDistiller(mlp(), SDDropout()), batch("mlp")
    distiller(x, y)
    compiled = torch.compile(distiller, backend="aot_eager", fullgraph=True)
    assert_same_step(compiled, distiller, x, y)


def test_a_compiled_model_may_be_wrapped() -> None:
    model, (x, y) = mlp(), batch("mlp")
    keys = list(model.state_dict())
    compiled = torch.compile(model, backend="aot_eager")
    distiller = SelfDistiller(compiled, SDDropout())
    assert_same_step(distiller, SelfDistiller(model, SDDropout()), x, y)
    assert_same_step(distiller, SelfDistiller(model, SDDropout()), 2 * x, y)
    assert distiller.head == "3"
    distiller.release()
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(compiled(x), model(x))


def test_a_model_compiled_in_place_may_be_wrapped() -> None:
    model, (x, y) = mlp(), batch("mlp")
    model.compile(backend="aot_eager")
    distiller = SelfDistiller(model, SDDropout(), example_input=x)
    first, _ = step(distiller, x, y)
    second, _ = step(distiller, 2 * x, y)
    assert first.loss != second.loss


def test_a_model_compiled_and_run_before_it_was_wrapped() -> None:
    """The compiled code does not know of the hook: the missing feature is noticed at once."""
    model, (x, y) = mlp(), batch("mlp")
    compiled = torch.compile(model, backend="aot_eager")
    compiled(x)
    distiller = SelfDistiller(compiled, SDDropout())
    with pytest.raises(RuntimeError, match="the model was compiled and run before it was wrapped"):
        distiller(x, y)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["conv", "attention"])
def test_inductor(net: str) -> None:
    model, (x, y) = NETS[net](), batch(net)
    distiller = SelfDistiller(model, LabelSmoothing() + SDDropout(p=0.0), example_input=x)
    compiled = torch.compile(distiller, fullgraph=True)
    assert_same_step(compiled, distiller, x, y)
    dropping = torch.compile(SelfDistiller(model, SDDropout(), example_input=x), fullgraph=True)
    output, gradients = step(dropping, x, y)
    assert output.terms["sdd"] > 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("method", [CrossEntropy(), Dropout(), LabelSmoothing()], ids=repr)
def test_inductor_hands_out_a_loss_with_a_gradient(method: Method) -> None:
    """The loss is the one term itself: inductor must not take it for the tensor that is detached from it."""
    model, (x, y) = NETS["conv"](), batch("conv")
    output = torch.compile(SelfDistiller(model, method, example_input=x), fullgraph=True)(x, y)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
