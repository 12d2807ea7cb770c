"""Image files to RGB, and the one pass over a set of files that finds the unreadable ones before a run starts."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from selfdistill.text import printable

IMAGE_SUFFIXES = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
SMALL = 64
"""Sets whose images have no side longer than this are kept in memory."""

_SHOW_PROGRESS = 2000  # files


_Item = TypeVar("_Item")
_Look = tuple[int | None, Image.Image | None, str]


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded; one line that names it."""


@dataclass(frozen=True)
class Scan:
    """What one pass over the files found.

    Attributes:
        sizes: the longer side of each readable file, in pixels; None for an unreadable one.
        small: each file's pixels where they are to be kept (see :func:`scan`), otherwise None.
        reasons: a line for each unreadable file, by its position.
    """

    sizes: tuple[int | None, ...]
    small: tuple[Image.Image | None, ...]
    reasons: dict[int, str]


def read_rgb(path: Path, box: Sequence[int] | None = None) -> Image.Image:
    """Decode an image file, or a rectangle of it, to 8-bit RGB, upright.

    Grey, palette, CMYK and 16-bit files are converted; what is transparent is shown on white; the orientation that a
    camera stored (EXIF) is applied; of an animation the first frame is read.

    Args:
        path: the file.
        box: left, top, right and bottom of the rectangle, as in :class:`~selfdistill.data.sets.Split`: it is cut out
            before the picture is turned upright. What of it lies beyond the picture is left out.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, no image, or of an unsupported kind, or nothing of
            the picture lies in the box.
    """
    try:
        with Image.open(path) as file:
            file.load()
            image = file if box is None else _cut(file, box)
            if image.mode == "RGB" and image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return image.copy()  # the file is closed after this
            return _to_rgb(ImageOps.exif_transpose(image))  # a copy already, also where there is nothing to turn
    except UnidentifiedImageError:
        what = "not an image, or a format that cannot be read" if path.stat().st_size else "the file is empty"
        raise UnreadableImageError(f"{path}: {what}") from None
    except Exception as error:  # decoders raise almost anything on a damaged file
        told = getattr(error, "strerror", None) or str(error)  # an OSError's text would repeat the path
        reason = " ".join(told.split()) or type(error).__name__
        raise UnreadableImageError(f"{path}: {reason}") from error


def scan(paths: Sequence[Path], image_size: int | None, boxes: Tensor | None = None) -> Scan:
    """Decode every file once, on several threads; keep the pixels of small images.

    Args:
        paths: the files.
        image_size: None keeps images of at most 64 pixels on the longer side as they are; a size up to 64 keeps every
            image, resized to that square; a larger one keeps none.
        boxes: the part of each file, as in :class:`~selfdistill.data.sets.Split`; None: all of it.
    """

    def look(path: Path, box: Sequence[int] | None) -> _Look:
        try:
            image = read_rgb(path, box)
        except UnreadableImageError as error:
            return None, None, str(error)
        longer = max(image.size)
        if image_size is not None:
            return longer, to_square(image, image_size) if image_size <= SMALL else None, ""
        return longer, image if longer <= SMALL else None, ""

    with ThreadPoolExecutor(min(8, cpu_count())) as pool:
        parts = repeat(None) if boxes is None else boxes.tolist()
        looks = pool.map(look, paths, parts)
        found = list(progress_bar(looks, "reading images", len(paths)) if len(paths) > _SHOW_PROGRESS else looks)
    reasons = {at: reason for at, (_, _, reason) in enumerate(found) if reason}
    return Scan(tuple(f[0] for f in found), tuple(f[1] for f in found), reasons)


def to_square(image: Image.Image, size: int) -> Image.Image:
    """Resize to ``size`` x ``size`` pixels (bilinear, antialiased); an oblong image is squeezed."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def to_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """Resize so that the shorter side has ``side`` pixels (bilinear, antialiased), as torchvision's ``Resize`` does."""
    size = sides_for(image.size, side)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def sides_for(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height of an image whose shorter side is resized to ``side`` pixels, the other rounded down.

    Example:
        >>> sides_for((640, 427), 256)
        (383, 256)
    """
    shorter = min(size)
    width, height = (side * old // shorter for old in size)
    return width, height


def to_tensor(images: Iterable[Image.Image]) -> Tensor:
    """Stack RGB images of one size to uint8 ``(N, 3, H, W)``."""
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def progress_bar(items: Iterable[_Item], title: str, total: int) -> Iterator[_Item]:
    """Yield the items, on a terminal under a progress bar; a ``total`` of 0 is not known."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    yield from track(items, escape(printable(title)), total=total or None, console=Console(stderr=True), transient=True)


def cpu_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cut(image: Image.Image, box: Sequence[int]) -> Image.Image:
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ValueError(f"nothing of its {image.width} x {image.height} pixels lies in the box {tuple(box)}")
    return image.crop(inside)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no fixed range: save the image with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16-bit values at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(seen, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
