"""Blur: out of focus, through frosted glass, by a moving camera, by a zooming one.

Each function takes uint8 images ``(N, 3, S, S)`` and the random numbers that belong to each image, and returns the
corrupted images.
"""

from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill.evaluation.corruptions import resample
from selfdistill.evaluation.corruptions.pixels import Draws, rounded, to_pixels, to_unit


def defocus_blur(images: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """Average over a disk whose rim is softened: a point out of focus. Nothing is drawn.

    Args:
        radius: of the disk, pixels.
        sigma: of the rim's softening, pixels.
    """
    kernel = disk(radius, sigma).to(images.device)
    reach, size = kernel.shape[0] // 2, images.shape[-1]
    x = F.pad(to_unit(images), [reach] * 4, mode="reflect")
    full = list(x.shape[-2:])
    # A product of spectra: the disk is not a product of a row and a column, and has up to 400 pixels. It is symmetric.
    blurred = torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(kernel, s=full), s=full)
    return to_pixels(blurred[..., 2 * reach : 2 * reach + size, 2 * reach : 2 * reach + size])


def glass_blur(images: Tensor, draws: Draws, sigma: float, delta: int, times: int) -> Tensor:
    """Gaussian blur, pixels moved about, Gaussian blur: as through frosted glass.

    Args:
        sigma: of both blurs, pixels.
        delta: how far a pixel may come from, pixels; see :func:`displace`.
        times: how often the pixels are moved about.
    """
    size = images.shape[-1]
    x = to_pixels(resample.gaussian_blur(to_unit(images), sigma))
    for time in range(times):
        down, right = draws.integers(time, -delta, delta, 2, size, size).unbind(1)
        x = displace(x, down, right, delta)
    return to_pixels(resample.gaussian_blur(to_unit(x), sigma))


def motion_blur(images: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """Half a Gaussian along a line at a random angle within 45 degrees of the horizontal: a moving camera.

    Args:
        radius: half the length of the line, pixels.
        sigma: of the Gaussian, pixels.
    """
    return rounded(resample.motion_blur(images.double(), radius, sigma, 90 * draws.uniform(0) - 45))


def zoom_blur(images: Tensor, draws: Draws, stop: float, step: float) -> Tensor:
    """Mean of the image and of itself enlarged by 1, 1 + step, 1 + 2 step ... below stop. Nothing is drawn.

    Args:
        stop: end of the factors. As floating point has it the end itself may be among them, as it was when the
            published sets were made.
    """
    x = to_unit(images)
    factors = np.arange(1, stop, step).tolist()
    total = x.clone()
    for factor in factors:
        total += resample.zoom(x, factor)
    return to_pixels(total / (len(factors) + 1))


def disk(radius: float, sigma: float) -> Tensor:
    """Ones where i^2 + j^2 <= radius^2, their sum 1, softened by a Gaussian of 3 x 3 taps (5 x 5 beyond radius 8).

    Args:
        radius: pixels, > 0.
        sigma: pixels, > 0.

    Returns:
        float64 ``(K, K)``, K = 17, or 2 radius + 1 beyond radius 8; its sum is 1, or nearly so where the disk fills it.

    Example:
        >>> disk(1, 0.2)[7:10, 7:10].round(decimals=3)
        tensor([[0.0000, 0.2000, 0.0000],
                [0.2000, 0.2000, 0.2000],
                [0.0000, 0.2000, 0.0000]], dtype=torch.float64)
    """
    reach, soft = (8, 1) if radius <= 8 else (ceil(radius), 2)
    line = torch.arange(-reach, reach + 1)
    shape = (line[:, None] ** 2 + line**2 <= radius**2).double()
    taps = torch.arange(-soft, soft + 1, dtype=torch.float64)
    weight = (-(taps**2) / (2 * sigma**2)).exp()
    weight = weight / weight.sum()
    padded = F.pad((shape / shape.sum())[None, None], [soft] * 4, mode="reflect")
    return F.conv2d(padded, (weight[:, None] * weight)[None, None])[0, 0]


def displace(images: Tensor, down: Tensor, right: Tensor, delta: int) -> Tensor:
    """From the last pixel to the first, each takes the value that the pixel at its offset has by then.

    The published script means to swap the two pixels. Its assignment reads views of the array, so that the first half
    of the swap is all that happens, and the published sets were made so. A chain of such takings is followed by
    doubling: every pixel's source points to a source in turn, until none moves any more.

    Args:
        images: uint8 ``(N, C, S, S)``.
        down: int64 ``(N, S, S)`` in [-delta, delta), rows to the pixel that is taken from.
        delta: pixels; the first delta + 1 rows and columns and the last delta - 1 take from nowhere.

    Example:
        >>> images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
        >>> up = torch.full((1, 4, 4), -1)
        >>> displace(images, up, torch.zeros_like(up), 1)[0, 0].tolist()
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 6, 7], [12, 13, 10, 11]]
    """
    size = images.shape[-1]
    count = size * size
    here = torch.arange(count, device=images.device)
    line = torch.arange(size, device=images.device)
    inner = (line > delta) & (line <= size - delta)
    takes = (inner[:, None] & inner).flatten()
    source = torch.where(takes, here + (down * size + right).flatten(1), here)
    # Place p as it was before is number count + p, and the end of a chain; as it is when it has taken, number p.
    ready = takes & takes[source] & (source > here)
    pointer = torch.cat([torch.where(ready, source, source + count), (here + count).expand_as(source)], dim=1)
    while bool((pointer < count).any()):
        pointer = pointer.gather(1, pointer)
    at = (pointer[:, :count] - count)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, at).view_as(images)
