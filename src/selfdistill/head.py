"""Find the head h of any classifier by what it does, and check in one probe pass that everything fits.

The head is the innermost module with parameters whose output is the logits. A probe runs in evaluation mode on one
sample (two where copies are compared) and leaves weights, statistics, modes and random state as they were.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.method import Input, Outputs
from selfdistill.network import call, eager, evaluation_mode, logits_of
from selfdistill.tap import Tap

_PASS_HEAD = "pass head=, the dotted name (or the module) of the classifier layer"


def find_head(model: nn.Module, x: Input) -> str:
    """Return the name of the innermost module with parameters whose output is the logits.

    One pass of ``x``'s first sample in evaluation mode; nothing in the model changes.

    Args:
        model: any classifier.
        x: an example input, ``(B, ...)`` or a mapping of such.

    Raises:
        ValueError: no such module, or its input is no pooled feature ``(B, D)``: the message asks for ``head=``.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> find_head(model, torch.zeros(1, 8))
        '2'
    """
    calls: list[tuple[str, tuple[Any, ...], Any]] = []  # in order of completion: innermost first
    handles = []
    for name, module in eager(model).named_modules():
        is_leaf = next(module.children(), None) is None
        if (name or is_leaf) and next(module.parameters(), None) is not None:
            handles.append(module.register_forward_hook(_Recorder(name, calls)))
    try:
        with evaluating(model):
            logits = logits_of(eager_call(model, samples(x, 1)))
    finally:
        for handle in handles:
            handle.remove()
    for name, args, output in calls:
        if isinstance(output, Tensor) and _same_values_in_place(output, logits):
            if len(args) != 1 or not isinstance(args[0], Tensor):
                raise ValueError(f"the head {name!r} does not take one tensor of features; {_PASS_HEAD}")
            if args[0].flatten(1).shape[1] != args[0].shape[1]:
                raise ValueError(
                    f"the model pools after its classifier: {name!r} reads {tuple(args[0].shape)}, no pooled feature "
                    f"(B, D); {_PASS_HEAD}"
                )
            return name
    raise ValueError(
        f"no module's output is the logits (two heads, or arithmetic after the head?); {_PASS_HEAD}, "
        "or take a model with one head"
    )


def check_head(tap: Tap, model: nn.Module, x: Input) -> Outputs:
    """Return the outputs of one probe pass in evaluation mode, having checked that ``h(f(x))`` is the logits.

    Raises:
        ValueError: the head's output is not the model's logits.
    """
    with evaluating(model):
        (outputs,) = tap.outputs(_Eager(model), samples(x, 1))
        logits = tap.head(outputs.features)
    if logits.shape != outputs.logits.shape or not torch.allclose(
        logits.float(), outputs.logits.float(), rtol=1e-3, atol=1e-4, equal_nan=True
    ):
        raise ValueError(f"the output of head={tap.head_name!r} is not the model's logits; {_PASS_HEAD}")
    return outputs


def check_dropout(tap: Tap, model: nn.Module, x: Input) -> None:
    """Check in one probe pass that the layers after ``at=`` can run on three times the batch.

    Raises:
        RuntimeError: they cannot, for example because a skip connection passes the module by.
        ValueError: the module's output is no tensor.
    """
    try:
        with evaluating(model):
            # Two samples: three copies of a single one would broadcast against it and hide the fault.
            tap.outputs(_Eager(model), samples(x, 2), drop=True)
    except (RuntimeError, ValueError) as error:
        assert tap.dropout_hook is not None
        if str(error).startswith("at="):
            raise
        raise RuntimeError(
            f"at={tap.dropout_hook.place.module!r}: the layers after it cannot run on clean and dropped copies "
            f"together ({str(error).splitlines()[0]}); choose a module whose output is all that later layers read"
        ) from error


def dropout_before(model: nn.Module, head: str, x: Input) -> str | None:
    """Return the name of the model's own active dropout whose output is the head's input, or None."""
    calls: list[tuple[str, tuple[Any, ...], Any]] = []
    dropouts = [(name, m) for name, m in eager(model).named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    if not dropouts:
        return None
    handles = [module.register_forward_hook(_Recorder(name, calls)) for name, module in dropouts]
    tap = Tap(eager(model), head)
    try:
        with evaluating(model):
            (outputs,) = tap.outputs(_Eager(model), samples(x, 1))
    finally:
        for handle in handles:
            handle.remove()
        tap.close()
    return next((name for name, _, out in calls if _same_values_in_place(out, outputs.features)), None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, without gradients or autocast; modes and random state are restored."""
    tensor = next(iter(model.parameters()), torch.empty(0))
    devices = [tensor.device] if tensor.device.type == "cuda" else []
    without_autocast = torch.autocast(tensor.device.type, enabled=False)
    with evaluation_mode(model), torch.no_grad(), torch.random.fork_rng(devices), without_autocast:
        yield


def samples(x: Input, count: int) -> Input:
    """Return a batch of ``count`` samples made of the first one."""
    if isinstance(x, Mapping):
        return {
            name: value[:1].repeat(count, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value
            for name, value in x.items()
        }
    return x[:1].repeat(count, *[1] * (x.dim() - 1))


class _Recorder:
    def __init__(self, name: str, calls: list[tuple[str, tuple[Any, ...], Any]]) -> None:
        self.name, self.calls = name, calls

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.calls.append((self.name, args, output))


class _Eager(nn.Module):
    """Calls a model without its compiled form, so that a probe compiles nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._call: Callable[..., Any] = eager(model)._call_impl

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def eager_call(model: nn.Module, x: Input) -> Any:
    """Return ``model(x)`` without its compiled form."""
    return call(_Eager(model), x)


def _same_values_in_place(output: Tensor, logits: Tensor) -> bool:
    """Whether one is the other, or its flattened view: a (B, C, 1, 1) map and (B, C)."""
    return (
        output.numel() == logits.numel()
        and output.data_ptr() == logits.data_ptr()
        and output.shape[:2] == logits.shape[:2]
    )
