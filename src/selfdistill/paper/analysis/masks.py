"""Eq. 2 for analysis: two dropped copies of the features, the same whatever the batch size, and their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import torch
from torch import Tensor, nn

from selfdistill.data.randomness import draw, hash_key
from selfdistill.errors import ArgumentError
from selfdistill.evaluation.gradient import checked, plain
from selfdistill.evaluation.images import Images
from selfdistill.head import find_head
from selfdistill.network import eager
from selfdistill.tap import Tap

_LEVELS = 2**31


class Conditions(msgspec.Struct, frozen=True):
    """Under which masks and at which temperature a network is analysed; every measurement says so.

    Attributes:
        p: probability that a feature is dropped, in (0, 1).
        temperature: T > 0.
        seed: of the masks, >= 0.

    Raises:
        ValueError: a value is outside its range.
    """

    p: float = 0.5
    temperature: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise ArgumentError("p", f"must be in (0, 1), not {self.p}: without dropout the two posteriors are one")
        if not self.temperature > 0:
            raise ArgumentError("temperature", f"must be above 0, not {self.temperature}")
        if self.seed < 0:
            raise ArgumentError("seed", f"must be at least 0, not {self.seed}")


PAPER = Conditions()


def drop_twice(features: Tensor, conditions: Conditions = PAPER, *, first: int = 0) -> Tensor:
    """Return u ⊙ f(x) and v ⊙ f(x), u and v independent masks of 0 and 1 / (1 - p), as in training (Eq. 2).

    A mask's entry is a function of the seed, the image's position and the feature alone: two measurements of one
    network see the same masks, and so do two networks of the same width.

    Args:
        features: f(x), (B, D) or maps (B, D, 1, 1).
        conditions: p and the seed.
        first: position of the first of these images in its set, >= 0.

    Returns:
        (2, B, D) or (2, B, D, 1, 1): under u, then under v; of the features' type and with their graph.

    Example:
        >>> u, v = drop_twice(torch.ones(4, 8))
        >>> sorted(set(u.flatten().tolist())), torch.equal(u, v)
        ([0.0, 2.0], False)
        >>> torch.equal(drop_twice(torch.ones(2, 8), first=2)[0], u[2:])
        True
    """
    p, seed = conditions.p, conditions.seed
    counter = torch.arange(features.numel(), device=features.device) + first * features[0].numel()
    masks = torch.stack([draw(hash_key(seed, mask), counter, _LEVELS) >= p * _LEVELS for mask in range(2)])
    return features * (masks.view(2, *features.shape).to(features.dtype) / (1 - p))


def classify_pair(head: Callable[[Tensor], Tensor], pair: Tensor) -> Tensor:
    """Return h of both copies in one call: (2, B, D) to (2, B, C), float32 or better.

    Raises:
        ValueError: a logit is not finite, or masks a class with -inf, of which no ratio of probabilities is known.
    """
    logits = checked(head(pair.flatten(0, 1)))
    if bool((logits.detach() == -torch.inf).any()):
        raise ValueError("logits: a class is masked with -inf; analyse the head without its mask")
    return logits.view(2, -1, logits.shape[1])


def forward_pair(model: nn.Module, tap: Tap, x: Tensor, conditions: Conditions = PAPER, *, first: int = 0) -> Tensor:
    """Make a forward pass of x through the backbone and one of both dropped copies through the head, with their graph.

    The caller chooses the mode: see `selfdistill.evaluation.gradient.scoring`.

    Returns:
        Logits (2, B, C), under u and under v; see `drop_twice`.
    """
    (outputs,) = tap.outputs(model, plain(x))
    return classify_pair(tap.head, drop_twice(outputs.features, conditions, first=first))


@contextmanager
def tap_head(model: nn.Module, images: Images) -> Iterator[Tap]:
    """Tap the head that is found on the first batch, until the end of the block.

    Raises:
        ValueError: no head is found.
    """
    tap = Tap(eager(model), find_head(model, next(images.batches())[0]))
    try:
        yield tap
    finally:
        tap.close()


def trainable_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights that a training would change.

    Raises:
        ValueError: there are none.

    Example:
        >>> [tuple(weight.shape) for weight in trainable_weights(nn.Linear(8, 3))]
        [(3, 8), (3,)]
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError(f"{type(module).__name__} has no weight that takes a gradient; call requires_grad_()")
    return weights
