"""Out-of-distribution (OOD) sets, images without labels: published sets, photographs in pieces, your own."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfdistill.data.arrays import resize
from selfdistill.data.decode import (
    IMAGE_SUFFIXES,
    SMALL,
    UnreadableImageError,
    cpu_count,
    pixel_limit,
    read_rgb,
    to_tensor,
)
from selfdistill.data.folders import find_images, image_files, unread_note
from selfdistill.data.named import load_named
from selfdistill.data.named.download import ARCHIVES, archived_files, svhn_test_images
from selfdistill.data.sets import BILINEAR, Limits, Resizing, Split
from selfdistill.data.sources import check_root, unknown_source
from selfdistill.progress import track
from selfdistill.text import plain_name, quote

UNLABELLED_SETS = ("photographs", *ARCHIVES, "svhn", "imagenet_resize", "cifar10")

_PIECES = 250  # of each photograph, at least
_SVHN_FIRST = 10_000  # of the 26,032 test images


@dataclass(frozen=True)
class Unlabelled:
    """An out-of-distribution set: images of none of the network's classes.

    Attributes:
        name: of the set.
        split: the images; every label is 0.
        prepared: the resizing and cropping applied.
    """

    name: str
    split: Split
    prepared: str


def load_unlabelled(
    source: str,
    *,
    image_size: int,
    root: Path,
    skip_unreadable: bool = False,
    max_pixels: int | None = None,
    resizing: Resizing = BILINEAR,
) -> Unlabelled:
    """Load images that belong to none of a network's classes, at the network's size.

    =====================  ===========================================================================================
    ``"photographs"``      squares cut from the two photographs that ship with scikit-learn
    ``"lsun_resize"``      10,000 images of 32 x 32: ``root/lsun_resize/``, or the archive ``root/LSUN_resize.tar.gz``
    ``"isun"``             8,925 images of 32 x 32: ``root/isun/``, or ``root/iSUN.tar.gz``
    ``"dtd"``              5,640 photographs of textures: ``root/dtd/``, or ``root/dtd-r1.0.1.tar.gz``
    ``"svhn"``             the first 10,000 test images of 32 x 32: ``root/svhn/test.npz``, or ``root/test_32x32.mat``
    ``"imagenet_resize"``  photographs of ImageNet at 32 x 32: ``root/imagenet_resize/``, any number; not downloaded
    ``"cifar10"``          the test images: ``root/cifar10_test.npz``, an array as below, or as the named set
    ``DIR``                image files at any depth; the shorter side to S pixels, then the central square
    ``FILE.npy``           an array uint8 (N, S, S, 3) or (N, S, S)
    ``FILE.npz``           the same as ``images``; labels are not looked at
    =====================  ===========================================================================================

    A named set goes before a folder of that name: write ``./dtd`` for the folder. It is downloaded if needed; archives
    are checked by their md5, folders by the number of their images. Square files whose side is a whole multiple of S
    become means of blocks, as named sets do. Arrays of another size are refused: how images are resized decides how
    hard they are to tell apart.

    Args:
        source: the set, as above.
        image_size: S, the side of the network's images, pixels.
        root: where named sets are kept; it must exist unless it is below the working directory.
        skip_unreadable: leave unreadable image files out.
        max_pixels: image files of more pixels are unreadable.
        resizing: of files above 64 pixels, by the network's own images.

    Raises:
        ValueError: one line on what is wrong with the input, and the remedy.
        RuntimeError: a named set is not there and cannot be downloaded.

    Example:
        >>> pieces = load_unlabelled("photographs", image_size=32, root=Path("data"))
        >>> len(pieces.split), pieces.prepared
        (520, 'squares of 32 px cut from two photographs')
    """
    path = Path(source).expanduser()
    if source in UNLABELLED_SETS:
        check_root(root)
    if source == "photographs":
        return _photographs(image_size)
    if source == "svhn":
        return _svhn(root, image_size)
    if source == "cifar10":
        return _cifar10(root, image_size)
    if source == "imagenet_resize":
        return _imagenet_resize(root, image_size, skip_unreadable, resizing)
    if source in ARCHIVES:
        return _files(source, root / source, archived_files(source, root), image_size, skip_unreadable, None, resizing)
    if path.is_dir():
        files, unread = find_images(path)
        if files and unread:
            warnings.warn(f"{path}: {unread_note(unread)}", stacklevel=2)
        name = plain_name(path.resolve().name)
        return _files(name, path, files, image_size, skip_unreadable, max_pixels, resizing)
    if path.is_file():
        return _array(path, image_size)
    raise unknown_source("set of images", source, UNLABELLED_SETS, "a folder, .npy or .npz file that exists")


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


def _svhn(root: Path, size: int) -> Unlabelled:
    pixels = svhn_test_images(root)
    first, side = pixels[:_SVHN_FIRST], pixels.shape[-1]
    how = "as they are" if side == size else f"from {side} to {size} px"
    return _unlabelled("svhn", resize(first, size), f"the first {len(first):,} test images, {how}")


def _cifar10(root: Path, size: int) -> Unlabelled:
    file = root / "cifar10_test.npz"
    if file.is_file():
        pixels = _pixels(file)
    else:
        images = load_named("cifar10", root=root, image_size=None, limits=Limits()).test.images
        assert images is not None
        pixels = images
    side = pixels.shape[-1]
    return _unlabelled("cifar10", resize(pixels, size), "as they are" if side == size else f"from {side} to {size} px")


def _imagenet_resize(root: Path, size: int, skip_unreadable: bool, resizing: Resizing) -> Unlabelled:
    folder = root / "imagenet_resize"
    if not folder.is_dir():
        raise RuntimeError(f"imagenet_resize is not in {root}: put image files, photographs at 32 x 32, into {folder}")
    return _files("imagenet_resize", folder, image_files(folder), size, skip_unreadable, None, resizing)


def _files(
    name: str,
    folder: Path,
    files: Sequence[Path],
    size: int,
    skip_unreadable: bool,
    max_pixels: int | None,
    resizing: Resizing,
) -> Unlabelled:
    if not files:
        raise ValueError(f"{folder}: no image in it or below (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")

    limit = pixel_limit(max_pixels)

    def look(file: Path) -> tuple[tuple[int, int], Image.Image | None] | str:
        try:
            image = read_rgb(file, max_pixels=limit)
        except UnreadableImageError as error:
            return str(error)
        return image.size, _square(image, size) if size <= SMALL else None

    with ThreadPoolExecutor(min(8, cpu_count())) as pool:
        found = list(track(pool.map(look, files), f"reading {name}", len(files)))
    reasons = [entry for entry in found if isinstance(entry, str)]
    if reasons and (not skip_unreadable or len(reasons) == len(files)):
        remedy = f"repair or remove {'them' if len(reasons) > 1 else 'it'}"
        other = ", or pass `skip_unreadable=True`" if len(reasons) < len(files) else ""
        raise ValueError(
            f"{reasons[0]} ({len(reasons)} unreadable of {len(files)} images in {folder}: {remedy}{other})"
        )
    if size > SMALL:
        kept = tuple(file for file, entry in zip(files, found, strict=True) if not isinstance(entry, str))
        split = Split(torch.zeros(len(kept), dtype=torch.int64), paths=kept)
        return Unlabelled(name, split, resizing.in_words(size))
    read = [entry for entry in found if not isinstance(entry, str)]
    pixels = to_tensor(square for _, square in read if square is not None)
    as_they_are = {shape for shape, _ in read} == {(size, size)}
    return _unlabelled(name, pixels, "as they are" if as_they_are else f"shorter side to {size} px, central square")


def _square(image: Image.Image, size: int) -> Image.Image:
    """The shorter side to ``size`` pixels, then the central square, rounded as torchvision's transforms do."""
    shorter = min(image.size)
    if image.width == image.height and shorter % size == 0:
        return image.reduce(shorter // size)
    if shorter != size:
        width, height = (size * side // shorter for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _array(file: Path, size: int) -> Unlabelled:
    pixels = _pixels(file)
    height, width = pixels.shape[2:]
    if (height, width) != (size, size):
        raise ValueError(
            f"{file}: images of {height} x {width} px, but the network takes {size} x {size}: resize "
            "them yourself, because how it is done decides how hard they are to tell apart, or give a folder of images"
        )
    return _unlabelled(plain_name(file.stem), pixels, "as they are")


def _pixels(file: Path) -> Tensor:
    """Return a file's images as uint8 ``(N, 3, H, W)``."""
    images = _read_array(file)
    shape = images.shape
    if images.dtype != np.uint8:
        raise ValueError(f"{file}: images are {images.dtype}, wanted uint8 with values 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in shape:
        hint = "; transpose (0, 2, 3, 1)" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise ValueError(f"{file}: images have shape {shape}, wanted (N, H, W, 3), (N, H, W, 1) or (N, H, W){hint}")
    return torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def _read_array(file: Path) -> NDArray[Any]:
    if file.suffix.lower() not in (".npy", ".npz"):
        raise ValueError(f"{file} is a file, but not .npy or .npz: pass a folder of images or such a file")
    try:
        with file.open("rb") as content:
            loaded = np.load(content, allow_pickle=False)  # a pickle could run code: it is never read
            images = loaded if isinstance(loaded, np.ndarray) else loaded.get("images")
    except Exception as error:  # numpy and zipfile have many errors for a damaged file
        raise ValueError(f"{file}: cannot be read as an array ({' '.join(str(error).split())})") from error
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{file}: no array 'images', it has {quote(sorted(loaded))}")
    return images


def _unlabelled(name: str, pixels: Tensor, prepared: str) -> Unlabelled:
    return Unlabelled(name, Split(torch.zeros(len(pixels), dtype=torch.int64), images=pixels), prepared)
