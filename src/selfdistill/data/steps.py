"""Which images per step is made of: groups of one class, cut from an epoch's permutation into each process's passes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from selfdistill.data.randomness import generator, hash_key
from selfdistill.data.same_class import GroupSampler
from selfdistill.errors import ArgumentError

_PERMUTATION = 1 << 20  # a stream of (seed, epoch) that no sampler of same_class uses


@dataclass(frozen=True)
class Pass:
    """The images of one pass.

    Attributes:
        epoch: in which they are drawn.
        index: their positions ``(B,)``, group after group.
        draw: the same, plus a multiple of N for an image that the epoch has drawn before: it is augmented anew.
    """

    epoch: int
    index: Tensor
    draw: Tensor


class Steps:
    """The passes of one process of a run, as a function of (seed, epoch, step) alone.

    A step of ``batch_size`` images has A = ``batch_size / group`` anchors, each followed by ``group - 1`` images of its
    class. Step s has the anchors ``order[s * A : (s + 1) * A]`` of a permutation that depends on (seed, epoch), so each
    image is an anchor once per epoch, which has ceil(N / A) steps. The step's groups are cut into
    ``world_size * passes`` contiguous shares, of which rank r takes ``passes`` in a row. The last step is shorter; if
    there are several shares, it is filled up to equal ones with groups from the epoch's beginning. Where its shares
    would be of one image, on which a BatchNorm cannot train, it is joined to the step before.

    Balanced, an epoch has N anchors too, but as many of each class, to within one: see :func:`balanced_order`.

    Args:
        labels: int64 ``(N,)``, where the positions are wanted.
        group: images of one class that stand together, the anchor counted.
        batch_size: images of one optimiser step, over all ranks; a multiple of ``group * world_size * passes``.
        passes: batches that this rank accumulates in one optimiser step.
        seed: the run's seed.
        rank: this process, in ``[0, world_size)``.
        world_size: the number of processes.
        balanced: draw all classes equally often.

    Attributes:
        count: optimiser steps of an epoch, ceil(N / A), or one less where the last is joined to the one before.

    Raises:
        ValueError: an argument out of range, or groups of a set without two images of a class.

    Source:
        BAKE (arXiv 2104.13298) as published, yxgeee/BAKE: its 128 images per step are 32 anchors, each with 3 images
        of its class, and an epoch of 50,000 images has 1,563 such steps, four times those of cross-entropy.

    Example:
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
        >>> steps = Steps(labels, group=2, batch_size=8, passes=1, seed=0)
        >>> steps.count, [labels[one.index].tolist() for one in steps.passes(0)]
        (2, [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1]])
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        group: int = 1,
        batch_size: int,
        passes: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        balanced: bool = False,
    ):
        _check(group, batch_size, passes, rank, world_size)
        self.images, self.device, self.seed = len(labels), labels.device, seed
        self.anchors, self.shares = batch_size // group, world_size * passes
        self.count = steps_per_epoch(self.images, batch_size, group=group, shares=self.shares)
        self._mine = slice(rank * passes, (rank + 1) * passes)
        self._balanced = labels.cpu() if balanced else None
        self._sampler = GroupSampler(labels.cpu(), group - 1, seed, device=self.device) if group > 1 else None

    def passes(self, epoch: int, start: int = 0) -> list[Pass]:
        """Return this rank's passes of all steps of an epoch, one after another, from step ``start`` on."""
        groups = self._groups(epoch)
        return [made for step in range(start, self.count) for made in self._share(epoch, groups, step)]

    def before(self, epoch: int, start: int = 0) -> Pass | None:
        """Return this rank's last pass before a step, in this epoch or the one before; None before the very first."""
        if not start:
            epoch, start = epoch - 1, self.count
        return None if epoch < 0 else self._share(epoch, self._groups(epoch), start - 1)[-1]

    def _groups(self, epoch: int) -> Tensor:
        """Return the draws of an epoch's groups ``(N, group)``, each led by its anchor."""
        source = generator(hash_key(self.seed, epoch, _PERMUTATION))
        if self._balanced is None:
            order = torch.randperm(self.images, generator=source).to(self.device)
        else:
            order = balanced_order(self._balanced, source).to(self.device)
        if self._sampler is None:
            return order[:, None]
        anchors = order % self.images
        return torch.cat((order[:, None], self._sampler(epoch, anchors) + (order - anchors)[:, None]), dim=1)

    def _share(self, epoch: int, groups: Tensor, step: int) -> list[Pass]:
        """Return this rank's passes of a step."""
        end = (step + 1) * self.anchors if step < self.count - 1 else None
        whole = groups[step * self.anchors : end]
        missing = -len(whole) % self.shares
        if missing:
            whole = torch.cat((whole, groups.repeat(-(-missing // len(groups)), 1)[:missing]))
        drawn = [share.flatten() for share in whole.chunk(self.shares)[self._mine]]
        return [Pass(epoch, one if self._balanced is None else one % self.images, one) for one in drawn]


def balanced_order(labels: Tensor, source: torch.Generator) -> Tensor:
    """Draw N images, as many of each of the C classes that occur, to within one.

    Each run of C draws has every class once, in random order. The images of a class are drawn one after another in
    random order, and again in that order if there are too few.

    Args:
        labels: int64 ``(N,)`` on the CPU.

    Returns:
        int64 ``(N,)``: positions, plus N for an image drawn before, 2N for one drawn twice before, and so on.

    Example:
        >>> labels = torch.tensor([0, 1, 1, 1, 1, 1])
        >>> drawn = balanced_order(labels, torch.Generator().manual_seed(0))
        >>> labels[drawn % 6].bincount().tolist(), sorted(drawn[labels[drawn % 6] == 0].tolist())
        ([3, 3], [0, 6, 12])
    """
    images = len(labels)
    shuffled = torch.randperm(images, generator=source)
    _, classes, counts = labels[shuffled].unique(return_inverse=True, return_counts=True)
    by_class, first = shuffled[classes.argsort(stable=True)], counts.cumsum(0) - counts
    runs = -(-images // len(counts))
    drawn = torch.rand(runs, len(counts), generator=source).argsort(dim=1)  # the classes, in each run
    nth = torch.arange(runs)[:, None]  # a run has each class once
    order: Tensor = by_class[first[drawn] + nth % counts[drawn]] + images * (nth // counts[drawn])
    return order.flatten()[:images]


def steps_per_epoch(images: int, batch_size: int, *, group: int = 1, shares: int = 1) -> int:
    """Return the optimiser steps of an epoch: ceil(N / A), or one less where the last is joined to the one before.

    Args:
        batch_size: images of a step; A = ``batch_size / group`` of them lead a group.
        group: images of one class that stand together, the anchor counted.

    Example:
        >>> steps_per_epoch(65, 32), steps_per_epoch(66, 32), steps_per_epoch(65, 32, group=4)
        (2, 3, 9)
    """
    anchors = batch_size // group
    count = -(-images // anchors)
    rest = images - (count - 1) * anchors
    return count - (count > 1 and group == 1 and rest <= shares < anchors)


def _check(group: int, batch_size: int, passes: int, rank: int, world_size: int) -> None:
    if passes < 1 or world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"passes={passes}, rank={rank}, world_size={world_size}: no such share of a step")
    unit = group * world_size * passes
    if batch_size < 1 or batch_size % unit:
        factors = {"images of a group": group, "world_size": world_size, "passes": passes}
        shown = {name: factor for name, factor in factors.items() if name != "images of a group" or group > 1}
        below = max(batch_size, 0) // unit * unit
        raise ArgumentError(
            "batch_size",
            f"is {batch_size}, but must be a positive multiple of {' x '.join(shown)} = "
            f"{' x '.join(map(str, shown.values()))}: use {f'{below} or ' if below else ''}{below + unit}",
        )
