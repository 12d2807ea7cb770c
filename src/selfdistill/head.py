"""Find the head h of any classifier by what it does, and check in one probe pass that everything fits.

The head is the innermost module with parameters whose output is the logits, in evaluation mode and in training alike.
A probe runs on two samples and leaves weights, statistics, modes and random state as they were.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfdistill.losses import check_logits
from selfdistill.method import Input, Outputs
from selfdistill.network import (
    call,
    eager,
    evaluation_mode,
    float64_device,
    logits_of,
    random_states,
    rows_of,
    set_random_state,
)
from selfdistill.tap import Head, Tap

_PASS_HEAD = "pass head=, the dotted name (or the module) of the classifier layer"


def find_head(model: nn.Module, x: Input) -> str:
    """Return the name of the innermost module with parameters whose output is the logits.

    One pass of two samples of ``x`` in evaluation mode; nothing in the model changes.

    Args:
        x: an example input, ``(B, ...)`` or a mapping of such.

    Raises:
        ValueError: no such module, or its input is no pooled feature ``(B, D)``: the message asks for ``head=``; or a
            model that returns features before its logits.

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
            answer = eager_call(model, samples(x, 2))
    finally:
        for handle in handles:
            handle.remove()
    logits = logits_of(answer)
    if isinstance(answer, tuple | list) and not hasattr(answer, "logits"):
        _check_order(model, x)
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
        f"no module's output is the logits (two heads, or arithmetic such as a softmax after the head?); {_PASS_HEAD}, "
        "or take a model with one head"
    )


def _check_order(model: nn.Module, x: Input) -> None:
    """Refuse a tuple of features and then logits: a later entry is made of the first one by layers of its own."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def reads(output: Tensor, *inputs: Tensor) -> list[bool]:
        gradients = torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True)
        return [gradient is not None for gradient in gradients]

    with evaluating(model), torch.enable_grad():
        first, *later = [entry for entry in eager_call(model, samples(x, 2)) if isinstance(entry, Tensor)]
        of_first = reads(first, *weights) if first.requires_grad else [False] * len(weights)
        for entry in (entry for entry in later if entry.requires_grad):
            further = any(its and not theirs for its, theirs in zip(reads(entry, *weights), of_first, strict=True))
            if further and (not first.requires_grad or reads(entry, first)[0]):
                raise ValueError(
                    f"the model returns a tuple in which {tuple(entry.shape[1:])} is made of the first entry, "
                    f"{tuple(first.shape[1:])}: features, then logits? Return the logits first, or a mapping with "
                    "'logits'"
                )


def check_head(tap: Tap, model: nn.Module, x: Input) -> Outputs:
    """Return the outputs of a probe in evaluation mode, having checked that ``h(f(x))`` is the logits, in training too.

    Raises:
        ValueError: the head's output is not the model's logits, in one mode or the other; they are not ``(B, C)``.
        RuntimeError: the head is not called.
    """
    two, calls = samples(x, 2), list[tuple[str, tuple[Any, ...], Any]]()
    with evaluating(model):
        (outputs,) = tap.outputs(_Eager(model), two)
        logits = tap.head(outputs.features)
    check_logits(outputs.logits)
    if not _same_values(logits, outputs.logits):
        raise ValueError(f"the output of head={tap.head_name!r} is not the model's logits; {_PASS_HEAD}")
    # What the head gave in the pass itself: called once more, its dropout would draw anew.
    handle = tap.head.module.register_forward_hook(_Recorder(tap.head_name, calls))
    try:
        with training(model):
            (trained,) = tap.outputs(_Eager(model), two)
    finally:
        handle.remove()
    if not _same_values(calls[-1][2].reshape(len(outputs.logits), -1), trained.logits):
        raise ValueError(
            f"head={tap.head_name!r} gives the model's output in evaluation mode, {tuple(outputs.logits.shape[1:])}, "
            f"but not in training mode, {tuple(trained.logits.shape[1:])}; take a model that returns its logits in both"
        )
    return outputs


def gives_probabilities(outputs: Outputs) -> bool:
    """Return whether the logits went through a softmax (or the head ends in a sigmoid): losses take them unbounded.

    Example:
        >>> z = torch.randn(2, 4)
        >>> [gives_probabilities(Outputs(logits, z, nn.Identity())) for logits in (z, z.softmax(1))]
        [False, True]
    """
    p = outputs.logits.to(float64_device(outputs.logits.device)).double()
    tolerance = max(1e-3, 4 * torch.finfo(outputs.logits.dtype).eps)
    head = outputs.head.module if isinstance(outputs.head, Head) else outputs.head
    last = list(head.modules())[-1] if isinstance(head, nn.Module) else None
    return isinstance(last, nn.Sigmoid) or bool(((p >= 0).all(1) & ((p.sum(1) - 1).abs() < tolerance)).all())


def check_dropout(tap: Tap, model: nn.Module, x: Input) -> None:
    """Check in one probe pass that the layers after ``at=`` can run on three times the batch.

    Raises:
        RuntimeError: they cannot, for example because a skip connection passes the module by.
        ValueError: the module's output is no tensor.
    """
    try:
        with evaluating(model):
            # Three copies of a single sample would broadcast against it and hide the fault.
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
            (outputs,) = tap.outputs(_Eager(model), samples(x, 2))
    finally:
        for handle in handles:
            handle.remove()
        tap.close()
    return next((name for name, _, out in calls if _same_values_in_place(out, outputs.features)), None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, without gradients or autocast; modes and random state are restored."""
    device = next(model.parameters(), torch.empty(0)).device
    states = random_states(model)
    try:
        with evaluation_mode(model), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for place, state in states.items():
            set_random_state(place, state)


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Run the block in training mode, otherwise as in :func:`evaluating`; whatever it changes in the model is undone.

    A BatchNorm stays in evaluation mode: it would synchronise processes, and cannot train on few values. A model in
    training mode keeps the modes of its other modules.
    """
    modes = {module: module.training for module in model.modules()}
    with evaluating(model), _restored_state(model):
        for module, was_training in modes.items():
            module.training = (was_training or not modes[model]) and not isinstance(module, _BatchNorm)
        yield


@contextmanager
def _restored_state(model: nn.Module) -> Iterator[None]:
    """Restore what a pass in training mode may change: attributes, weights, buffers, other packages' random states."""
    attributes = [(module.__dict__, dict(module.__dict__)) for module in model.modules()]
    stores: list[dict[str, Any]] = [s for module in model.modules() for s in (module._parameters, module._buffers)]
    tensors = [(store, name, tensor) for store in stores for name, tensor in store.items() if tensor is not None]
    values = [tensor.to("cpu", copy=True) for _, _, tensor in tensors]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        for now, before in attributes:
            now.clear()
            now.update(before)
        for (store, name, tensor), value in zip(tensors, values, strict=True):
            store[name] = tensor
            if not torch.equal(tensor.cpu(), value):  # an unchanged one may be part of a graph
                tensor.copy_(value)


def samples(x: Input, count: int) -> Input:
    """Return the first ``count`` samples of a batch, repeated where it has fewer."""
    rows = rows_of(x)

    def first(value: Any) -> Any:
        batched = isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows
        return value[torch.arange(count, device=value.device) % rows] if batched else value

    return {name: first(value) for name, value in x.items()} if isinstance(x, Mapping) else first(x)


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


def _same_values(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4, equal_nan=True)


def _same_values_in_place(output: Tensor, logits: Tensor) -> bool:
    """Whether one is the other, or its flattened view: a (B, C, 1, 1) map and (B, C)."""
    return (
        output.numel() == logits.numel()
        and output.data_ptr() == logits.data_ptr()
        and output.shape[:2] == logits.shape[:2]
    )
