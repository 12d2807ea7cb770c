"""Eq. 2 for analysis: two dropped copies of the features, the same whatever the batch size, and their logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from selfdistill.data.randomness import draw, hash_key
from selfdistill.evaluate.gradient import checked, plain
from selfdistill.evaluate.images import Images
from selfdistill.head import find_head
from selfdistill.network import eager
from selfdistill.tap import Tap

_LEVELS = 2**31


def dropped_pair(features: Tensor, *, p: float = 0.5, seed: int = 0, first: int = 0) -> Tensor:
    """u ⊙ f(x) and v ⊙ f(x), u and v independent masks of 0 and 1 / (1 - p), as in training (Eq. 2).

    A mask's entry is a function of the seed, the image's position and the feature alone: two measurements of one
    network see the same masks, and so do two networks of the same width.

    Args:
        features: f(x), (B, D) or maps (B, D, 1, 1).
        p: probability that a feature is dropped, in (0, 1).
        seed: of the masks, >= 0.
        first: position of the first of these images in its set, >= 0.

    Returns:
        (2, B, D) or (2, B, D, 1, 1): under u, then under v; of the features' type and with their graph.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> u, v = dropped_pair(torch.ones(4, 8))
        >>> sorted(set(u.flatten().tolist())), torch.equal(u, v)
        ([0.0, 2.0], False)
        >>> torch.equal(dropped_pair(torch.ones(2, 8), first=2)[0], u[2:])
        True
    """
    if not 0 < p < 1:
        raise ValueError(f"p: {p}, expected a probability in (0, 1); without dropout the two posteriors are one")
    if seed < 0:
        raise ValueError(f"seed: {seed}, expected a whole number >= 0")
    counter = torch.arange(features.numel(), device=features.device) + first * features[0].numel()
    kept = torch.stack([draw(hash_key(seed, mask), counter, _LEVELS) >= p * _LEVELS for mask in range(2)])
    return features * (kept.view(2, *features.shape).to(features.dtype) / (1 - p))


def pair_logits(head: Callable[[Tensor], Tensor], pair: Tensor) -> Tensor:
    """h of both copies in one call: (2, B, D) to (2, B, C), float32 or better.

    Raises:
        ValueError: a logit is not finite, or masks a class with -inf, of which no ratio of probabilities is known.

    Example:
        >>> pair_logits(nn.Linear(8, 3), torch.ones(2, 4, 8)).shape
        torch.Size([2, 4, 3])
    """
    logits = checked(head(pair.flatten(0, 1)))
    if bool((logits.detach() == -torch.inf).any()):
        raise ValueError("logits: a class is masked with -inf; analyse the head without its mask")
    return logits.view(2, -1, logits.shape[1])


def pass_twice_dropped(
    model: nn.Module, tap: Tap, x: Tensor, *, p: float = 0.5, seed: int = 0, first: int = 0
) -> Tensor:
    """One pass of x through the backbone and one of both dropped copies through the head, with their graph.

    The caller says in which mode: see `selfdistill.evaluate.gradient.scoring`.

    Returns:
        Logits (2, B, C), under u and under v; see `dropped_pair`.
    """
    (outputs,) = tap.outputs(model, plain(x))
    return pair_logits(tap.head, dropped_pair(outputs.features, p=p, seed=seed, first=first))


@contextmanager
def tapped(model: nn.Module, images: Images, head: str | None) -> Iterator[Tap]:
    """A tap on the model's head, gone afterwards; without a name the head is found on the first batch.

    Raises:
        ValueError: no head is found, or there is no module of that name.
    """
    tap = Tap(eager(model), find_head(model, next(images.batches())[0]) if head is None else head)
    try:
        yield tap
    finally:
        tap.close()


def learned(module: nn.Module, name: str) -> list[nn.Parameter]:
    """The weights that a training would change.

    Raises:
        ValueError: there is none.

    Example:
        >>> [tuple(w.shape) for w in learned(nn.Linear(8, 3), "model")]
        [(3, 8), (3,)]
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError(f"{name}: none of its weights takes a gradient; call requires_grad_() on what is trained")
    return weights


def chosen(images: Images, most: int) -> Images:
    """At most so many images, evenly spaced.

    Raises:
        ValueError: less than one is asked for, or there is none.
    """
    if most < 1:
        raise ValueError(f"max_images: {most}, expected at least 1")
    if not len(images):
        raise ValueError("images: there is none to measure")
    return images.spaced(most)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive."""
    if not temperature > 0:
        raise ValueError(f"temperature: {temperature}, expected a positive number")
