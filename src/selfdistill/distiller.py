"""The distiller: one pass through the user's model, the method's terms, and their sum (Eq. 4 and 5).

distiller = SelfDistiller(model, SDDropout())
loss, logits, terms = distiller(x, y)
"""

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import Tensor, nn

from selfdistill.errors import ArgumentError
from selfdistill.head import check_dropout, check_head, dropout_before, find_head, gives_probabilities
from selfdistill.losses import check_labels, cross_entropy
from selfdistill.method import Batch, Criterion, Input, Method, Outputs, Step, Term
from selfdistill.network import call, eager, logits_of, rows_of
from selfdistill.stages import find_stages
from selfdistill.tap import Tap, split


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
        stages: dotted names of the inner modules whose outputs a method reads, shallow to deep, the last one being the
            map that is pooled. None finds them in ResNets, DenseNets and wherever timm's feature interface names them.
        example_input: a batch (a tensor or a mapping) to find the head with at once, instead of in the first pass;
            needed before ``torch.compile`` unless ``head`` is given.
        class_weights: :math:`w_c \ge 0` of each class ``(C,)`` in every label loss of the training, see
            :func:`~selfdistill.losses.cross_entropy`; None: 1.

    Raises:
        ValueError: the head or the stages cannot be decided, an unknown module name, a missing need, or a model that
            this method cannot train.
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
    epoch_end: Tensor
    class_weights: Tensor | None

    if TYPE_CHECKING:  # torch says that a call returns anything

        @overload
        def __call__(
            self,
            x: Input,
            y: Tensor,
            views: Sequence[Input] = (),
            pair: Input | None = None,
            index: Tensor | None = None,
            previous: tuple[Input, Tensor] | None = None,
        ) -> StepOutput: ...
        @overload
        def __call__(self, x: Input) -> Any: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...  # noqa: D102

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        head: str | nn.Module | None = None,
        stages: Sequence[str] | None = None,
        example_input: Input | None = None,
        class_weights: Tensor | None = None,
    ):
        super().__init__()
        self.model = model
        self.method = method
        self.stages = find_stages(model) if method.needs.stages and not stages else tuple(stages or ())
        # Device scalars, not Python numbers: torch.compile would compile anew for each value.
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.register_buffer("epoch_end", torch.ones(()), persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)
        if (
            class_weights is not None
            and "weight" not in inspect.signature(method.criterion or cross_entropy).parameters
        ):
            raise ArgumentError("class_weights", f"would be ignored: the label loss of {method!r} takes no weights")
        self._follows_progress = False
        self._tap: Tap | None = None
        self._peer_tap: Tap | None = None
        self._probed = False
        self._checked_labels = False
        self._released = False
        builds = any(type(part).build is not Method.build for part in method.parts)
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

    @property
    def peer(self) -> nn.Module | None:
        """The second network that the method trains beside the model, or None."""
        return self.method.peer_network

    def set_progress(self, done: float, epoch_end: float | None = None) -> None:
        """Report training progress; required by methods with a schedule. Call it before each step.

        Args:
            done: share of the optimiser steps that are done, in [0, 1].
            epoch_end: the share when this epoch ends, (epoch + 1) / epochs; (default: ``done``).
        """
        self.progress.fill_(done)
        self.epoch_end.fill_(done if epoch_end is None else epoch_end)
        self._follows_progress = True

    def set_gap(self, gap: float, share: float) -> None:
        """Report how over-confident the model is on held-out images; ``SDDropout(weight="auto")`` follows it.

        Args:
            gap: mean confidence minus accuracy, in [-1, 1].
            share: of the training since the last report, in [0, 1]; 1 / epochs if it comes after each epoch.
        """
        for part in self.method.parts:
            part.follow(gap, share)

    def forward(
        self,
        x: Input,
        y: Tensor | None = None,
        views: Sequence[Input] = (),
        pair: Input | None = None,
        index: Tensor | None = None,
        previous: tuple[Input, Tensor] | None = None,
    ) -> Any:
        """Return a :class:`StepOutput`, or without labels the model's own output.

        Args:
            x: images ``(B, ...)``, or a mapping that is passed as keyword arguments.
            y: class indices ``(B,)`` or probabilities ``(B, C)``.
            views: further augmented views of the same images.
            pair: for each image another of its class, same shape as ``x``.
            index: each image's position in the training set, ``(B,)``.
            previous: the previous batch's images, augmented anew, and their labels; None before the second batch.
        """
        if y is None:
            return call(self.model, x)
        if not self.training:
            logits = logits_of(call(self.model, x))
            self._check_labels(logits, y)
            loss = cross_entropy(logits, y)
            return StepOutput(loss, logits, {"ce": loss.detach()})
        try:
            return self._train_step(Batch(x, y, tuple(views), pair, index, previous))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"a batch of {rows_of(x)} is too small: a BatchNorm would see one value per channel; use larger "
                "batches, or leave out the last partial one"
            ) from error

    def _train_step(self, batch: Batch) -> StepOutput:
        self._check_needs(batch)
        step = self._step(batch, self._ready_tap(batch.x))
        self._check_labels(step.outputs[0].logits, batch.y)
        if step.previous is not None and batch.previous is not None:
            self._check_labels(step.previous.logits, batch.previous[1])
        step = step._replace(labels=self.method.labels(step))
        label_losses = [Term(step.criterion(z, labels), weight) for z, labels, weight in self.method.ce_inputs(step)]
        terms = {"ce": Term(_weighted_sum(label_losses)), **self.method.terms(step)}
        loss = _weighted_sum(terms.values())
        return StepOutput(loss, step.outputs[0].logits, {name: term.value.detach() for name, term in terms.items()})

    def release(self) -> nn.Module:
        """Take the hooks off and return the model: the same object, with the same ``state_dict`` keys as before."""
        for tap in (self._tap, self._peer_tap):
            if tap is not None:
                tap.close()
        self._released = True
        return self.model

    def _step(self, batch: Batch, tap: Tap) -> Step:
        needs = self.method.needs
        before = () if batch.previous is None or not needs.previous else (batch.previous[0],)
        views = batch.views[: needs.views - 1]
        inputs = (batch.x, *views, *[batch.x] * (needs.passes - 1), *before)
        clean, *dropped = self._passes(inputs, tap)
        pair = None
        if needs.pair is not None and batch.pair is not None:
            with torch.no_grad():
                (pair,) = tap.outputs(self.model, batch.pair)
        peers: tuple[Outputs, ...] = ()
        if self._peer_tap is not None and self.peer is not None:
            peers = self._peer_tap.outputs(self.peer, batch.x)
        return Step(
            batch=batch,
            labels=batch.y,
            outputs=clean[: 1 + len(views)],
            again=clean[1 + len(views) : len(inputs) - len(before)],
            dropped=tuple(masked[0] for masked in dropped),
            pair=pair,
            previous=clean[-1] if before else None,
            peers=peers,
            net=lambda x: tap.outputs(self.model, x)[0],
            criterion=self._criterion(),
            progress=self.progress,
            epoch_end=self.epoch_end,
        )

    def _criterion(self) -> Criterion:
        own = self.method.criterion or cross_entropy
        return own if self.class_weights is None else partial(own, weight=self.class_weights)

    def _passes(self, inputs: Sequence[Input], tap: Tap) -> list[tuple[Outputs, ...]]:
        """Return the outputs of each input: clean, and where the method drops out inside the model those of u and v."""
        drop = self.method.needs.dropout_at is not None
        if len({_shape_of_one(x) for x in inputs}) == 1:
            sizes = [rows_of(x) for x in inputs]
            return [split(one_pass, sizes) for one_pass in tap.outputs(self.model, _concatenated(inputs), drop=drop)]
        return list(zip(*(tap.outputs(self.model, x, drop=drop) for x in inputs), strict=True))

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
        if needs.progress and not self._follows_progress:
            raise ValueError(
                f"{self.method!r} changes over the training; call distiller.set_progress(done, epoch_end) "
                "before each step"
            )
        others = {f"views[{i}]": view for i, view in enumerate(batch.views[: needs.views - 1])}
        if needs.pair is not None and batch.pair is not None:
            others["pair"] = batch.pair
        for name, other in others.items():
            if rows_of(other) != rows_of(batch.x):
                raise ValueError(
                    f"{name} has {rows_of(other)} images and x has {rows_of(batch.x)}; it must have one for each"
                )
            if needs.one_pass and name != "pair" and _shape_of_one(other) != _shape_of_one(batch.x):
                raise ValueError(
                    f"{self.method!r} passes x and its views together, but {name} is of another shape: resize it to "
                    f"x's, {_shape_of_one(batch.x)}"
                )

    def _check_labels(self, logits: Tensor, labels: Tensor) -> None:
        # On a GPU this waits for the device: the first batch alone. Later ones meet the cross-entropy's own assert.
        values = not (torch.compiler.is_compiling() or (self._checked_labels and labels.device.type != "cpu"))
        check_labels(logits, labels, values=values)
        if values:
            self._checked_labels = True

    def _ready_tap(self, x: Input) -> Tap:
        if self._released:
            raise RuntimeError("this distiller was released; wrap the model again to go on training")
        if not self._probed:
            if torch.compiler.is_compiling():
                if self._tap is None:
                    torch.compiler.disable(_refuse_to_compile)()
            else:
                self._probe(x)
        assert self._tap is not None
        return self._tap

    def _probe(self, x: Input) -> None:
        """Find the head if need be, check it, and let the method size its parameters; the model is left unchanged."""
        place = self.method.needs.dropout_at
        if self._tap is None:
            self._tap = Tap(eager(self.model), find_head(self.model, x), self.stages, place)
        self.method.check(eager(self.model), x)
        outputs = check_head(self._tap, self.model, x)
        if self.class_weights is not None and self.class_weights.shape != outputs.logits.shape[1:]:
            shape, classes = tuple(self.class_weights.shape), outputs.logits.shape[1]
            raise ArgumentError("class_weights", f"are {shape}, and the model has {classes} classes: give one of each")
        if gives_probabilities(outputs):
            warnings.warn(
                "the model's outputs are probabilities, of a softmax or sigmoid, but losses and methods take logits: "
                "leave the last activation out",
                stacklevel=4,
            )
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
        self._tap.close()  # what a method copies of the model shall bear no hooks
        self.method.build(outputs, eager(self.model))
        self._tap.open()
        if self.peer is not None:
            self._peer_tap = self._tap_of_peer(self.peer, outputs, x)
        self._probed = True

    def _tap_of_peer(self, peer: nn.Module, outputs: Outputs, x: Input) -> Tap:
        """Return the tap of the second network, whose head is where the model's is if its parts bear the same names."""
        assert self._tap is not None
        alike = peer.state_dict().keys() == eager(self.model).state_dict().keys()
        tap = Tap(peer, self._tap.head_name if alike else find_head(peer, x))
        try:
            logits = check_head(tap, peer, x).logits
            _check_peer(logits, outputs.logits)
        except BaseException:
            tap.close()
            raise
        return tap


def _check_peer(logits: Tensor, own: Tensor) -> None:
    if logits.shape[1] != own.shape[1]:
        raise ValueError(f"the peer has {logits.shape[1]} classes and the model {own.shape[1]}; give both as many")
    if not torch.equal(logits == -torch.inf, own == -torch.inf):
        raise ValueError("the peer and the model mask different classes with -inf, so they are infinitely far apart")


def _weighted_sum(terms: Iterable[Term]) -> Tensor:
    # A factor of exactly 1 is left out: inductor drops it too, but only after the loss was noted down as another tensor
    # than the term that is detached from it, and then hands out a loss without a gradient.
    weighted = [value if isinstance(weight, float) and weight == 1 else weight * value for value, weight in terms]
    return reduce(add, weighted)


def _refuse_to_compile() -> None:
    # Outside the compiler's sight: an error raised in a compiled frame would only make it fall back to eager silently.
    raise RuntimeError(
        "the head is not known yet when the distiller is compiled; pass head= or example_input= to SelfDistiller"
    )


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    for name, module in eager(model).named_modules():
        if module is wanted:
            return str(name)
    raise ValueError(f"head= is a {type(wanted).__name__} that is not a module of this {type(eager(model)).__name__}")


def _shape_of_one(x: Input) -> tuple[Any, ...]:
    """Return the shape of one sample."""
    if isinstance(x, Mapping):
        return tuple((name, tuple(value.shape[1:])) for name, value in x.items() if isinstance(value, Tensor))
    return tuple(x.shape[1:])


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
