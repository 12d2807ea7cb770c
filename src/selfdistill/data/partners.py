"""Same-class partners: for each image of a batch another one of its class (CS-KD)."""

from typing import Literal

import torch
from torch import Tensor

from selfdistill.data.randomness import draw, hash_key

PAIR_VIEW = -1
"""The view number of a partner, so that the same image as x or as a view is augmented differently."""


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
        self.other, self.seed = pair == "other", seed
        self.by_class, self.first, self.place, self.count = (
            part.to(device) for part in (by_class, first, place - first, counts[labels])
        )

    def __call__(self, epoch: int, index: Tensor) -> Tensor:
        """Return the partners' positions ``(B,)`` of the anchors ``index`` ``(B,)``."""
        count, place = self.count[index], self.place[index]
        key = hash_key(self.seed, epoch, PAIR_VIEW)
        if self.other:
            drawn = draw(key, index, (count - 1).clamp(min=1))
            drawn = drawn + ((drawn >= place) & (count > 1))  # skip the anchor's own place
        else:
            drawn = draw(key, index, count)
        return self.by_class[self.first[index] + drawn]
