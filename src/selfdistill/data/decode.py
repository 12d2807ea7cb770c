"""Image files to RGB, and the one pass over a set of files that finds the unreadable ones before a run starts."""

import io
import os
import stat
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from selfdistill.data.packed import ImageFile
from selfdistill.errors import ArgumentError
from selfdistill.progress import track

IMAGE_SUFFIXES = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".hif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
MAX_PIXELS = 89_478_485
"""Files of more pixels are refused unless the user allows more; Pillow warns from here on."""

MOST_PIXELS = 2 * MAX_PIXELS
"""Files of more pixels are never decoded: Pillow refuses them."""

MAX_BYTES = 2**30
"""Larger image files are not opened."""

SMALL = 64
"""Sets whose images have no side longer than this are kept in memory."""

_SHOW_PROGRESS = 2000  # files
# Of all that Pillow opens, by content and not by name: some start programs (PostScript), few are ever photographs.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_PNG = b"\x89PNG\r\n\x1a\n"
_BITS = (8, 12, 16)  # of grey pixels in deeper integers
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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


def read_rgb(path: ImageFile, box: Sequence[int] | None = None, max_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode an image file, or a rectangle of it, to 8-bit RGB, upright.

    Grey, palette and CMYK files are converted; what is transparent is shown on white; the orientation that a camera
    stored (EXIF) is applied, whatever else of the EXIF is damaged; of an animation the first frame is read. Grey pixels
    of 16 or 32 bits have the range of 8, 12 or 16 bits: the smallest that holds the largest value of the file.

    Args:
        box: left, top, right and bottom of the rectangle, as in :class:`~selfdistill.data.sets.Split`: it is cut out
            before the picture is turned upright. What of it lies beyond the picture is left out.
        max_pixels: larger pictures are refused before they are decoded; at most `MOST_PIXELS`.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, no image, too large, or of an unsupported kind, or
            nothing of the picture lies in the box.
    """
    try:
        source = encoded(path)
        try:
            return _decode(source, box, max_pixels)
        except Exception:  # decoders raise almost anything on a damaged file
            mended = _without_damaged_notes(path.read_bytes())
            if mended is None:
                raise
            return _decode(io.BytesIO(mended), box, max_pixels)
    except UnidentifiedImageError:
        raise UnreadableImageError(f"{path}: {_what(path)}") from None
    except Exception as error:
        told = getattr(error, "strerror", None) or str(error)  # an OSError's text would repeat the path
        reason = " ".join(told.split()) or type(error).__name__
        raise UnreadableImageError(f"{path}: {reason}") from error


def pixel_limit(max_pixels: int | None) -> int:
    """Return how many pixels a file may have, by default `MAX_PIXELS`."""
    if max_pixels is not None and not 1 <= max_pixels <= MOST_PIXELS:
        raise ArgumentError("max_pixels", f"must be between 1 and {MOST_PIXELS:,}, not {max_pixels:,}")
    return max_pixels or MAX_PIXELS


def encoded(path: ImageFile) -> Path | BinaryIO:
    """Return what an image is decoded from.

    Raises:
        OSError: it is not there.
        ValueError: it is not a regular file, or too large.
    """
    if not isinstance(path, Path):
        return io.BytesIO(path.read_bytes())
    check_regular(path)
    return path


def check_regular(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Refuse what is not a regular file, such as a pipe, which would be waited for, and a file that is too large.

    Raises:
        OSError: there is no such file.
        ValueError: one line that does not name it.
    """
    known = path.stat()
    if not stat.S_ISREG(known.st_mode):
        raise ValueError("not a regular file")
    if known.st_size > max_bytes:
        raise ValueError(f"{known.st_size:,} bytes are more than the {max_bytes:,} that are read")


def open_image(source: Path | BinaryIO, max_pixels: int = MOST_PIXELS) -> Image.Image:
    """Open, and do not decode yet, an image of a format that photographs have."""
    try:
        file = Image.open(source, formats=_formats())
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels, the most that are ever decoded: make it smaller") from None
    if file.width * file.height > max_pixels:
        file.close()
        raise ValueError(
            f"{file.width:,} x {file.height:,} pixels are more than {max_pixels:,}: make it smaller, or raise "
            f"`max_pixels` (up to {MOST_PIXELS:,})"
        )
    return file


def scan(
    paths: Sequence[ImageFile],
    image_size: int | None,
    boxes: Tensor | None = None,
    max_pixels: int | None = None,
) -> Scan:
    """Decode every file once, on several threads; keep the pixels of small images.

    Args:
        image_size: None keeps images of at most 64 pixels on the longer side as they are; a size up to 64 keeps every
            image, resized to that square; a larger one keeps none.
        boxes: the part of each file, as in :class:`~selfdistill.data.sets.Split`; None: all of it.
        max_pixels: larger pictures are unreadable (default: `MAX_PIXELS`).
    """
    limit = pixel_limit(max_pixels)

    def look(path: ImageFile, box: Sequence[int] | None) -> _Look:
        try:
            image = read_rgb(path, box, limit)
        except UnreadableImageError as error:
            return None, None, str(error)
        longer = max(image.size)
        if image_size is not None:
            return longer, to_square(image, image_size) if image_size <= SMALL else None, ""
        return longer, image if longer <= SMALL else None, ""

    with ThreadPoolExecutor(min(8, cpu_count())) as pool:
        parts = repeat(None) if boxes is None else boxes.tolist()
        looks = pool.map(look, paths, parts)
        found = list(track(looks, "reading images", len(paths)) if len(paths) > _SHOW_PROGRESS else looks)
    reasons = {at: reason for at, (_, _, reason) in enumerate(found) if reason}
    return Scan(tuple(f[0] for f in found), tuple(f[1] for f in found), reasons)


def to_square(image: Image.Image, size: int) -> Image.Image:
    """Resize to ``size`` x ``size`` pixels (bilinear, antialiased); an oblong image is squeezed."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def to_shorter_side(image: Image.Image, side: int, interpolation: str = "bilinear") -> Image.Image:
    """Resize so that the shorter side has ``side`` pixels, antialiased, as torchvision's ``Resize`` does."""
    size = sides_for(image.size, side)
    return image if image.size == size else image.resize(size, Image.Resampling[interpolation.upper()])


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


def cpu_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cut(image: Image.Image, box: Sequence[int]) -> Image.Image:
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise ValueError(f"nothing of its {image.width} x {image.height} pixels lies in the box {tuple(box)}")
    return image.crop(inside)


def _decode(source: Path | BinaryIO, box: Sequence[int] | None, max_pixels: int) -> Image.Image:
    with open_image(source, max_pixels) as file:
        deep = ";16" in str(
            getattr(file, "tile", "")
        )  # 16 bits a channel, of which Pillow keeps the upper 8 where there are several
        file.load()
        image = _to_rgb(file if box is None else _cut(file, box), deep)
        turn = _TURNS.get(_orientation(file))
        if turn is not None:
            return image.transpose(turn)
        return image.copy() if image is file else image  # the file is closed after this


def _orientation(image: Image.Image) -> int:
    """Read the one EXIF tag that matters, in whatever type it was written; 1 where it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(value[0] if isinstance(value, tuple | bytes) else value)
    except Exception:  # damaged EXIF data raise almost anything
        return 1


def _to_rgb(image: Image.Image, deep: bool) -> Image.Image:
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no fixed range: save the image with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16-bit values at 255
        return Image.fromarray(_grey(np.asarray(image), image.info.get("transparency"))).convert("RGB")
    key = image.info.get("transparency")
    if deep and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.has_transparency_data:
        seen = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(seen, image.convert("RGBA")).convert("RGB")
    if image.mode != "RGB":
        return image.convert("RGB")
    if deep and 0 < np.asarray(image).max() < 16:
        raise ValueError("its values are in the lower 12 of its 16 bits: save the image with 8 bits")
    return image


def _grey(values: NDArray[np.int64], key: object) -> NDArray[np.uint8]:
    """Deep grey values as 8 bits; those of the colour ``key`` are transparent, and shown white."""
    low, high = int(values.min()), int(values.max())
    bits = next((bits for bits in _BITS if low >= 0 and high < 1 << bits), None)
    if bits is None:
        raise ValueError(f"pixels from {low} to {high} have no known range: save the image with 8 or 16 bits")
    grey = (values >> (bits - 8)).astype(np.uint8)
    return grey if key is None else np.where(values == key, np.uint8(255), grey)


def _without_damaged_notes(content: bytes) -> bytes | None:
    """Drop the chunks of a PNG file that no picture needs and whose checksum is wrong; None where there is none."""
    if not content.startswith(_PNG):
        return None
    kept, at = [_PNG], len(_PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        chunk = content[at:end]
        needed = not chunk[4:5].islower()
        if needed or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]):
            kept.append(chunk)
        at = end
    mended = b"".join(kept)
    return mended if len(mended) < len(content) else None


@cache
def _formats() -> tuple[str, ...]:
    """Those of our formats that can be read here; HEIC needs a package of its own."""
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    except ModuleNotFoundError:
        pass
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _what(path: ImageFile) -> str:
    if isinstance(path, Path):
        with path.open("rb") as file:
            head = file.read(12)
    else:
        head = path.read_bytes()[:12]
    if head[4:8] == b"ftyp":
        return "a HEIC or AVIF file, which cannot be read here: pip install pillow-heif, or convert it to JPEG"
    return "not an image, or a format that cannot be read" if head else "the file is empty"
