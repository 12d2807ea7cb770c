"""What every corruption starts from: pixels as numbers, and the random numbers of an image.

These are a function of the keys and of the image's own pixels, of nothing else in the batch.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from selfdistill.data.randomness import draw, hash_key

_HIGH, _LOW = range(2)
_SLACK = 1e-6  # a level that is whole but for rounding stays itself: 99.9999999 is 100


def to_unit(images: Tensor) -> Tensor:
    """Pixels 0 to 255 as float64 in [0, 1], the unit of the published constants.

    Example:
        >>> to_unit(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.], dtype=torch.float64)
    """
    return images.double() / 255


def to_pixels(x: Tensor) -> Tensor:
    """floor(255 * min(max(x, 0), 1)), as the published scripts do it: they cut the fraction off, they do not round.

    Example:
        >>> to_pixels(torch.tensor([-1.0, 0.5, 100 / 255, 2.0], dtype=torch.float64))
        tensor([  0, 127, 100, 255], dtype=torch.uint8)
    """
    return (x.clamp(0, 1) * 255 + _SLACK).floor().to(torch.uint8)


def rounded(levels: Tensor) -> Tensor:
    """Levels in [0, 255] to the nearest pixel value, halves upwards: what image libraries do between their steps.

    Example:
        >>> rounded(torch.tensor([0.5, 1.4], dtype=torch.float64))
        tensor([1, 1], dtype=torch.uint8)
    """
    return (levels + (0.5 + _SLACK)).floor().to(torch.uint8)


def mean_distance(clean: Tensor, corrupted: Tensor) -> float:
    """Mean over images, channels and pixels of |corrupted - clean|, in levels: 0 to 255.

    Args:
        clean: uint8, any shape.
        corrupted: uint8, the same shape.

    Example:
        >>> mean_distance(torch.tensor([0, 10], dtype=torch.uint8), torch.tensor([1, 7], dtype=torch.uint8))
        2.0
    """
    if clean.shape != corrupted.shape:
        raise ValueError(f"corrupted: shape {tuple(corrupted.shape)}, but the clean images are {tuple(clean.shape)}")
    return float((corrupted.short() - clean.short()).abs().double().mean())


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of images.

    Attributes:
        key: from ``hash_key(seed, corruption, severity)``.
        images: one 64-bit number per image, int64 ``(N,)``; see :func:`fingerprint`.

    Example:
        >>> draws = Draws(hash_key(0), torch.tensor([7, 8]))
        >>> draws.uniform(0, 3).shape
        torch.Size([2, 3])
        >>> bool((Draws(hash_key(0), torch.tensor([8])).uniform(0, 3) == draws.uniform(0, 3)[1]).all())
        True
    """

    key: int
    images: Tensor

    def uniform(self, stream: int, *shape: int) -> Tensor:
        """Uniform in (0, 1), float64 ``(N, *shape)``, on a grid of 2**-31; another stream is independent."""
        counter = self.images[:, None] + torch.arange(prod(shape), device=self.images.device)
        return ((draw(hash_key(self.key, stream), counter, 2**31).double() + 0.5) / 2**31).view(-1, *shape)

    def normal(self, stream: int, *shape: int) -> Tensor:
        """Normal with mean 0 and sd 1, float64 ``(N, *shape)``: the inverse distribution function of a uniform."""
        normal: Tensor = torch.special.ndtri(self.uniform(stream, *shape))
        return normal

    def integers(self, stream: int, low: int, high: int, *shape: int) -> Tensor:
        """Uniform integers in ``[low, high)``, int64 ``(N, *shape)``."""
        counter = self.images[:, None] + torch.arange(prod(shape), device=self.images.device)
        return (low + draw(hash_key(self.key, stream), counter, high - low)).view(-1, *shape)


def fingerprint(images: Tensor) -> Tensor:
    """Hash each image: sum over its values of value times that position's own random number, modulo 2**64.

    Integers alone, so that it is the same on every device and in every batch. Two images that differ have different
    hashes up to a chance of about 2**-54; equal images have equal ones, and so meet the same noise.

    Args:
        images: uint8 ``(N, C, H, W)``.

    Example:
        >>> images = torch.tensor([[1, 2], [2, 1], [1, 2]], dtype=torch.uint8).view(3, 1, 1, 2)
        >>> a, b, c = fingerprint(images).tolist()
        >>> a == c, a == b
        (True, False)
    """
    position = torch.arange(images[0].numel(), device=images.device)
    factor = (draw(hash_key(_HIGH), position, 2**31) << 31) + draw(hash_key(_LOW), position, 2**31)
    return (images.flatten(1).long() * factor).sum(dim=1)
