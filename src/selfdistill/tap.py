"""Read f(x) and h from any classifier without editing it.

    x --> [ backbone f ] --f(x)--> [ head h ] --> logits
                            ^ a forward pre-hook, armed only during the distiller's own pass

Which module is the head: :mod:`selfdistill.head`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from selfdistill.method import DropoutAt, Input, Outputs
from selfdistill.network import call, logits_of, rows_of, submodule


class FeatureHook:
    """A forward pre-hook that keeps the head's input while armed. An object, not a closure, so that models pickle."""

    def __init__(self, *, copies: bool = False) -> None:
        self.armed = self.has_graph = False
        self.copies = copies
        self.features: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep the first argument."""
        if self.armed and args:
            self.has_graph = torch.is_grad_enabled()
            self.features = args[0].clone() if self.copies else args[0]


class StageHook:
    """A forward hook that keeps a module's output while armed."""

    def __init__(self) -> None:
        self.armed = self.has_graph = False
        self.output: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep the output."""
        if self.armed:
            self.has_graph = torch.is_grad_enabled()
            self.output = output


class DropoutHook:
    """A forward hook that passes a module's output on three times: clean, and under the masks u and v (Table 12)."""

    def __init__(self, place: DropoutAt) -> None:
        self.armed = False
        self.fired = 0
        self.rows: int | None = None  # of all three together, once the module has run in this pass
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
        self.rows = 3 * output.shape[0]
        drop = F.dropout2d if self.place.channels else F.dropout
        return torch.cat([output, drop(output.repeat(2, *[1] * (output.dim() - 1)), self.place.p)])


class SeparateStatistics:
    """Hooks that run a BatchNorm behind the dropout on clean, u and v one after the other (``passes="separate"``).

    No other layer mixes the images of a batch: all else runs on the three together, as one after the other.
    """

    def __init__(self, dropout: DropoutHook) -> None:
        self.dropout = dropout
        self.masked: tuple[Tensor, ...] = ()

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Pass on the clean part alone, where the input holds all three."""
        self.masked = ()
        if not self.dropout.armed or args[0].shape[0] != self.dropout.rows:
            return None
        clean, *masked = args[0].chunk(3)
        self.masked = tuple(masked)
        return (clean, *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Append what the module makes of u and of v."""
        masked, self.masked = self.masked, ()
        return torch.cat([output, *(module.forward(part) for part in masked)]) if masked else output


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
        self.stage_names, self.stage_hooks = stages, [StageHook() for _ in stages]
        self.dropout_hook = None if dropout_at is None else DropoutHook(dropout_at)
        # Every name is looked up before the first hook: a wrong one leaves the model without any.
        hooked: list[tuple[nn.Module, StageHook | DropoutHook]] = [
            (submodule(model, name, "stages"), hook) for name, hook in zip(stages, self.stage_hooks, strict=True)
        ]
        if dropout_at is not None and self.dropout_hook is not None:
            hooked.append((submodule(model, dropout_at.module, "at"), self.dropout_hook))
        self._hooked = hooked
        self._separate: list[tuple[nn.Module, SeparateStatistics]] = []
        if self.dropout_hook is not None and self.dropout_hook.place.passes == "separate":
            norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
            self._separate = [(norm, SeparateStatistics(self.dropout_hook)) for norm in norms]
        self._handles: list[RemovableHandle] = []
        self.open()

    def outputs(self, model: nn.Module, x: Input, *, drop: bool = False) -> tuple[Outputs, ...]:
        """Pass ``x`` once and return its :class:`Outputs`; with ``drop``, those of clean, u and v.

        Raises:
            RuntimeError: the head's hook, or the dropout's, did not fire in this pass; or no graph is recorded, though
                the pass is to have one.
        """
        hooks: list[FeatureHook | StageHook] = [self.feature_hook, *self.stage_hooks]
        dropping = self.dropout_hook if drop else None
        for hook in hooks:
            hook.armed = True
        if dropping is not None:
            dropping.armed, dropping.fired, dropping.rows = True, 0, None
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
        _check_stages(stages)
        self._check_graphs(model, logits)
        whole = Outputs(logits, features, self.head, tuple(stage for stage in stages if stage is not None))
        if dropping is None:
            return (whole,)
        if fired != 1:
            raise RuntimeError(
                f"at={dropping.place.module!r}: this module ran {fired} times in one pass; choose one that runs once"
            )
        rows = rows_of(x)
        if logits.shape[0] != 3 * rows:
            raise RuntimeError(
                f"at={dropping.place.module!r}: the logits do not come from this module's output, batch first; choose "
                "a module whose output is all that later layers read"
            )
        return split(whole, [rows] * 3, uncut=rows)

    def _check_graphs(self, model: nn.Module, logits: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        hooks: dict[str, FeatureHook | StageHook] = {
            self.head_name: self.feature_hook,
            **dict(zip(self.stage_names, self.stage_hooks, strict=True)),
        }
        for name, hook in hooks.items():
            if not hook.has_graph:
                raise RuntimeError(
                    f"{name!r} runs where no gradient is recorded, so a term that reads it would train nothing before "
                    "it; checkpoint activations with use_reentrant=False, and freeze layers by requires_grad_(False), "
                    "not by torch.no_grad()"
                )
        if not logits.requires_grad and any(weight.requires_grad for weight in model.parameters()):
            raise RuntimeError(
                "the model's logits carry no gradient, so the label loss would train nothing; leave out detach() and "
                "what goes through NumPy"
            )

    def open(self) -> None:
        """Put the hooks on the model."""
        self._handles = [self.head.module.register_forward_pre_hook(self.feature_hook)]
        self._handles += [module.register_forward_hook(hook) for module, hook in self._hooked]
        for norm, hooks in self._separate:
            self._handles += [norm.register_forward_pre_hook(hooks.before), norm.register_forward_hook(hooks.after)]

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


def _check_stages(stages: Sequence[Tensor | None]) -> None:
    if any(stage is None for stage in stages):
        raise RuntimeError("a stage gave no output in this pass; check stages=")


def split(outputs: Outputs, sizes: Sequence[int], uncut: int | None = None) -> tuple[Outputs, ...]:
    """Cut the outputs of one concatenated pass into parts of these sizes; what has ``uncut`` rows belongs to each."""
    if len(sizes) == 1:
        return (outputs,)

    def cut(tapped: Tensor) -> tuple[Tensor, ...]:
        return (tapped,) * len(sizes) if tapped.shape[0] == uncut else torch.split(tapped, list(sizes))

    features, stages = cut(outputs.features), [cut(stage) for stage in outputs.stages]
    return tuple(
        Outputs(logits, features[part], outputs.head, tuple(stage[part] for stage in stages))
        for part, logits in enumerate(torch.split(outputs.logits, list(sizes)))
    )
