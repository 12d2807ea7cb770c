"""Geometry that several corruptions share: Gaussian blur, zoom, motion blur, and reading between the pixels."""

from math import ceil, pi

import torch
import torch.nn.functional as F
from torch import Tensor


def edge(index: Tensor, size: int) -> Tensor:
    """Continue an image by its border pixel: a a a | a b c | c c c."""
    return index.clamp(0, size - 1)


def mirror(index: Tensor, size: int) -> Tensor:
    """Continue an image by its mirror image, the border pixel twice: c b a | a b c | c b a.

    Example:
        >>> mirror(torch.tensor([-2, -1, 0, 2, 3, 5, 6]), 3).tolist()
        [1, 0, 0, 2, 2, 0, 0]
    """
    index = index.remainder(2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)


def reflect(index: Tensor, size: int) -> Tensor:
    """Continue an image by its mirror image, the border pixel once: c b | a b c | b a.

    Example:
        >>> reflect(torch.tensor([-2, -1, 0, 2, 3, 5]), 3).tolist()
        [2, 1, 0, 2, 1, 1]
    """
    index = index.remainder(2 * size - 2)
    return torch.where(index < size, index, 2 * size - 2 - index)


def gaussian_blur(x: Tensor, sigma: float, *, truncate: float = 4.0, mirrored: bool = False) -> Tensor:
    """Convolve rows and columns with exp(-i^2 / (2 sigma^2)), |i| <= floor(truncate * sigma + 1/2), normalised.

    Each of the two is one matrix product: the border's rule is in the matrix, so that a kernel may be longer than the
    image.

    Args:
        x: float64 ``(..., S, S)``.
        sigma: pixels, >= 0; 0 leaves x as it is.
        truncate: where the kernel ends, in sigmas.
        mirrored: continue the image by its mirror image, otherwise by its border pixels.

    Example:
        >>> x = torch.zeros(1, 5, dtype=torch.float64)
        >>> x[0, 2] = 1
        >>> gaussian_blur(x.T @ x, 0.5)[2].round(decimals=3)
        tensor([0.0000, 0.0840, 0.6190, 0.0840, 0.0000], dtype=torch.float64)
    """
    radius = int(truncate * sigma + 0.5)
    if not radius:
        return x
    size = x.shape[-1]
    i = torch.arange(-radius, radius + 1, device=x.device)
    weight = (-(i.double() ** 2) / (2 * sigma**2)).exp()
    position = torch.arange(size, device=x.device)[:, None] + i
    column = mirror(position, size) if mirrored else edge(position, size)
    matrix = torch.zeros(size, size, dtype=torch.float64, device=x.device)
    matrix.scatter_add_(1, column, (weight / weight.sum()).expand(size, -1))
    return matrix @ x @ matrix.T


def zoom(x: Tensor, factor: float) -> Tensor:
    """Enlarge the middle of an image by `factor` and keep the old size; bilinear, corners on corners.

    The middle is ceil(S / factor) pixels wide, and what is too much of the enlarged one is cut off.

    Args:
        x: float64 ``(N, C, S, S)``.
        factor: >= 1.

    Example:
        >>> zoom(torch.arange(3.0).expand(1, 1, 3, 3), 2.0)[0, 0, 0]
        tensor([0.0000, 0.3333, 0.6667])
    """
    size = x.shape[-1]
    middle = ceil(size / factor)
    large = round(middle * factor)
    start, cut = (size - middle) // 2, (large - size) // 2
    x = x[..., start : start + middle, start : start + middle]
    x = F.interpolate(x, size=(large, large), mode="bilinear", align_corners=True)
    return x[..., cut : cut + size, cut : cut + size]


def motion_blur(levels: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """sum_i w_i x[row + r_i, column + c_i], i = 0 ... 2 radius: half a Gaussian w along a line from the pixel on.

    w_i ~ exp(-i^2 / (2 sigma^2)), normalised; r_i and c_i are i sin and i cos of the angle, rounded (halves down);
    beyond the border is the border pixel. One-sided, as ImageMagick's ``MotionBlurImage`` is, which the published
    sets were made with: the image is shifted as well as blurred.

    Args:
        levels: float64 ``(N, C, S, S)``.
        radius: pixels; the kernel has 2 * ceil(radius) + 1 taps.
        sigma: pixels.
        degrees: each image's angle, ``(N,)``; 0 reads to the right, 90 downwards.

    Example:
        >>> x = torch.tensor([0, 0, 0, 8], dtype=torch.float64).expand(1, 1, 4, 4)
        >>> motion_blur(x, 1, 1.0, torch.zeros(1))[0, 0, 0].round(decimals=2)
        tensor([0.0000, 0.6200, 3.4100, 8.0000], dtype=torch.float64)
    """
    batch, channels, size, _ = levels.shape
    taps = torch.arange(2 * ceil(radius) + 1, device=levels.device, dtype=torch.float64)
    weight = (-(taps**2) / (2 * sigma**2)).exp()
    weight = weight / weight.sum()
    angle = degrees.double()[:, None] * (pi / 180)
    down, right = ((taps * part - 0.5).ceil().long()[..., None] for part in (angle.sin(), angle.cos()))
    line = torch.arange(size, device=levels.device)
    rows, columns = edge(line + down, size), edge(line + right, size)  # (N, taps, S)
    flat, total = levels.flatten(2), torch.zeros_like(levels)
    for tap, share in enumerate(weight.tolist()):
        at = (rows[:, tap, :, None] * size + columns[:, tap, None, :]).view(batch, 1, -1)
        total += share * flat.gather(2, at.expand(-1, channels, -1)).view_as(levels)
    return total


def sample(x: Tensor, rows: Tensor, columns: Tensor, *, mirrored: bool) -> Tensor:
    """Read each image at points between its pixels, bilinear.

    Args:
        x: float64 ``(N, C, S, S)``.
        rows: float64 ``(N, S, S)``, where each new pixel is read, in pixels from the top; anything.
        mirrored: continue the image by :func:`mirror`, otherwise by :func:`reflect`.
    """
    size, continued = x.shape[-1], mirror if mirrored else reflect
    top, left = rows.floor(), columns.floor()
    flat, total = x.flatten(2), torch.zeros_like(x)
    for down in (0, 1):
        row_weight = (rows - top - (1 - down)).abs()
        for right in (0, 1):
            weight = row_weight * (columns - left - (1 - right)).abs()
            at = continued((top + down).long(), size) * size + continued((left + right).long(), size)
            total += weight[:, None] * flat.gather(2, at.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return total
