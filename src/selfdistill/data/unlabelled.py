"""Images without labels, to be told apart from a network's own: photographs in pieces, folders, arrays."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfdistill.data.decode import (
    IMAGE_SUFFIXES,
    SMALL,
    UnreadableImageError,
    read_rgb,
    to_tensor,
)
from selfdistill.data.folders import image_files
from selfdistill.data.sets import Split

UNLABELLED_SETS = ("photographs",)

_PIECES = 250  # of each photograph, at least


@dataclass(frozen=True)
class Unlabelled:
    """Images of no class of the network's.

    Attributes:
        name: of the set.
        split: the images; every label is 0.
        prepared: how they came to the network's size.
    """

    name: str
    split: Split
    prepared: str


def load_unlabelled(source: str, *, image_size: int, root: Path, skip_unreadable: bool = False) -> Unlabelled:
    """Load images that belong to none of a network's classes, at the network's size.

    ==================  ==============================================================================================
    ``"photographs"``   squares cut from the two photographs that ship with scikit-learn
    ``DIR``             image files at any depth; the shorter side to S pixels, then the central square
    ``FILE.npy``        an array uint8 (N, S, S, 3) or (N, S, S)
    ``FILE.npz``        the same as ``images``; labels are not looked at
    ==================  ==============================================================================================

    Arrays of another size are refused: how images are resized decides how hard they are to tell apart.

    Args:
        source: the set, as above.
        image_size: S, the side of the network's images, pixels.
        root: where named sets are kept.
        skip_unreadable: leave unreadable image files out.

    Raises:
        ValueError: one line on what is wrong with the input, and the remedy.

    Example:
        >>> pieces = load_unlabelled("photographs", image_size=32, root=Path("data"))
        >>> len(pieces.split), pieces.prepared
        (520, 'squares of 32 px cut from two photographs')
    """
    path = Path(source).expanduser()
    if source == "photographs":
        return _photographs(image_size)
    if path.is_dir():
        return _folder(path, image_size, skip_unreadable)
    if path.is_file():
        return _array(path, image_size)
    near = difflib.get_close_matches(source, UNLABELLED_SETS, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(
        f"no set of images {source!r}{meant}: pass {', '.join(UNLABELLED_SETS)}, or a folder, .npy or .npz that exists"
    )


def _photographs(size: int) -> Unlabelled:
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in load_sample_images().images]
    least = min(min(photograph.shape[1:]) for photograph in photographs)
    if size > least:
        raise ValueError(f"photographs: {least} px high, but the network takes {size} px; name another set")
    stride = next(s for s in range(size, 0, -1) if s == 1 or _pieces(photographs[0], size, s) >= _PIECES)
    squares = [
        photograph.unfold(1, size, stride).unfold(2, size, stride).permute(1, 2, 0, 3, 4).reshape(-1, 3, size, size)
        for photograph in photographs
    ]
    overlap = "" if stride == size else f", {stride} px apart and so overlapping"
    return _unlabelled("photographs", torch.cat(squares), f"squares of {size} px cut from two photographs{overlap}")


def _pieces(photograph: Tensor, size: int, stride: int) -> int:
    _, height, width = photograph.shape
    return ((height - size) // stride + 1) * ((width - size) // stride + 1)


def _folder(folder: Path, size: int, skip_unreadable: bool) -> Unlabelled:
    files = image_files(folder)
    if not files:
        raise ValueError(f"{folder}: no image in it or below (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    readable, reasons, sizes = [], [], set()
    for file in files:
        try:
            image = read_rgb(file)
        except UnreadableImageError as error:
            reasons.append(str(error))
            continue
        sizes.add(image.size)
        readable.append((file, _square(image, size) if size <= SMALL else None))
    if reasons and (not skip_unreadable or not readable):
        raise ValueError(
            f"{reasons[0]} ({len(reasons)} unreadable of {len(files)} images in {folder}: repair or remove "
            f"{'them' if len(reasons) > 1 else 'it'}, or pass --skip-unreadable)"
        )
    name = folder.resolve().name
    if size > SMALL:
        labels = torch.zeros(len(readable), dtype=torch.int64)
        split = Split(labels, paths=tuple(file for file, _ in readable))
        return Unlabelled(name, split, f"shorter side to {round(size * 256 / 224)} px, central square of {size} px")
    pixels = to_tensor(square for _, square in readable if square is not None)
    as_they_are = sizes == {(size, size)}
    return _unlabelled(name, pixels, "as they are" if as_they_are else f"shorter side to {size} px, central square")


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    shorter = min(width, height)
    if shorter != size:
        scaled = (max(size, round(width * size / shorter)), max(size, round(height * size / shorter)))
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _array(file: Path, size: int) -> Unlabelled:
    images = _read_array(file)
    if images.dtype != np.uint8:
        raise ValueError(f"{file}: images are {images.dtype}, wanted uint8 with values 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
        raise ValueError(f"{file}: images have shape {images.shape}, wanted (N, H, W, 3), (N, H, W, 1) or (N, H, W)")
    if images.shape[1:3] != (size, size):
        raise ValueError(
            f"{file}: images of {images.shape[1]} x {images.shape[2]} px, but the network takes {size} x {size}: "
            "resize them, or give a folder of images"
        )
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()
    return _unlabelled(file.stem, pixels, "as they are")


def _read_array(file: Path) -> NDArray[Any]:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            if "images" not in archive.files:
                raise ValueError(f"no array 'images', it has {archive.files}")
            images: NDArray[Any] = archive["images"]
            return images
    except Exception as error:  # numpy and zipfile have many errors for a damaged file
        raise ValueError(f"{file}: cannot be read as an array ({' '.join(str(error).split())})") from error


def _unlabelled(name: str, pixels: Tensor, prepared: str) -> Unlabelled:
    return Unlabelled(name, Split(torch.zeros(len(pixels), dtype=torch.int64), images=pixels), prepared)
