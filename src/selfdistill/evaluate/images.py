"""The images of one measurement: a split, how a network is fed with it, and any number of passes over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selfdistill.data import ImageData, Split, eval_batches
from selfdistill.data.augment import Normalize
from selfdistill.data.loading import pixel_batches

Tick = Callable[[int], None]
"""Called with the number of images just done; an image counts once for each forward pass."""

_CACHE_LIMIT = 2 * 2**30  # bytes


def no_progress(*_: object) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Images:
    """Labelled images, the same in each pass and always in the same order.

    Attributes:
        split: the images.
        data: the set whose mean, standard deviation and size the network was trained with.
        device: where batches go.
        batch_size: images per batch, >= 1.
        workers: processes that decode files.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=5)
        >>> images = Images(data.test, data, device="cpu", batch_size=200)
        >>> [len(y) for _, y in images.batches()], len(images.spaced(100)), len(images.part(350))
        ([200, 159], 100, 9)
    """

    split: Split
    data: ImageData
    device: torch.device | str
    batch_size: int = 512
    workers: int = 0

    def __len__(self) -> int:
        return len(self.split)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x, float32 ``(B, 3, S, S)`` and normalised, and y ``(B,)``."""
        return eval_batches(self.split, self.data, batch_size=self.batch_size, device=self.device, workers=self.workers)

    def pixels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same before normalisation: uint8 ``(B, 3, S, S)``, and y ``(B,)``."""
        return pixel_batches(
            self.split, self.data, batch_size=self.batch_size, device=self.device, workers=self.workers
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Uint8 ``(B, 3, S, S)`` to what the network takes."""
        return Normalize(self.data.mean, self.data.std, device=self.device)(pixels)

    def part(self, start: int, stop: int | None = None) -> Images:
        """The images from position ``start`` up to ``stop``, in their order."""
        return replace(self, split=self.split.select(torch.arange(len(self))[start:stop]))

    def spaced(self, most: int) -> Images:
        """At most ``most`` images, evenly spaced."""
        return replace(self, split=self.split.spaced(most))

    def cached(self) -> Images:
        """The same with the files decoded once and cached in memory, if that takes at most 2 GiB."""
        size = self.data.image_size
        if self.split.images is not None or len(self) * 3 * size * size > _CACHE_LIMIT:
            return self
        pixels = torch.cat([part.cpu() for part, _ in self.pixels()])
        return replace(self, split=Split(self.split.labels, images=pixels))
