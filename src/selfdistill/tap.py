"""Read f(x) and h from any classifier without editing it.

    x --> [ backbone f ] --f(x)--> [ head h ] --> logits
                            ^ a forward pre-hook, armed only during the distiller's own pass

The head is found by what it does, not by its name: the innermost module with parameters whose output is the logits.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.method import DropoutAt, Input, Outputs

_PASS_HEAD = "pass head=, the dotted name (or the module) of the classifier layer"


def logits_of(output: Any) -> Tensor:
    """Return the logits in a model's output: a tensor, ``.logits``, ``["logits"]``, or the first of a tuple.

    Raises:
        ValueError: none of these.

    Example:
        >>> import torch
        >>> logits_of((torch.zeros(2, 3), "auxiliary")).shape
        torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"the model's output has no logits: it is a {type(output).__name__}")
    return output


def call(model: nn.Module, x: Input) -> Any:
    """Return ``model(x)``, a mapping as keyword arguments."""
    return model(**x) if isinstance(x, Mapping) else model(x)


class FeatureHook:
    """A forward pre-hook that keeps the head's input while armed. An object, not a closure, so that models pickle."""

    def __init__(self, *, copies: bool = False) -> None:
        self.armed = False
        self.copies = copies
        self.features: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep the first argument."""
        if self.armed and args:
            self.features = args[0].clone() if self.copies else args[0]


class StageHook:
    """A forward hook that keeps a module's output while armed."""

    def __init__(self) -> None:
        self.armed = False
        self.output: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep the output."""
        if self.armed:
            self.output = output


class DropoutHook:
    """A forward hook that passes a module's output on three times: clean, and under the masks u and v (Table 12)."""

    def __init__(self, place: DropoutAt) -> None:
        self.armed = False
        self.fired = 0
        self.place = place

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return ``(clean, u, v)`` concatenated along the batch."""
        if not self.armed:
            return output
        if not isinstance(output, Tensor):
            raise ValueError(
                f"at={self.place.module!r}: this module returns a {type(output).__name__}, not a tensor to drop out; "
                "choose a module whose output is one tensor"
            )
        self.fired += 1
        drop = F.dropout2d if self.place.channels else F.dropout
        return torch.cat([output, drop(output.repeat(2, *[1] * (output.dim() - 1)), self.place.p)])


class Head:
    """The user's own head as a function of features; logits come back as ``(B, C)``."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, features: Tensor) -> Tensor:
        """Return ``h(features)``, ``(B, D) -> (B, C)``; a 1 x 1 map of logits is flattened."""
        logits: Tensor = self.module(features)
        return logits if logits.dim() == 2 else logits.flatten(1)


class Tap:
    """The hooks on one model: where its head is, and the passes that read it.

    Args:
        model: the user's model; only hooks are added, and taken away by :meth:`close`.
        head: the head's dotted name.
        stages: dotted names of the modules whose outputs are wanted.
        dropout_at: a module whose output is passed on clean and under two masks, or None.
    """

    def __init__(
        self, model: nn.Module, head: str, stages: tuple[str, ...] = (), dropout_at: DropoutAt | None = None
    ) -> None:
        self.head_name = head
        self.head = Head(submodule(model, head, "head"))
        # A head that starts with an in-place layer (EfficientNet's dropout) would overwrite f(x) after we kept it.
        works_in_place = any(getattr(module, "inplace", False) for module in self.head.module.modules())
        self.feature_hook = FeatureHook(copies=works_in_place)
        self.stage_hooks = [StageHook() for _ in stages]
        self.dropout_hook = None if dropout_at is None else DropoutHook(dropout_at)
        # Every name is looked up before the first hook: a wrong one leaves the model without any.
        hooked: list[tuple[nn.Module, StageHook | DropoutHook]] = [
            (submodule(model, name, "stages"), hook) for name, hook in zip(stages, self.stage_hooks, strict=True)
        ]
        if dropout_at is not None and self.dropout_hook is not None:
            hooked.append((submodule(model, dropout_at.module, "at"), self.dropout_hook))
        self._handles = [self.head.module.register_forward_pre_hook(self.feature_hook)]
        self._handles += [module.register_forward_hook(hook) for module, hook in hooked]

    def outputs(self, model: nn.Module, x: Input, *, drop: bool = False) -> tuple[Outputs, ...]:
        """Pass ``x`` once and return its :class:`Outputs`; with ``drop``, those of clean, u and v.

        Raises:
            RuntimeError: the head's hook, or the dropout's, did not fire in this pass.
        """
        hooks: list[FeatureHook | StageHook] = [self.feature_hook, *self.stage_hooks]
        dropping = self.dropout_hook if drop else None
        for hook in hooks:
            hook.armed = True
        if dropping is not None:
            dropping.armed, dropping.fired = True, 0
        try:
            logits = logits_of(call(model, x))
            features = self.feature_hook.features
            stages = [hook.output for hook in self.stage_hooks]
            fired = 1 if dropping is None else dropping.fired
        finally:
            for hook in hooks:
                hook.armed = False
            self.feature_hook.features = None
            for stage_hook in self.stage_hooks:
                stage_hook.output = None
            if dropping is not None:
                dropping.armed = False
        if features is None:
            raise RuntimeError(
                f"the head {self.head_name!r} gave no features in this pass: the model was compiled and run before it "
                "was wrapped, or does not call this module; wrap it first and compile the distiller, or pass head="
            )
        if any(stage is None for stage in stages):
            raise RuntimeError("a stage gave no output in this pass; check stages=")
        if dropping is not None and fired != 1:
            raise RuntimeError(
                f"at={dropping.place.module!r}: this module ran {fired} times in one pass; choose one that runs once"
            )
        whole = Outputs(logits, features, self.head, tuple(stage for stage in stages if stage is not None))
        if dropping is None:
            return (whole,)
        rows = _rows(x)
        if logits.shape[0] != 3 * rows:
            raise RuntimeError(
                f"at={dropping.place.module!r}: the logits do not come from this module's output, batch first; choose "
                "a module whose output is all that later layers read"
            )
        return split(whole, 3, uncut=rows)

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


def split(outputs: Outputs, parts: int, uncut: int | None = None) -> tuple[Outputs, ...]:
    """Cut the outputs of one concatenated pass into equal parts; what has ``uncut`` rows belongs to each whole."""
    if parts == 1:
        return (outputs,)

    def cut(tapped: Tensor) -> tuple[Tensor, ...]:
        return (tapped,) * parts if tapped.shape[0] == uncut else tapped.chunk(parts)

    features, stages = cut(outputs.features), [cut(stage) for stage in outputs.stages]
    return tuple(
        Outputs(logits, features[part], outputs.head, tuple(stage[part] for stage in stages))
        for part, logits in enumerate(outputs.logits.chunk(parts))
    )


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
            logits = logits_of(_eager_call(model, samples(x, 1)))
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


def submodule(model: nn.Module, name: str, argument: str) -> nn.Module:
    """Return the module of this dotted name.

    Raises:
        ValueError: there is none; the message names the argument and the model's own children.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        children = ", ".join(child for child, _ in model.named_children()) or "none"
        raise ValueError(
            f"{argument}={name!r} is no module of this {type(model).__name__}; its children are: {children}"
        ) from None


def eager(model: nn.Module) -> nn.Module:
    """Return the module itself where ``torch.compile`` returned a wrapper."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, without gradients or autocast; modes and random state are restored."""
    modes = [(module, module.training) for module in model.modules()]
    tensor = next(iter(model.parameters()), torch.empty(0))
    devices = [tensor.device] if tensor.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), torch.autocast(tensor.device.type, enabled=False):
            yield
    finally:
        for module, training in modes:
            module.training = training


def samples(x: Input, count: int) -> Input:
    """Return a batch of ``count`` samples made of the first one."""
    if isinstance(x, Mapping):
        return {
            name: value[:1].repeat(count, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value
            for name, value in x.items()
        }
    return x[:1].repeat(count, *[1] * (x.dim() - 1))


def _rows(x: Input) -> int:
    tensor = next(value for value in x.values() if isinstance(value, Tensor)) if isinstance(x, Mapping) else x
    return tensor.shape[0]


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


def _eager_call(model: nn.Module, x: Input) -> Any:
    return call(_Eager(model), x)


def _same_values_in_place(output: Tensor, logits: Tensor) -> bool:
    """Whether one is the other, or its flattened view: a (B, C, 1, 1) map and (B, C)."""
    return (
        output.numel() == logits.numel()
        and output.data_ptr() == logits.data_ptr()
        and output.shape[:2] == logits.shape[:2]
    )
