"""Same-class sampling: for each image of a batch one partner of its class (CS-KD), or a group of them (BAKE)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from selfdistill.data.randomness import draw, hash_key

PAIR_VIEW = -1
"""The view number of a partner, so that the same image as x or as a view is augmented differently."""

_GROUP = 1 << 21  # streams of (seed, epoch), one per place in a group: neither a pair's nor the permutation's


class _ClassIndex:
    """The images sorted by class: each class is a range of them, in which each of its images has a place."""

    def __init__(self, labels: Tensor, device: torch.device | str):
        counts = labels.bincount()
        if int(counts.max()) < 2:
            raise ValueError(
                f"the method pairs images of one class, but no class has two of the {len(labels)} training images: "
                "use more images per class, or a method without pairs"
            )
        by_class = labels.argsort(stable=True)
        first = (counts.cumsum(0) - counts)[labels]
        place = torch.empty_like(by_class)
        place[by_class] = torch.arange(len(labels))
        self.by_class, self.first, self.place, self.count = (
            part.to(device) for part in (by_class, first, place - first, counts[labels])
        )

    def any(self, index: Tensor, key: int) -> Tensor:
        """Draw one image ``(B,)`` of each anchor's class."""
        return self.by_class[self.first[index] + draw(key, index, self.count[index])]

    def others(self, index: Tensor, keys: Sequence[int]) -> Tensor:
        """Draw one of the class's other images for each key, ``(B, len(keys))``: see :class:`GroupSampler`."""
        count, nowhere = self.count[index], len(self.place)
        distinct = count > len(keys)
        taken = torch.where(count > 1, self.place[index], nowhere)[:, None]  # the places to skip
        drawn = []
        for nth, key in enumerate(keys):
            place = draw(key, index, torch.where(distinct, count - 1 - nth, (count - 1).clamp(min=1)))
            for skipped in taken.sort(dim=1).values.unbind(1):
                place = place + (place >= skipped)
            taken = torch.cat((taken, torch.where(distinct, place, nowhere)[:, None]), dim=1)
            drawn.append(self.by_class[self.first[index] + place])
        return torch.stack(drawn, dim=1)


class PairSampler:
    """Draw one partner for each anchor, uniform over its class, as a function of (seed, epoch, index) alone.

    Draws are independent of each other: if i is j's partner, any image can be i's.

    Args:
        labels: int64 ``(N,)``.
        pair: ``"any"``: the anchor itself may be drawn; ``"other"``: it is not, unless it is alone in its class.
        seed: the run's seed.
        device: where the indices are and the result is wanted.

    Example:
        >>> partners = PairSampler(torch.tensor([0, 1, 0, 1]), "other", seed=0, device="cpu")
        >>> partners(0, torch.tensor([0, 1, 2, 3])).tolist()
        [2, 3, 0, 1]
    """

    def __init__(self, labels: Tensor, pair: Literal["any", "other"], seed: int, *, device: torch.device | str):
        self.classes, self.pair, self.seed = _ClassIndex(labels, device), pair, seed

    def __call__(self, epoch: int, index: Tensor) -> Tensor:
        """Return the partners' positions ``(B,)`` of the anchors ``index`` ``(B,)``."""
        key = hash_key(self.seed, epoch, PAIR_VIEW)
        return self.classes.others(index, [key])[:, 0] if self.pair == "other" else self.classes.any(index, key)


class GroupSampler:
    """Draw several other images of its class for each anchor, as a function of (seed, epoch, index, which) alone.

    They are drawn without replacement from a class that has so many others, and with replacement from a smaller one;
    an image that is alone in its class is drawn itself.

    Args:
        labels: int64 ``(N,)``.
        number: M >= 1, images drawn for each anchor.
        seed: the run's seed.
        device: where the indices are and the result is wanted.

    Source:
        BAKE (arXiv 2104.13298); the rule for small classes is that of the published code, yxgeee/BAKE.

    Example:
        >>> sampler = GroupSampler(torch.tensor([0, 1, 0, 0, 2, 1]), 2, seed=0, device="cpu")
        >>> sampler(0, torch.tensor([2, 5, 4])).tolist()
        [[0, 3], [1, 1], [4, 4]]
    """

    def __init__(self, labels: Tensor, number: int, seed: int, *, device: torch.device | str):
        self.classes, self.number, self.seed = _ClassIndex(labels, device), number, seed

    def __call__(self, epoch: int, index: Tensor) -> Tensor:
        """Return the positions ``(B, M)`` drawn for the anchors ``index`` ``(B,)``."""
        return self.classes.others(index, [hash_key(self.seed, epoch, _GROUP + nth) for nth in range(self.number)])
