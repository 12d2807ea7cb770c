"""Digital: less contrast, elastic distortion, coarse pixels and JPEG compression.

Each function takes uint8 images ``(N, 3, S, S)`` and the random numbers that belong to each image, and returns the
corrupted images.
"""

import io

import numpy as np
import torch
from torch import Tensor

from selfdistill.evaluation.corruptions import resample
from selfdistill.evaluation.corruptions.pixels import Draws, rounded, to_pixels, to_unit


def contrast(images: Tensor, draws: Draws, factor: float) -> Tensor:
    """(x - m) factor + m, with m the mean of each channel of each image. Nothing is drawn.

    Args:
        factor: of the contrast that is left, in [0, 1].
    """
    x = to_unit(images)
    # The sum is of integers, so that it is exact in whatever order it is taken.
    mean = images.long().sum(dim=(2, 3), keepdim=True).double() / (255 * images.shape[-1] ** 2)
    return to_pixels((x - mean) * factor + mean)


def elastic_transform(images: Tensor, draws: Draws, amplitude: float, sigma: float, corner: float) -> Tensor:
    """A random affine map, then each pixel read at its place plus a smooth random offset; both bilinear.

    The affine map is that which moves three points, a third of the side from the middle, by uniform offsets up to
    `corner`. The smooth offsets are uniform noise in (-1, 1), blurred by `sigma`, times `amplitude`. The affine step
    reads between the pixels exactly, where the library that made the published sets rounded to 1/32 pixel then.

    Args:
        amplitude: of the smooth offsets, a multiple of the side S.
        sigma: of their blur, a multiple of S.
        corner: largest offset of the three points, a multiple of S.
    """
    size = images.shape[-1]
    line = torch.arange(size, dtype=torch.float64, device=images.device)
    x = affine(to_unit(images), size * corner * (2 * draws.uniform(0, 3, 2) - 1))
    noise = 2 * draws.uniform(1, 2, size, size) - 1
    offset = size * amplitude * resample.gaussian_blur(noise, size * sigma, truncate=3.0, mirrored=True)
    return to_pixels(resample.sample(x, line[:, None] + offset[:, 0], line + offset[:, 1], mirrored=True))


def pixelate(images: Tensor, draws: Draws, factor: float) -> Tensor:
    """Shrink to floor(factor S) pixels by averaging boxes and enlarge again by repeating pixels. Nothing is drawn.

    Args:
        factor: of the side that is left, in (0, 1].
    """
    size = images.shape[-1]
    return box_resize(box_resize(images, int(size * factor)), size)


def jpeg_compression(images: Tensor, draws: Draws, quality: float) -> Tensor:
    """Save as JPEG and read again, image by image with PIL. Nothing is drawn.

    Args:
        quality: 1 to 95, as PIL counts it; colours are stored at half the resolution, PIL's default.
    """
    from PIL import Image

    decoded = []
    for image in images.permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(quality))
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous().to(images.device)


def affine(x: Tensor, offset: Tensor) -> Tensor:
    """Move each image so that three points land where `offset` says, continued by reflection.

    Args:
        x: float64 ``(N, C, S, S)``.
        offset: float64 ``(N, 3, 2)``, pixels right and down, of the points (m + t, m + t), (m + t, m - t) and
            (m - t, m - t), given as (right, down), with m = S // 2 and t = S // 3.
    """
    size = x.shape[-1]
    m, t = size // 2, size // 3
    points = x.new_tensor([[m + t, m + t], [m + t, m - t], [m - t, m - t]]).expand_as(offset)
    one = torch.ones_like(offset[..., :1])
    back = torch.linalg.solve(torch.cat([points + offset, one], dim=2), points)  # (N, 3, 2): new place to old place
    line = torch.arange(size, dtype=x.dtype, device=x.device)
    right, down = (
        line * back[:, 0, i, None, None] + line[:, None] * back[:, 1, i, None, None] + back[:, 2, i, None, None]
        for i in (0, 1)
    )
    return resample.sample(x, down, right, mirrored=False)


def box_resize(images: Tensor, size: int) -> Tensor:
    """Resize squares as PIL's BOX filter does: the mean of the whole pixels whose middle is in a box, rounded twice.

    Args:
        images: uint8 ``(N, C, S, S)``.
        size: the new side, >= 1.

    Returns:
        uint8 ``(N, C, size, size)``.

    Example:
        >>> box_resize(torch.tensor([[[[0, 1], [2, 4]]]], dtype=torch.uint8), 1).flatten().tolist()
        [2]
    """
    matrix = _boxes(images.shape[-1], size).to(images.device)
    wide = rounded(images.double() @ matrix.T)
    return rounded(matrix @ wide.double())


def _boxes(old: int, new: int) -> Tensor:
    """Row i: the weights of the old pixels in new pixel i. A middle on the box's border counts at its left end."""
    scale = old / new
    width = max(scale, 1.0)
    centre = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * scale
    first, last = (centre - width / 2 + 0.5).clamp(min=0).floor(), (centre + width / 2 + 0.5).clamp(max=old).floor()
    pixel = torch.arange(old, dtype=torch.float64)
    away = (pixel + 0.5 - centre) / width
    inside = ((pixel >= first) & (pixel < last) & (away > -0.5) & (away <= 0.5)).double()
    return inside / inside.sum(dim=1, keepdim=True)
