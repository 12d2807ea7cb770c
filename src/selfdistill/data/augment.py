"""Augmentation of images that live on the device: crop, flip and normalisation of a whole batch at once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfdistill.data.randomness import draw, hash_key

AUGMENTS = ("none", "crop", "crop_flip", "resized_crop_flip")
"""No augmentation; a shifted crop; the same and a mirror image; a random part resized, and a mirror image."""

Request = list[tuple[int, Tensor, int]]
"""
What one batch is made of, part after part: (epoch, index (B,), view). An index modulo the number of images is an
image's position; more than that, it is drawn again in the epoch, and augmented otherwise.
"""

_TOP, _LEFT, _FLIP, _WHICH = range(4)


def shift_and_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, pad: int) -> Tensor:
    """Pad with zeros, cut each image's own window of the old size, and mirror it left to right where asked.

    The same as torchvision's ``pad``, ``crop`` and ``hflip`` image by image, in one gather.

    Args:
        images: uint8 ``(B, C, H, W)``.
        top: int64 ``(B,)`` in ``[0, 2 * pad]``, the window's first row in the padded image.
        left: int64 ``(B,)`` in ``[0, 2 * pad]``, its first column.
        flip: bool ``(B,)``; the window is mirrored after it is cut.
        pad: pixels added on each side, before normalisation (so that the border is black).

    Returns:
        uint8 ``(B, C, H, W)``.

    Example:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
        >>> one = torch.tensor([1])
        >>> shift_and_flip(image, top=one * 2, left=one, flip=one == 1, pad=1).tolist()
        [[[[4, 3], [0, 0]]]]
    """
    batch, channels, height, width = images.shape
    rows = top[:, None] + torch.arange(height, device=images.device) - pad  # (B, H) in the unpadded image
    steps = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - steps, steps) - pad  # (B, W)
    row, column = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    inside = (rows == row)[:, :, None] & (columns == column)[:, None, :]
    at = (row[:, :, None] * width + column[:, None, :]).reshape(batch, 1, -1).expand(-1, channels, -1)
    return images.reshape(batch, channels, -1).gather(2, at).reshape(images.shape) * inside[:, None]


@dataclass(frozen=True)
class Policy:
    """What is done to an image after it is cropped and mirrored, by transforms v2.

    Args:
        auto: ``"trivial"`` for TrivialAugment, ``"rand"`` for RandAugment (two operations of strength 9), ``"none"``.
        erasing: probability that a rectangle is blackened.

    Source:
        Müller and Hutter (2021); Cubuk et al. (2020); Zhong et al. (2020); each as torchvision has it.
    """

    auto: str = "none"
    erasing: float = 0.0

    @property
    def changes_nothing(self) -> bool:
        """Whether images are left as they are."""
        return self == Policy()

    def of_pictures(self) -> list[Any]:
        """Return the transforms of a PIL image or of uint8 ``(3, S, S)``."""
        from torchvision.transforms import v2

        return {"none": [], "trivial": [v2.TrivialAugmentWide()], "rand": [v2.RandAugment()]}[self.auto]

    def apply(self, images: Tensor, index: Tensor, seed: int, epoch: int, view: int) -> Tensor:
        """Change uint8 images ``(B, C, S, S)``, each as (seed, epoch, index, view) says."""
        if self.changes_nothing:
            return images
        transforms, changed = [*self.of_pictures(), *self.of_pixels()], []
        for at, image in zip(index.tolist(), images, strict=True):
            with seeded(seed, epoch, at, view):
                for transform in transforms:
                    image = transform(image)
            changed.append(image)
        return torch.stack(changed)

    def of_pixels(self) -> list[Any]:
        """Return the transforms of uint8 ``(3, S, S)`` that follow."""
        from torchvision.transforms import v2

        return [v2.RandomErasing(self.erasing)] if self.erasing else []


@dataclass(frozen=True)
class Crop:
    """A shifted crop and, with ``flip``, a mirror image, as a function of (seed, epoch, index, view) alone.

    Torchvision's ``RandomCrop(size, padding=pad)`` and ``RandomHorizontalFlip(0.5)`` in distribution.

    Args:
        pad: pixels of zeros on each side; offsets are uniform in ``[0, 2 * pad]``. 0 leaves the image in place.
        flip: mirror half of the images.
        seed: the run's seed.

    Example:
        >>> images = torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4)
        >>> crop = Crop(pad=1, flip=True, seed=0)
        >>> index = torch.tensor([5, 9])
        >>> both = crop(images, index, epoch=3, view=0)
        >>> bool((crop(images[1:], index[1:], epoch=3, view=0) == both[1:]).all())
        True
    """

    pad: int
    flip: bool
    seed: int

    def __call__(self, images: Tensor, index: Tensor, epoch: int, view: int) -> Tensor:
        """Augment uint8 ``(B, C, H, W)``, whose positions in the training set are ``index`` ``(B,)``."""
        if self.leaves_as_it_is:
            return images
        return shift_and_flip(images, *self.windows(index, epoch, view), self.pad)

    @property
    def leaves_as_it_is(self) -> bool:
        """Whether nothing is done to the images."""
        return not self.pad and not self.flip

    def windows(self, index: Tensor, epoch: int, view: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw top, left and flip, ``(B,)`` each, of the images at ``index``."""
        top, left, flip = (
            draw(hash_key(self.seed, epoch, view, stream), index, below)
            for stream, below in ((_TOP, 2 * self.pad + 1), (_LEFT, 2 * self.pad + 1), (_FLIP, 2))
        )
        return top, left, (flip == 1) & self.flip


NO_POLICY = Policy()


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed torch's generator on the CPU by some numbers, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(hash_key(*parts) >> 1)
        yield


class MemoryLoader:
    """Augmented batches of images that are in memory, on the device where they are.

    An epoch's windows are drawn for all images at once: drawn for each batch they would be half of its operations.

    Args:
        images: uint8 ``(N, C, H, W)``.
        crop: how they are augmented.
        policy: what follows; drawn image by image from torch's generator, seeded by (seed, epoch, index, view).
        repeats: an epoch may draw an image again: windows are drawn for each batch.
    """

    def __init__(self, images: Tensor, crop: Crop, policy: Policy = NO_POLICY, *, repeats: bool = False):
        self.images, self.crop, self.repeats = images, crop, repeats
        self.policy = policy
        self._drawn: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def batches(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield uint8 ``(sum of B, C, H, W)`` for each request."""
        for request in requests:
            parts = [self._part(*part) for part in request]
            yield torch.cat(parts) if len(parts) > 1 else parts[0]

    def _part(self, epoch: int, index: Tensor, view: int) -> Tensor:
        return self.policy.apply(self._cropped(epoch, index, view), index, self.crop.seed, epoch, view)

    def _cropped(self, epoch: int, index: Tensor, view: int) -> Tensor:
        images = self.images[index % len(self.images) if self.repeats else index]
        if self.crop.leaves_as_it_is:
            return images
        if self.repeats:
            return self.crop(images, index, epoch, view)
        if (epoch, view) not in self._drawn:
            everyone = torch.arange(len(self.images), device=self.images.device)
            of_late = {key: drawn for key, drawn in self._drawn.items() if key[0] >= epoch - 1}  # DLB looks back
            self._drawn = of_late | {(epoch, view): self.crop.windows(everyone, epoch, view)}
        top, left, flip = (drawn[index] for drawn in self._drawn[epoch, view])
        return shift_and_flip(images, top, left, flip, self.crop.pad)


class FeatureLoader:
    """Batches of features in the place of images: a frozen network gave them once, of a few augmented views.

    Which of an image's views is taken is a function of (seed, epoch, index, view) alone.

    Args:
        features: ``(V, N, ...)``, of each of N images V augmented views.
        seed: the run's seed.

    Example:
        >>> loader = FeatureLoader(torch.arange(6.0).view(2, 3, 1), seed=0)
        >>> (batch,) = loader.batches([[(0, torch.tensor([2, 0]), 0)]])
        >>> (batch.flatten() % 3).tolist()
        [2.0, 0.0]
    """

    def __init__(self, features: Tensor, seed: int):
        self.features, self.seed = features, seed

    def batches(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield ``(sum of B, ...)`` for each request."""
        for request in requests:
            yield torch.cat([self._part(*part) for part in request])

    def _part(self, epoch: int, index: Tensor, view: int) -> Tensor:
        which = draw(hash_key(self.seed, epoch, view, _WHICH), index, len(self.features))
        return self.features[which, index % self.features.shape[1]]


class Normalize:
    r"""Uint8 pixels to float32: :math:`x = (\text{pixel} / 255 - \mu) / \sigma`, as one multiply-add.

    Args:
        mean: a channel's mean, in [0, 1].
        std: a channel's standard deviation, in (0, 1].
        device: where the images are.
        channels_last: return the images in that memory format.

    Example:
        >>> pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
        >>> Normalize((0.2,), (0.1,), device="cpu")(pixels).flatten().round(decimals=3).tolist()
        [-2.0, 0.0, 8.0]
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        device: torch.device | str,
        channels_last: bool = False,
    ):
        centre, spread = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (mean, std))
        self.scale = (1 / (255 * spread)).float().to(device)
        self.shift = (-centre / spread).float().to(device)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise uint8 ``(B, C, H, W)`` to float32."""
        pixels = images.to(torch.float32, memory_format=self.layout)
        return torch.addcmul(self.shift, pixels, self.scale)
