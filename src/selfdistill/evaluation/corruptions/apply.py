"""`corrupt`: one of the fifteen corruptions at one severity, on a batch of images."""

from collections.abc import Callable

import torch
from torch import Tensor

from selfdistill.data.randomness import hash_key
from selfdistill.evaluation.corruptions.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from selfdistill.evaluation.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate
from selfdistill.evaluation.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from selfdistill.evaluation.corruptions.pixels import Draws, fingerprint
from selfdistill.evaluation.corruptions.table import CORRUPTIONS, check, constants_for
from selfdistill.evaluation.corruptions.weather import brightness, fog, frost, snow
from selfdistill.network import float64_device

_FUNCTIONS: tuple[Callable[..., Tensor], ...] = (
    *(gaussian_noise, shot_noise, impulse_noise),
    *(defocus_blur, glass_blur, motion_blur, zoom_blur),
    *(snow, frost, fog, brightness),
    *(contrast, elastic_transform, pixelate, jpeg_compression),
)
_BY_NAME = {function.__name__: function for function in _FUNCTIONS}
LEAST_SIZE = 16
"""Side of the smallest image, pixels: the kernels reach 8 beyond the border."""

_AT_ONCE = 2**21  # values that are worked on together, 16 MB an intermediate result


def corrupt(images: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupt images as CIFAR-10-C, CIFAR-100-C and ImageNet-C were corrupted.

    Algorithms and constants are the published ones, written anew: CIFAR-C's for images below 85 pixels, ImageNet-C's
    from there on (the nearer of 32 and 224 in ratio; lengths stay in pixels). Frost is the exception: its photographs
    are not shipped, the ice is procedural. So the images are no copies of the published ones, whose random numbers
    nobody has (and ImageNet-C was stored as JPEG besides): where the published arrays exist, read those with
    :func:`selfdistill.evaluation.corruptions.open_published`.

    The result for an image is a function of its own pixels, of the name, the severity and the seed: not of the batch
    that it is in or of its place there. Equal images meet equal noise.

    Args:
        images: uint8 ``(N, 3, S, S)``, S >= 16.
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: any integer; another seed draws other noise.

    Returns:
        uint8 ``(N, 3, S, S)``, on the device of the images.

    Raises:
        ValueError: the images are not such, or there is no such corruption or severity.

    Example:
        >>> images = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        >>> corrupt(images, "brightness", severity=5).unique()
        tensor([176], dtype=torch.uint8)
        >>> noisy = corrupt(images, "gaussian_noise", severity=1)
        >>> noisy.shape, noisy.dtype, bool((noisy[0] == noisy[1]).all())
        (torch.Size([2, 3, 32, 32]), torch.uint8, True)

    Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
    ICLR 2019, and its scripts; see :mod:`selfdistill.evaluation.corruptions.table`.
    """
    check(name, severity)
    _check_images(images)
    constants = constants_for(images.shape[-1])[name][severity - 1]
    key = hash_key(seed, CORRUPTIONS.index(name), severity)
    if not len(images):
        return images.clone()
    parts = torch.split(images.to(float64_device(images.device)), max(1, _AT_ONCE // images[0].numel()))
    done = [_BY_NAME[name](part, Draws(key, fingerprint(part)), *constants) for part in parts]
    return torch.cat(done).to(images.device)


def _check_images(images: Tensor) -> None:
    shape = tuple(images.shape)
    if images.dtype != torch.uint8:
        raise ValueError(f"images: {images.dtype}, expected torch.uint8 with values 0 to 255, before normalisation")
    if images.ndim != 4 or shape[1] != 3 or shape[2] != shape[3]:
        hint = "; permute(0, 3, 1, 2) first" if images.ndim == 4 and shape[3] == 3 else ""
        raise ValueError(f"images: shape {shape}, expected squares in colour (N, 3, S, S){hint}")
    if shape[2] < LEAST_SIZE:
        least = f"{LEAST_SIZE} x {LEAST_SIZE}"
        raise ValueError(f"images: {shape[2]} x {shape[2]} pixels, expected at least {least}: resize them")
