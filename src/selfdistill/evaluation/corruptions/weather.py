"""Weather: snow, frost, fog and bright light.

Each function takes uint8 images ``(N, 3, S, S)`` and the random numbers that belong to each image, and returns the
corrupted images.
"""

import torch
from torch import Tensor

from selfdistill.evaluation.corruptions import resample
from selfdistill.evaluation.corruptions.pixels import Draws, rounded, to_pixels, to_unit

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_FROST = (0.80, 0.93, 1.0)  # its light is bluish


def snow(
    images: Tensor,
    draws: Draws,
    mean: float,
    sd: float,
    factor: float,
    threshold: float,
    radius: float,
    sigma: float,
    keep: float,
) -> Tensor:
    """keep x + (1 - keep) max(x, 1.5 grey(x) + 0.5) + flakes + flakes turned by 180 degrees.

    The flakes are normal noise, enlarged, 0 below the threshold, and blurred along a line between 45 degrees to the
    left and to the right of upwards.

    Args:
        mean: of the noise, white = 1.
        factor: by which the noise is enlarged, >= 1.
        threshold: flakes are the noise above it.
        radius: of their motion blur, pixels.
        sigma: of their motion blur, pixels.
        keep: share of the image that is not whitened, in [0, 1].
    """
    x, size = to_unit(images), images.shape[-1]
    noise = resample.zoom(mean + sd * draws.normal(0, 1, size, size), factor)
    flakes = to_pixels(torch.where(noise < threshold, 0, noise)).double()
    flakes = to_unit(rounded(resample.motion_blur(flakes, radius, sigma, 90 * draws.uniform(1) - 135)))
    grey = (x * x.new_tensor(_GREY)[:, None, None]).sum(dim=1, keepdim=True)
    white = keep * x + (1 - keep) * torch.maximum(x, 1.5 * grey + 0.5)
    return to_pixels(white + flakes + flakes.flip(-1, -2))


def frost(images: Tensor, draws: Draws, keep: float, amount: float) -> Tensor:
    """keep x + amount ice, with ice from :func:`ice`: **not the published frost**, which is photographs.

    The published scripts cut a random part out of five photographs of frosted glass (shrunk to a fifth for CIFAR-C),
    which are not shipped here. The weights are theirs, the ice is procedural: compare networks on it with each other,
    and with printed frost numbers only on the published arrays.
    """
    size = images.shape[-1]
    fields = [2 * draws.uniform(stream, _power(size), _power(size)) - 1 for stream in (0, 1)]
    layer = ice(*fields)[:, None, :size, :size] * images.new_tensor(_FROST, dtype=torch.float64)[:, None, None]
    return to_pixels(keep * to_unit(images) + amount * layer)


def fog(images: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """(x + amount f) m / (m + amount), with f a plasma fractal and m the image's largest value.

    Args:
        decay: how smooth it is; see :func:`plasma`.
    """
    x, size = to_unit(images), images.shape[-1]
    field = plasma(2 * draws.uniform(0, _power(size), _power(size)) - 1, decay)[:, None, :size, :size]
    most = x.amax(dim=(1, 2, 3), keepdim=True)
    return to_pixels((x + amount * field) * most / (most + amount))


def brightness(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """Hue and saturation stay, V becomes min(V + amount, 1): x V' / V, and V' where x is black. Nothing is drawn.

    V is the largest of a pixel's three channels; at constant hue and saturation each channel is in proportion to it.

    Args:
        amount: white = 1.
    """
    x = to_unit(images)
    value = x.amax(dim=1, keepdim=True)
    brighter = (value + amount).clamp(max=1)
    return to_pixels(torch.where(value > 0, x * (brighter / value.clamp(min=1 / 255)), brighter))


def plasma(noise: Tensor, decay: float) -> Tensor:
    """A plasma fractal by the diamond-square algorithm on a torus, scaled to [0, 1] image by image.

    From coarse to fine: the middle of each square is the mean of its four corners plus w^2 noise, then the middle of
    each side the mean of its four neighbours plus w^2 noise; w is 100 at first and is divided by `decay` a level.

    Args:
        noise: uniform in (-1, 1), float64 ``(N, M, M)``, M a power of two; each place's own, used once.
        decay: > 0; larger is smoother.

    Example:
        >>> plasma(torch.tensor([[[0.0, 0.5], [-0.5, 1.0]]]), 2.0)
        tensor([[[0., 1.],
                 [0., 1.]]])
    """
    field = torch.zeros_like(noise)
    step, width = noise.shape[-1], 100.0
    while step >= 2:
        half, grain = step // 2, width**2 * noise
        corners = field[:, ::step, ::step]
        pairs = corners + corners.roll(-1, dims=1)
        field[:, half::step, half::step] = (pairs + pairs.roll(-1, dims=2)) / 4 + grain[:, half::step, half::step]
        middles = field[:, half::step, half::step]
        above = middles + middles.roll(1, dims=1) + corners + corners.roll(-1, dims=2)
        beside = middles + middles.roll(1, dims=2) + corners + corners.roll(-1, dims=1)
        field[:, ::step, half::step] = above / 4 + grain[:, ::step, half::step]
        field[:, half::step, ::step] = beside / 4 + grain[:, half::step, ::step]
        step, width = half, width / decay
    field = field - field.amin(dim=(1, 2), keepdim=True)
    return field / field.amax(dim=(1, 2), keepdim=True)


def ice(film_noise: Tensor, crystal_noise: Tensor) -> Tensor:
    """Ice on a pane, white = 1: an uneven film with crystals, which are jagged lines of equal height.

    0.25 + 0.35 p + 0.4 (1 - |2 (3 q mod 1) - 1|)^3, with p and q plasma fractals, p smooth and q rough.

    Args:
        film_noise: uniform in (-1, 1), float64 ``(N, M, M)``, M a power of two.

    Returns:
        float64 ``(N, M, M)``, in [0.25, 1].
    """
    film, height = plasma(film_noise, 2.0), (3 * plasma(crystal_noise, 1.4)).remainder(1)
    return 0.25 + 0.35 * film + 0.4 * (1 - (2 * height - 1).abs()) ** 3


def _power(size: int) -> int:
    """The least power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()
