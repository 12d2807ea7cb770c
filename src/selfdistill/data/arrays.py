"""Arrays: ``train.npz`` and ``test.npz`` (or ``val.npz``), or one file of which a part is held out."""

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfdistill.data.fingerprint import pixel_ids
from selfdistill.data.folders import find_parts
from selfdistill.data.sets import HELD_OUT_BY_CONTENT, ImageData, Limits, Split, hold_out, names_by_content
from selfdistill.text import plain_name, quote

LAYOUT = "images uint8 (N, H, W, 3), labels integers (N,) and, if wanted, classes (C,) text"
_LEAST_SIZE = 32  # corruptions and the small networks expect at least this


def load_arrays(source: Path, *, image_size: int | None, limits: Limits, as_they_are: bool = False) -> ImageData:
    """Read ``source/train.npz`` with ``source/test.npz`` or ``val.npz``, or the file ``source``, a part held out.

    A file holds ``images`` uint8 ``(N, H, W, C)`` with C 1 or 3, or ``(N, H, W)``; ``labels``, integers ``(N,)``; and
    optionally ``classes``, the names. Grey becomes RGB. The images are kept in memory as squares of ``image_size``,
    by default of their longer side, at least 32 (antialiased bilinear; oblong images are squeezed). ``as_they_are``
    leaves them their channels, any number, and the side below 32. Nothing is ever unpickled. ``mean`` and ``std`` are
    left empty: to be measured on the training images in use.

    Raises:
        ValueError: a file is missing or is not of that layout; one line that names it.
    """
    if source.is_file():
        files = {"train": source}
    else:
        parts = find_parts(source, ".npz")
        test = parts.get("test") or parts.get("val")
        if "train" not in parts or test is None:
            missing = "test.npz (or val.npz)" if "train" in parts else "train.npz"
            raise ValueError(f"{source} has no {missing}: add it, or pass one .npz file to hold out 20 % of it")
        files = {"train": parts["train"], "test": test} | ({"val": parts["val"]} if len(parts) == 3 else {})
    name = plain_name(source.stem if source.is_file() else source.resolve().name)
    named = {part: (str(file), file.name, partial(read_npz, file)) for part, file in files.items()}
    return limits.apply(join_parts(name, named, image_size, as_they_are))


ReadArrays = Callable[[int | None, bool], tuple[Split, tuple[str, ...] | None]]
"""Reads images and class names, given the size and whether images are left as they are; see `to_split`."""


def join_parts(
    name: str, parts: Mapping[str, tuple[str, str, ReadArrays]], image_size: int | None, as_they_are: bool
) -> ImageData:
    """Make a set of its parts, which must be of the same classes.

    Args:
        parts: of ``train`` and, if they are there, ``test`` and ``val``: where it is for messages, what it is called,
            and its reader. Without ``test``, about 20 % are held out by content: an image that is added moves
            no other one.
        image_size: S; None: the longer side of the training images.
        as_they_are: as for `load_arrays`.

    Raises:
        ValueError: a part is not of the layout, or of other classes or channels.
    """
    where, called, read = parts["train"]
    train, names = read(image_size, as_they_are)
    assert train.images is not None
    classes = _class_names(train.labels, names, where)
    channels, size, _ = train.images.shape[1:]
    others: dict[str, Split] = {}
    for part in ("test", "val"):
        if part in parts:
            its_place, _, read = parts[part]
            others[part], own = read(size, channels != 3)
            if own is not None and names is not None and own != names:
                raise ValueError(f"{its_place}: its classes differ from those of {where}")
            if (images := others[part].images) is not None and images.shape[1] != channels:
                raise ValueError(
                    f"{its_place}: images of {images.shape[1]} channels, and those of {where} have {channels}"
                )
            _check_range(others[part].labels, classes, its_place)
    held_out = "test" not in parts
    train, test = hold_out(train, classes, names_by_content(train)) if held_out else (train, others["test"])
    return ImageData(
        name=name,
        train=train,
        test=test,
        classes=classes,
        mean=(),
        std=(),
        image_size=size,
        augment="crop_flip",
        test_split_description=HELD_OUT_BY_CONTENT if held_out else parts["test"][1],
        train_split_description="" if held_out else called,
        val=others.get("val"),
        val_split_description=parts["val"][1] if "val" in parts else "",
    )


def read_npz(file: Path, image_size: int | None, as_they_are: bool = False) -> tuple[Split, tuple[str, ...] | None]:
    """Read one file: its images as uint8 ``(N, C, S, S)`` with their labels, and the class names if it has any.

    Raises:
        ValueError: the file is damaged or not of the layout; see `to_split`.
    """
    arrays = _open(file)
    for key in ("images", "labels"):
        if not isinstance(arrays.get(key), np.ndarray):  # a member that is not an array arrives as bytes
            raise ValueError(f"{file}: no array {key!r}, it has {quote(sorted(arrays))}; wanted: {LAYOUT}")
    names = _names(arrays["classes"], file) if "classes" in arrays else None
    return to_split(arrays["images"], arrays["labels"], str(file), image_size, as_they_are), names


def to_split(
    images: NDArray[Any], labels: NDArray[Any], where: str, image_size: int | None, as_they_are: bool
) -> Split:
    """Return images as uint8 ``(N, C, S, S)`` with their labels.

    Args:
        images: uint8 ``(N, H, W, C)`` or ``(N, H, W)``.
        labels: integers ``(N,)``.
        image_size: S; None: the longer side, at least 32 unless the images are left as they are.
        as_they_are: C is theirs; otherwise 3.
    """
    shape = images.shape
    if images.dtype != np.uint8:
        raise ValueError(f"{where}: images are {images.dtype}, wanted uint8 with values 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    channels = images.shape[-1] if as_they_are else 3
    if images.ndim != 4 or images.shape[-1] not in (1, channels) or 0 in shape:
        hint = "; transpose (0, 2, 3, 1)" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise ValueError(f"{where}: images have shape {shape}, wanted (N, H, W, 3), (N, H, W, 1) or (N, H, W){hint}")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"{where}: labels are {labels.shape}; several of an image (multi-label) are not supported: (N,)"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{where}: labels are {labels.dtype} of shape {labels.shape}, wanted integers (N,)")
    if len(labels) != len(images):
        raise ValueError(f"{where}: {len(images)} images but {len(labels)} labels")
    if int(labels.min()) < 0 or int(labels.max()) >= 2**31:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ValueError(f"{where}: label {wrong} is out of range, wanted 0 to the number of classes - 1")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, channels, -1, -1)
    size = image_size or max(1 if as_they_are else _LEAST_SIZE, *images.shape[1:3])
    # What was given says which image it is: a resized one depends a little on the machine.
    ids = pixel_ids(torch.from_numpy(images))
    return Split(torch.from_numpy(labels.astype(np.int64)), images=resize(pixels, size), ids=ids)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize uint8 ``(N, C, H, W)`` to squares of ``size`` pixels, if they are not.

    Where both sides are whole multiples of ``size`` a pixel is the mean of its block, rounded; otherwise the images are
    resized by antialiased bilinear interpolation.

    Example:
        >>> resize(torch.tensor([[[[0, 10], [20, 50]]]], dtype=torch.uint8), 1).item()
        20
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images.contiguous()
    chunks = torch.split(images, 1000)
    if height % size == width % size == 0:
        block = (height // size, width // size)
        return torch.cat([F.avg_pool2d(chunk.float(), block).round().to(torch.uint8) for chunk in chunks])
    return torch.cat(
        [
            F.interpolate(chunk.contiguous(), size=(size, size), mode="bilinear", antialias=True, align_corners=False)
            for chunk in chunks
        ]
    )


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Bring uint8 images ``(N, 3, H, W)`` or ``(N, 1, H, W)`` to 1 or 3 channels.

    .. math:: Y = 0.299 R + 0.587 G + 0.114 B

    Example:
        >>> to_channels(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1), 1).item()
        76

    Source: ITU-R BT.601.
    """
    if images.shape[1] == channels:
        return images
    if {images.shape[1], channels} != {1, 3}:
        raise ValueError(f"images of {images.shape[1]} channels cannot become images of {channels}")
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    luma = torch.tensor([299, 587, 114], device=images.device).view(1, 3, 1, 1)  # integers: the same on each device
    return ((images.int() * luma).sum(dim=1, keepdim=True) + 500).div(1000, rounding_mode="floor").to(torch.uint8)


def _open(file: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file}: not an .npz file; wanted: {LAYOUT}")
    try:
        with np.load(file, allow_pickle=False) as archive:  # a pickle could run code: it is never read
            return {key: archive[key] for key in archive.files}
    except Exception as error:  # numpy and zipfile have many errors for a damaged file
        pickled = "allow_pickle" in str(error)
        reason = " ".join(str(error).split())
        what = "holds pickled objects, which are never loaded" if pickled else f"a damaged .npz file ({reason})"
        raise ValueError(f"{file}: {what}; wanted: {LAYOUT}") from error


def _names(classes: NDArray[Any], file: Path) -> tuple[str, ...]:
    if classes.ndim != 1 or classes.dtype.kind not in "US":
        raise ValueError(f"{file}: classes are {classes.dtype} of shape {classes.shape}, wanted text (C,)")
    written = np.char.decode(classes, "utf-8", "backslashreplace") if classes.dtype.kind == "S" else classes
    names = tuple(map(plain_name, written.tolist()))
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: the names in classes are not all different")
    return names


def _class_names(labels: Tensor, names: tuple[str, ...] | None, file: str) -> tuple[str, ...]:
    """Return the classes' names, by default the labels themselves; each has a training image."""
    if names is None:
        present = torch.unique(labels)
        gap = (present != torch.arange(len(present))).nonzero()
        if len(gap):
            raise ValueError(
                f"{file}: no image of class {int(gap[0])} although label {int(labels.max())} occurs; wanted labels "
                "0 to the number of classes - 1, each with an image"
            )
        names = tuple(str(label) for label in present.tolist())
    _check_range(labels, names, file)
    if len(names) < 2:
        raise ValueError(f"{file}: one class only, at least 2 are needed")
    for name, count in zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=True):
        if not count:
            raise ValueError(f"{file}: class {quote(name)} has no image")
    return names


def _check_range(labels: Tensor, classes: tuple[str, ...], file: str) -> None:
    if int(labels.max()) >= len(classes):
        raise ValueError(f"{file}: label {int(labels.max())} is out of range, there are {len(classes)} classes")
