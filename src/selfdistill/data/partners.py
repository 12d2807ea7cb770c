"""Same-class company: for each image of a batch one partner of its class (CS-KD), or several mates (BAKE)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from selfdistill.data.randomness import draw, hash_key

PAIR_VIEW = -1
"""The view number of a partner, so that the same image as x or as a view is augmented differently."""

_MATES = 1 << 21  # streams of (seed, epoch), one for each mate: neither a partner's nor the permutation's


class _Classes:
    """The images sorted by class: each image's class is a stretch of them, in which it has a place."""

    def __init__(self, labels: Tensor, device: torch.device | str):
        counts = labels.bincount()
        if int(counts.max()) < 2:
            raise ValueError(
                f"the method pairs images of one class, but no class has two of the {len(labels)} training images: "
                "use more images a class, or a method without pairs"
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
        """Draw one of the class's other images for each key, ``(B, len(keys))``: see :class:`Mates`."""
        count, never = self.count[index], len(self.place)
        distinct = count > len(keys)
        taken = torch.where(count > 1, self.place[index], never)[:, None]  # the places that are passed over
        drawn = []
        for nth, key in enumerate(keys):
            place = draw(key, index, torch.where(distinct, count - 1 - nth, (count - 1).clamp(min=1)))
            for passed in taken.sort(dim=1).values.unbind(1):
                place = place + (place >= passed)
            taken = torch.cat((taken, torch.where(distinct, place, never)[:, None]), dim=1)
            drawn.append(self.by_class[self.first[index] + place])
        return torch.stack(drawn, dim=1)


class Partners:
    """Draw one partner for each anchor, uniform over its class, as a function of (seed, epoch, index) alone.

    Draws are independent of each other: that i is j's partner says nothing on i's own.

    Args:
        labels: int64 ``(N,)``.
        pair: ``"any"``: the anchor itself may be drawn; ``"other"``: it is not, unless it is alone in its class.
        seed: the run's seed.
        device: where indices are given and wanted.

    Raises:
        ValueError: no class has two images.

    Example:
        >>> partners = Partners(torch.tensor([0, 1, 0, 1]), "other", seed=0, device="cpu")
        >>> partners(0, torch.tensor([0, 1, 2, 3])).tolist()
        [2, 3, 0, 1]
    """

    def __init__(self, labels: Tensor, pair: Literal["any", "other"], seed: int, *, device: torch.device | str):
        self.classes, self.pair, self.seed = _Classes(labels, device), pair, seed

    def __call__(self, epoch: int, index: Tensor) -> Tensor:
        """Return the partners' positions ``(B,)`` of the anchors ``index`` ``(B,)``."""
        key = hash_key(self.seed, epoch, PAIR_VIEW)
        return self.classes.others(index, [key])[:, 0] if self.pair == "other" else self.classes.any(index, key)


class Mates:
    """Draw several other images of its class for each anchor, as a function of (seed, epoch, index, which) alone.

    They are drawn without replacement from a class that has so many others, and with replacement from a smaller one;
    the mates of an image that is alone in its class are that image.

    Args:
        labels: int64 ``(N,)``.
        number: M >= 1, the mates of each anchor.
        seed: the run's seed.
        device: where indices are given and wanted.

    Raises:
        ValueError: no class has two images.

    Source:
        BAKE (arXiv 2104.13298); the rule for small classes is that of the published code, yxgeee/BAKE.

    Example:
        >>> mates = Mates(torch.tensor([0, 1, 0, 0, 2, 1]), 2, seed=0, device="cpu")
        >>> mates(0, torch.tensor([2, 5, 4])).tolist()
        [[0, 3], [1, 1], [4, 4]]
    """

    def __init__(self, labels: Tensor, number: int, seed: int, *, device: torch.device | str):
        self.classes, self.number, self.seed = _Classes(labels, device), number, seed

    def __call__(self, epoch: int, index: Tensor) -> Tensor:
        """Return the mates' positions ``(B, M)`` of the anchors ``index`` ``(B,)``."""
        return self.classes.others(index, [hash_key(self.seed, epoch, _MATES + nth) for nth in range(self.number)])
