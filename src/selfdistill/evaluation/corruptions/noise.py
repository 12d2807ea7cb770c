"""Noise: Gaussian, shot (Poisson) and impulse (salt and pepper), each value of each channel by itself.

Each function takes uint8 images ``(N, 3, S, S)`` and the random numbers that belong to each image, and returns the
corrupted images.
"""

import torch
from torch import Tensor

from selfdistill.evaluation.corruptions.pixels import Draws, to_pixels, to_unit


def gaussian_noise(images: Tensor, draws: Draws, sigma: float) -> Tensor:
    """x + sigma * n, with n normal: sensor noise in dim light.

    Args:
        sigma: standard deviation, white = 1.
    """
    return to_pixels(to_unit(images) + sigma * draws.normal(0, *images.shape[1:]))


def shot_noise(images: Tensor, draws: Draws, photons: float) -> Tensor:
    """k / c with k Poisson of mean c * x: the light comes in photons.

    Args:
        photons: c, the mean count of a white pixel; fewer is noisier.
    """
    return to_pixels(poisson(images, photons, draws.uniform(0, *images.shape[1:])) / photons)


def impulse_noise(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """A value becomes 0 or 1, either with probability amount / 2, and stays otherwise: bit errors.

    Args:
        amount: share of the values that are replaced, in [0, 1].
    """
    u = draws.uniform(0, *images.shape[1:])
    return torch.where(u < amount / 2, 0, torch.where(u < amount, 255, images)).to(torch.uint8)


def poisson(images: Tensor, photons: float, uniform: Tensor) -> Tensor:
    """Poisson counts of mean photons * pixel / 255: the least k with F(k) > u, F the distribution function.

    There are 256 pixel values, hence 256 distribution functions: they are laid end to end, each raised by its pixel
    value, and one search finds every count.

    Args:
        images: uint8, any shape.
        photons: mean count of a white pixel, > 0.
        uniform: u, in (0, 1), the shape of the images.

    Returns:
        float64 counts, the shape of the images.

    Example:
        >>> white = torch.full((3,), 255, dtype=torch.uint8)
        >>> poisson(white, 1.0, torch.tensor([0.3, 0.4, 0.8], dtype=torch.float64))
        tensor([0., 1., 2.], dtype=torch.float64)
    """
    most = int(photons + 12 * photons**0.5 + 30)  # beyond: less than 2**-53
    k = torch.arange(most, dtype=torch.float64, device=images.device)
    mean = photons / 255 * torch.arange(256, dtype=torch.float64, device=images.device)[:, None]
    chance = (torch.xlogy(k, mean) - mean - torch.lgamma(k + 1)).exp()
    distribution = chance.cumsum(dim=1).clamp(max=1)
    ends = torch.arange(256, device=images.device)[:, None]
    found = torch.searchsorted((distribution + ends).flatten(), uniform + images, right=True)
    return (found - most * images.long()).double()
