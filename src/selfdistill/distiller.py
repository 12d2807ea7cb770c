"""The distiller: one pass through the user's model, the method's terms, and their sum (Eq. 4 and 5).

distiller = SelfDistiller(model, SDDropout())
loss, logits, terms = distiller(x, y)
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selfdistill.head import check_dropout, check_head, dropout_before, find_head
from selfdistill.method import Batch, Input, Method, Step, Term, cross_entropy
from selfdistill.tap import Tap, call, eager, logits_of, split


class StepOutput(NamedTuple):
    """The loss to call ``backward`` on, the clean logits ``(B, C)``, and each L by name: detached and unweighted."""

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]


class SelfDistiller(nn.Module):
    r"""Train ``model`` with ``method``. The model stays yours: only hooks are added, and :meth:`release` removes them.

    .. math::
        L_{Total} = L_{CE} + \sum_m \lambda_m T_m^2 L_m \qquad \text{(Eq. 4, 5)}

    In training mode ``distiller(x, y)`` returns this loss as a :class:`StepOutput`. In evaluation mode it returns the
    plain cross-entropy of the clean logits, needs nothing further and changes nothing. ``distiller(x)`` is the model's
    own output. Everything trainable runs inside ``forward``: wrap the *distiller* in DDP or ``torch.compile``.

    Args:
        model: any classifier whose output is, or holds, logits ``(B, C)``.
        method: what to train with; methods are added with ``+``.
        head: the classifier layer, a dotted name or the module itself. None finds it in the first pass.
        stages: dotted names of inner modules whose outputs a method reads.
        example_input: a batch (a tensor or a mapping) to find the head with at once, instead of in the first pass;
            needed before ``torch.compile`` unless ``head`` is given.

    Raises:
        ValueError: the head cannot be decided or is not the head, an unknown module name, or a missing need.
        RuntimeError: compiled before the head is known, or a model compiled and run before it was wrapped.

    Example:
        >>> import torch
        >>> from selfdistill import SDDropout, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, SDDropout())
        >>> loss, logits, terms = distiller(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
        >>> loss.backward()
        >>> distiller.release() is model
        True
    """

    progress: Tensor

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        head: str | nn.Module | None = None,
        stages: Sequence[str] | None = None,
        example_input: Input | None = None,
    ):
        super().__init__()
        self.model = model
        self.method = method
        self.stages = tuple(stages or ())
        # A device scalar, not a Python number: torch.compile would compile anew for each value.
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self._tap: Tap | None = None
        self._probed = False
        self._released = False
        if method.needs.stages and not self.stages:
            raise ValueError(f"{method!r} reads inner stages; pass stages=, the dotted names of the modules")
        builds = any(type(part).build is not Method.build for part in getattr(method, "parts", [method]))
        if builds and example_input is None:
            raise ValueError(f"{method!r} has parameters of its own to size; pass example_input=, a batch of the data")
        if head is not None:
            name = head if isinstance(head, str) else _name_of(model, head)
            self._tap = Tap(eager(model), name, self.stages, method.needs.dropout_at)
        if example_input is not None:
            try:
                self._probe(example_input)
            except BaseException:
                self.release()  # nobody will hold this distiller: no hook may stay behind
                raise

    @property
    def head(self) -> str | None:
        """The head's dotted name, or None while it is not known."""
        return None if self._tap is None else self._tap.head_name

    def forward(
        self,
        x: Input,
        y: Tensor | None = None,
        views: Sequence[Input] = (),
        pair: Input | None = None,
        index: Tensor | None = None,
        previous: Any = None,
    ) -> Any:
        """Return a :class:`StepOutput`, or without labels the model's own output.

        Args:
            x: images ``(B, ...)``, or a mapping that is passed as keyword arguments.
            y: class indices ``(B,)`` or probabilities ``(B, C)``.
            views: further augmented views of the same images.
            pair: for each image another of its class, same shape as ``x``.
            index: each image's position in the training set, ``(B,)``.
            previous: what a method asked the loop to keep.
        """
        if y is None:
            return call(self.model, x)
        if not self.training:
            logits = logits_of(call(self.model, x))
            loss = cross_entropy(logits, y)
            return StepOutput(loss, logits, {"ce": loss.detach()})
        batch = Batch(x, y, tuple(views), pair, index, previous)
        self._check_needs(batch)
        step = self._step(batch, self._ready_tap(x))
        label_losses = [weight * step.criterion(z, labels) for z, labels, weight in self.method.labelled(step)]
        terms = {"ce": Term(reduce(add, label_losses)), **self.method.terms(step)}
        loss = reduce(add, [term.weight * term.value for term in terms.values()])
        return StepOutput(loss, step.outputs[0].logits, {name: term.value.detach() for name, term in terms.items()})

    def release(self) -> nn.Module:
        """Take the hooks off and return the model: the same object, with the same ``state_dict`` keys as before."""
        if self._tap is not None:
            self._tap.close()
        self._released = True
        return self.model

    def _step(self, batch: Batch, tap: Tap) -> Step:
        inputs = (batch.x, *batch.views)
        drop = self.method.needs.dropout_at is not None
        if len({_shapes(x) for x in inputs}) == 1:
            passes = tap.outputs(self.model, _concatenated(inputs), drop=drop)
            by_view = [split(one_pass, len(inputs)) for one_pass in passes]
        else:
            by_view = list(zip(*(tap.outputs(self.model, x, drop=drop) for x in inputs), strict=True))
        pair = None
        if self.method.needs.pair is not None and batch.pair is not None:
            with torch.no_grad():
                (pair,) = tap.outputs(self.model, batch.pair)
        return Step(
            batch=batch,
            outputs=by_view[0],
            dropped=tuple(masked[0] for masked in by_view[1:]),
            pair=pair,
            net=lambda x: tap.outputs(self.model, x)[0],
            criterion=self.method.criterion or cross_entropy,
            progress=self.progress,
        )

    def _check_needs(self, batch: Batch) -> None:
        needs = self.method.needs
        if len(batch.views) < needs.views - 1:
            raise ValueError(
                f"{self.method!r} reads {needs.views} views of each image; pass views=, a tuple of {needs.views - 1} "
                "further augmented batch(es)"
            )
        for argument, needed in (("pair", needs.pair), ("index", needs.index)):
            if needed and getattr(batch, argument) is None:
                meaning = {"pair": "another image of each image's class", "index": "the images' positions"}[argument]
                raise ValueError(f"{self.method!r} needs {argument}=, {meaning}")

    def _ready_tap(self, x: Input) -> Tap:
        if self._released:
            raise RuntimeError("this distiller was released; wrap the model again to go on training")
        if not self._probed:
            if torch.compiler.is_compiling():
                if self._tap is None:
                    torch.compiler.disable(_refuse_to_compile)()  # type: ignore[no-untyped-call]
            else:
                self._probe(x)
        assert self._tap is not None
        return self._tap

    def _probe(self, x: Input) -> None:
        """Find the head if need be, check it, and let the method size its parameters; the model is left unchanged."""
        place = self.method.needs.dropout_at
        if self._tap is None:
            self._tap = Tap(eager(self.model), find_head(self.model, x), self.stages, place)
        outputs = check_head(self._tap, self.model, x)
        if place is not None:
            check_dropout(self._tap, self.model, x)
        elif self.method.drops_features:
            own = dropout_before(self.model, self._tap.head_name, x)
            if own is not None:
                warnings.warn(
                    f"the model drops out its features itself, in {own!r}, before {self.method!r} drops them again; "
                    "set that dropout's p to 0 to drop them once",
                    stacklevel=4,
                )
        self.method.build(outputs, self.model)
        self._probed = True


def _refuse_to_compile() -> None:
    # Outside the compiler's sight: an error raised in a compiled frame would only make it fall back to eager silently.
    raise RuntimeError(
        "the head is not known yet when the distiller is compiled; pass head= or example_input= to SelfDistiller"
    )


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    for name, module in eager(model).named_modules():
        if module is wanted:
            return str(name)
    raise ValueError(f"head= is a {type(wanted).__name__} that is no module of this {type(eager(model)).__name__}")


def _shapes(x: Input) -> tuple[Any, ...]:
    if isinstance(x, Mapping):
        return tuple((name, value.shape) for name, value in x.items() if isinstance(value, Tensor))
    return tuple(x.shape)


def _concatenated(inputs: Sequence[Input]) -> Input:
    first = inputs[0]
    if len(inputs) == 1:
        return first
    if isinstance(first, Mapping):
        return {
            name: torch.cat([x[name] for x in inputs]) if isinstance(value, Tensor) else value  # type: ignore[index]
            for name, value in first.items()
        }
    return torch.cat([x for x in inputs if isinstance(x, Tensor)])
