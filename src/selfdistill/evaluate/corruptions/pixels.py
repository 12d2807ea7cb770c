"""Between uint8 pixels and the numbers that the corruptions work on."""

import torch
from torch import Tensor

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

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> mean_distance(torch.tensor([0, 10], dtype=torch.uint8), torch.tensor([1, 7], dtype=torch.uint8))
        2.0
    """
    if clean.shape != corrupted.shape:
        raise ValueError(f"corrupted: shape {tuple(corrupted.shape)}, but the clean images are {tuple(clean.shape)}")
    return float((corrupted.short() - clean.short()).abs().double().mean())
