"""What holds for every classifier, whoever wrote it: the head is found, the model is left alone, and it trains."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfdistill import SDDropout, SelfDistiller

Input = Tensor | Mapping[str, Tensor]


def logits(model: nn.Module, x: Input) -> Tensor:
    output: Any = model(**x) if isinstance(x, Mapping) else model(x)
    return output if isinstance(output, Tensor) else output.logits


def check_model(model: nn.Module, x: Input, classes: int, head: str | None = None) -> str:
    """Check ``model`` on the batch ``x`` of two and return the name of the head that was found."""
    model.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        before = logits(model, x)
    assert before.shape == (2, classes)

    # Found without a step, and left as it was.
    distiller = SelfDistiller(model, SDDropout(), head=head, example_input=x)
    assert not any(module.training for module in model.modules())
    found = distiller.head
    assert found is not None
    with torch.no_grad():
        _assert_head_gives_the_logits(model, found, x, before)
    assert distiller.release() is model
    assert list(model.state_dict()) == list(state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} was changed by the probe"
    with torch.no_grad():
        assert torch.equal(logits(model, x), before)

    distiller = SelfDistiller(model, SDDropout(), head=found).train()
    loss, trained_on, terms = distiller(x, torch.arange(2) % classes)
    assert list(terms) == ["ce", "sdd"]
    assert trained_on.shape == (2, classes)
    assert loss.isfinite()
    loss.backward()
    gradients = [parameter.grad for parameter in model.get_submodule(found).parameters()]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert list(distiller.release().state_dict()) == list(state)
    return found


def _assert_head_gives_the_logits(model: nn.Module, name: str, x: Input, expected: Tensor) -> None:
    """Check ``head(features) == logits`` with a hook of the test's own."""
    seen: list[Tensor] = []
    head = model.get_submodule(name)
    handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    again = logits(model, x)
    handle.remove()
    assert torch.equal(again, expected)
    (features,) = seen
    assert features.shape[0] == 2
    torch.testing.assert_close(head(features).flatten(1), expected)


@pytest.fixture(name="check_model")
def _check_model() -> Iterator[Callable[..., str]]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # Many external models drop out before their head: what is said about it has tests of its own.
        warnings.filterwarnings("ignore", message="the model drops out its features itself", category=UserWarning)
        yield check_model
