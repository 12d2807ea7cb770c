"""What a method is: it says what it needs of a batch, and turns one step into named terms.

    Batch --(one pass through the user's model)--> Step --(Method.terms)--> {name: Term(value, weight)}

A new method is one subclass of :class:`Method` in one file; see :class:`selfdistill.methods.SDDropout`.
"""

import inspect
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

Input = Tensor | Mapping[str, Tensor]
"""What a model reads: a tensor ``(B, ...)``, or a mapping that is passed as keyword arguments (Hugging Face)."""

Criterion = Callable[..., Tensor]
"""``criterion(logits (B, C), labels (B,) or (B, C)) -> scalar``; with a third argument ``weight (C,)`` if it can."""

CEInputs = tuple[tuple[Tensor, Tensor, float], ...]
"""What the cross-entropy is computed on: ``((logits, labels, weight), ...)``."""


class Range(NamedTuple):
    """Where a search looks for the argument ``name`` of a method: from low to high, in equal ratios if ``log``."""

    name: str
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class DropoutAt:
    """Apply two dropout masks to the output of an inner module (Table 12).

    Attributes:
        module: the module's dotted name in the user's model, such as ``"layer3"``.
        p: probability in [0, 1) that a value is dropped.
        channels: drop whole channels of a map ``(B, C, H, W)`` instead of single values.
        passes: ``"joint"``, one batch of clean, u and v runs through the later layers; ``"separate"``, each as if it
            ran alone: a later BatchNorm normalises it by its own statistics, and is updated by each in turn.
    """

    module: str
    p: float
    channels: bool = False
    passes: Literal["joint", "separate"] = "joint"


@dataclass(frozen=True)
class Needs:
    """What a method needs of a batch, joined with ``|``.

    Attributes:
        views: how many augmented views of each image, ``x`` itself counted.
        one_pass: the views have x's shape, so that one pass takes all of them (without it they may differ).
        passes: how often ``x`` itself is passed, each time with the model's own dropout drawn anew.
        pair: a second image of the same class for each image: ``"any"`` (possibly the image itself) or ``"other"``.
        group: images of one class that stand one behind the other in the batch, itself counted.
        index: the images' positions in the training set.
        previous: the images and labels of the previous batch, augmented anew.
        stages: the outputs of the model's inner stages.
        peer: the outputs of a second network, ``Method.peer_network``.
        progress: how much of the training is done (:meth:`SelfDistiller.set_progress`).
        dropout_at: an inner module whose output is passed on clean and under two dropout masks.
    """

    views: int = 1
    one_pass: bool = False
    passes: int = 1
    pair: Literal["any", "other"] | None = None
    group: int = 1
    index: bool = False
    previous: bool = False
    stages: bool = False
    peer: bool = False
    progress: bool = False
    dropout_at: DropoutAt | None = None

    def __or__(self, other: "Needs") -> "Needs":
        """Return what satisfies both."""
        places = {need.dropout_at for need in (self, other) if need.dropout_at is not None}
        if len(places) > 1:
            names = " and ".join(sorted(repr(place.module) for place in places))
            raise ValueError(f"one sum can drop out at one place with one p, not at {names}")
        pairs = {self.pair, other.pair} - {None}
        return Needs(
            views=max(self.views, other.views),
            one_pass=self.one_pass or other.one_pass,
            passes=max(self.passes, other.passes),
            pair="other" if "other" in pairs else "any" if pairs else None,
            group=max(self.group, other.group),
            index=self.index or other.index,
            previous=self.previous or other.previous,
            stages=self.stages or other.stages,
            peer=self.peer or other.peer,
            progress=self.progress or other.progress,
            dropout_at=next(iter(places), None),
        )


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        x: images ``(B, ...)`` or a mapping of such.
        y: class indices ``(B,)`` or probabilities ``(B, C)``.
        views: further augmented views of the same images.
        pair: for each image another of its class.
        index: the images' positions in the training set, ``(B,)``.
        previous: the previous batch's images, augmented anew, and their labels; None before the second batch.
    """

    x: Input
    y: Tensor
    views: tuple[Input, ...] = ()
    pair: Input | None = None
    index: Tensor | None = None
    previous: tuple[Input, Tensor] | None = None


class Outputs(NamedTuple):
    """One pass: logits ``z = h(f(x))`` ``(B, C)``, features ``f(x)`` ``(B, D)``, the head ``h``, inner stages."""

    logits: Tensor
    features: Tensor
    head: Callable[[Tensor], Tensor]
    stages: tuple[Tensor, ...] = ()


class Step(NamedTuple):
    """All that a method may read.

    Attributes:
        batch: the batch as given.
        labels: what the images of x are taught: ``batch.y``, or what a method puts in its place.
        outputs: one :class:`Outputs` a view; ``outputs[0]`` is x's.
        again: the further passes of x that ``Needs.passes`` asks for.
        dropped: the two masked passes ``(u, v)`` of ``Needs.dropout_at``, otherwise empty.
        pair: the same-class partner's outputs, without gradient.
        previous: the outputs of the previous batch's images now, or None.
        peers: the second network's outputs of x, or empty.
        net: a further full pass, ``net(x) -> Outputs``.
        criterion: the label loss of the whole sum.
        progress: a scalar tensor in [0, 1], how much of the training is done.
        epoch_end: a scalar tensor in (0, 1], how much will be done when this epoch ends.
    """

    batch: Batch
    labels: Tensor
    outputs: tuple[Outputs, ...]
    again: tuple[Outputs, ...]
    dropped: tuple[Outputs, ...]
    pair: Outputs | None
    previous: Outputs | None
    peers: tuple[Outputs, ...]
    net: Callable[[Input], Outputs]
    criterion: Criterion
    progress: Tensor
    epoch_end: Tensor


class Term(NamedTuple):
    """One term of Eq. 5: ``value`` is the paper's unweighted L, ``weight`` its coefficient (lambda * T**2)."""

    value: Tensor
    weight: float | Tensor = 1.0


class Method(nn.Module, ABC):
    """A training method. Subclasses override what they change; plain cross-entropy is what is left.

    A subclass keeps every constructor argument in the attribute of its name, so that ``repr(method)`` is the expression
    that makes it.

    Attributes:
        needs: what the method asks of a batch.
        criterion: the label loss that replaces cross-entropy, or None.
        drops_features: whether it drops out the features before the head (then a model's own dropout there is doubled).
        searched: the arguments that a search tries, and where; all others keep their defaults.
    """

    needs: Needs = Needs()
    criterion: Criterion | None = None
    drops_features: ClassVar[bool] = False
    searched: ClassVar[tuple[Range, ...]] = ()

    def __init__(self) -> None:
        super().__init__()

    @property
    def parts(self) -> tuple["Method", ...]:
        """The methods that this one is the sum of: itself."""
        return (self,)

    @property
    def peer_network(self) -> nn.Module | None:
        """The second network whose outputs ``Needs.peer`` asks for; there once the method is built."""
        return None

    def labels(self, step: Step) -> Tensor:
        """Return what the images of x are taught, ``(B,)`` or ``(B, C)``; by default the batch's labels."""
        return step.batch.y

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return ``((logits, labels, weight), ...)`` for the cross-entropy (default: x's clean logits)."""
        return ((step.outputs[0].logits, step.labels, 1.0),)

    def follow(self, gap: float, share: float) -> None:
        """Adapt to how over-confident the network is on held-out images; by default not at all.

        Args:
            gap: mean confidence minus accuracy there.
            share: of the training since the last look, in [0, 1].
        """

    def terms(self, step: Step) -> dict[str, Term]:
        """Return the terms that the method adds to the label loss, by name."""
        return {}

    def build(self, probe: Outputs, model: nn.Module) -> None:
        """Create parameters that depend on the model, given the outputs of one probe pass in evaluation mode."""

    def check(self, model: nn.Module, x: Input) -> None:
        """Raise a ValueError if this model, of which ``x`` is an example input, cannot be trained with the method."""

    def __add__(self, other: "Method") -> "Sum":
        """Return the sum of two methods (Eq. 5); cross-entropy counts once."""
        if not isinstance(other, Method):
            return NotImplemented
        return Sum(self, other)

    def __repr__(self) -> str:
        """Return the expression that makes this method; arguments at their default are left out."""
        arguments = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={getattr(self, name)!r}"
            for name, argument in arguments.items()
            if name != "self" and getattr(self, name) != argument.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"


class Sum(Method):
    r"""Several methods at once (Eq. 5): :math:`L = L_{CE} + \sum_m \lambda_m T_m^2 L_m`, cross-entropy counted once.

    Parts are kept flat and sorted by their ``repr``, so ``a + b`` and ``b + a`` draw the same masks.

    Raises:
        ValueError: a method appears twice, or two parts replace the same thing: the labels, what the label loss
            sees, or the label loss itself.

    Example:
        >>> from selfdistill import LabelSmoothing, SDDropout
        >>> SDDropout(weight=0.1) + LabelSmoothing()
        LabelSmoothing() + SDDropout(weight=0.1)
    """

    def __init__(self, *methods: Method):
        super().__init__()
        flat = [part for method in methods for part in method.parts]
        kinds = [type(part) for part in flat]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f"{kind.__name__} stands twice in one sum: its terms would share a name")
        self._parts = nn.ModuleList(sorted(flat, key=repr))
        self.needs = reduce(or_, (part.needs for part in self.parts))
        for replacing, what in (
            (self._overriding("labels"), "replace the labels"),
            (self._overriding("ce_inputs"), "replace what the cross-entropy is computed on"),
            (self._criterion_overrides, "replace the label loss"),
            ([part for part in self.parts if part.needs.peer], "have a second network"),
        ):
            if len(replacing) > 1:
                raise ValueError(f"{replacing[0]!r} and {replacing[1]!r} cannot be added: both {what}")

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods of the sum."""
        return tuple(self._parts)  # type: ignore[arg-type]

    @property
    def peer_network(self) -> nn.Module | None:
        """The second network of the one part that has one, or None."""
        return next((part.peer_network for part in self.parts if part.needs.peer), None)

    def _overriding(self, name: str) -> list[Method]:
        return [part for part in self.parts if getattr(type(part), name) is not getattr(Method, name)]

    @property
    def _criterion_overrides(self) -> list[Method]:
        return [part for part in self.parts if part.criterion is not None]

    @property
    def criterion(self) -> Criterion | None:  # type: ignore[override]
        """The label loss of the one part that replaces it, or None."""
        return self._criterion_overrides[0].criterion if self._criterion_overrides else None

    @property
    def drops_features(self) -> bool:  # type: ignore[override]
        """Whether any part drops out the features before the head."""
        return any(part.drops_features for part in self.parts)

    def labels(self, step: Step) -> Tensor:
        """Return what the one part that replaces the labels says, otherwise the batch's own."""
        replacing = self._overriding("labels")
        return replacing[0].labels(step) if replacing else super().labels(step)

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return what the one part that replaces it says, otherwise x's clean logits."""
        replacing = self._overriding("ce_inputs")
        return replacing[0].ce_inputs(step) if replacing else super().ce_inputs(step)

    def terms(self, step: Step) -> dict[str, Term]:
        """Return the terms of all parts.

        Raises:
            ValueError: two parts give a term of one name.
        """
        joined: dict[str, Term] = {}
        for part in self.parts:
            for name, term in part.terms(step).items():
                if name in joined:
                    raise ValueError(f"{self!r}: two parts give a term named {name!r}; rename one")
                joined[name] = term
        return joined

    def build(self, probe: Outputs, model: nn.Module) -> None:
        """Build each part."""
        for part in self.parts:
            part.build(probe, model)

    def check(self, model: nn.Module, x: Input) -> None:
        """Let each part check the model."""
        for part in self.parts:
            part.check(model, x)

    def __repr__(self) -> str:
        """Return the parts' expressions joined by ``+``."""
        return " + ".join(map(repr, self.parts))
