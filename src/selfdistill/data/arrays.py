"""Arrays: ``train.npz`` and ``test.npz`` (or ``val.npz``), or one file of which a part is held out."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfdistill.data.fingerprint import pixel_ids
from selfdistill.data.folders import find_parts
from selfdistill.data.sets import HELD_OUT, ImageData, Limits, Split, hold_out
from selfdistill.text import plain_name, quote

LAYOUT = "images uint8 (N, H, W, 3), labels integers (N,) and, if wanted, classes (C,) text"
_LEAST_SIZE = 32  # corruptions and the small networks expect at least this


def load_arrays(source: Path, *, image_size: int | None, limits: Limits) -> ImageData:
    """Read ``source/train.npz`` with ``source/test.npz`` or ``val.npz``, or the file ``source``, held out 80/20.

    A file holds ``images`` uint8 ``(N, H, W, C)`` with C 1 or 3, or ``(N, H, W)``; ``labels``, integers ``(N,)``; and
    optionally ``classes``, the names. Grey becomes RGB. The images are kept in memory as squares of ``image_size``,
    by default of their longer side, at least 32 (antialiased bilinear; oblong images are squeezed). Nothing is ever
    unpickled. ``mean`` and ``std`` are left empty: to be measured on the training images in use.

    Raises:
        ValueError: a file is missing or is not of that layout; one line that names it.
    """
    train_description, val, val_description = "", None, ""
    if source.is_file():
        everything, names = read_npz(source, image_size)
        classes = _class_names(everything.labels, names, source)
        train, test = hold_out(everything, classes)
        description, test_file = HELD_OUT, source
    else:
        parts = find_parts(source, ".npz")
        test_part = parts.get("test") or parts.get("val")
        if "train" not in parts or test_part is None:
            missing = "test.npz (or val.npz)" if "train" in parts else "train.npz"
            raise ValueError(f"{source} has no {missing}: add it, or pass one .npz file to hold out 20 % of it")
        test_file, description, train_description = test_part, test_part.name, parts["train"].name
        train, names = read_npz(parts["train"], image_size)
        classes = _class_names(train.labels, names, parts["train"])
        assert train.images is not None
        size = image_size or train.images.shape[-1]
        test = _read_like(test_file, size, classes, names, parts["train"])
        if len(parts) == 3:
            val_description = parts["val"].name
            val = _read_like(parts["val"], size, classes, names, parts["train"])
    _check_range(test.labels, classes, test_file)
    assert train.images is not None
    data = ImageData(
        name=plain_name(source.stem if source.is_file() else source.resolve().name),
        train=train,
        test=test,
        classes=classes,
        mean=(),
        std=(),
        image_size=train.images.shape[-1],
        augment="crop_flip",
        test_split_description=description,
        train_split_description=train_description,
        val=val,
        val_split_description=val_description,
    )
    return limits.apply(data)


def _read_like(
    file: Path, size: int, classes: tuple[str, ...], names: tuple[str, ...] | None, train_file: Path
) -> Split:
    """Read a part whose classes are those of the training file."""
    split, own = read_npz(file, size)
    if own is not None and names is not None and own != names:
        raise ValueError(f"{file}: its classes differ from those of {train_file}")
    _check_range(split.labels, classes, file)
    return split


def read_npz(file: Path, image_size: int | None) -> tuple[Split, tuple[str, ...] | None]:
    """Read one file: its images as uint8 ``(N, 3, S, S)`` with their labels, and the class names if it has any.

    Raises:
        ValueError: the file is damaged or not of the layout.
    """
    arrays = _open(file)
    for key in ("images", "labels"):
        if not isinstance(arrays.get(key), np.ndarray):  # a member that is not an array arrives as bytes
            raise ValueError(f"{file}: no array {key!r}, it has {quote(sorted(arrays))}; wanted: {LAYOUT}")
    images, labels = arrays["images"], arrays["labels"]
    shape = images.shape
    if images.dtype != np.uint8:
        raise ValueError(f"{file}: images are {images.dtype}, wanted uint8 with values 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in shape:
        hint = "; transpose (0, 2, 3, 1)" if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise ValueError(f"{file}: images have shape {shape}, wanted (N, H, W, 3), (N, H, W, 1) or (N, H, W){hint}")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{file}: labels are {labels.dtype} of shape {labels.shape}, wanted integers (N,)")
    if len(labels) != len(images):
        raise ValueError(f"{file}: {len(images)} images but {len(labels)} labels")
    if int(labels.min()) < 0 or int(labels.max()) >= 2**31:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise ValueError(f"{file}: label {wrong} is out of range, wanted 0 to the number of classes - 1")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    size = image_size or max(_LEAST_SIZE, *images.shape[1:3])
    # A resized image depends a little on the machine: what is written in the file says which image it is.
    ids = None if pixels.shape[-2:] == (size, size) else pixel_ids(torch.from_numpy(images))
    split = Split(torch.from_numpy(labels.astype(np.int64)), images=resize(pixels, size), ids=ids)
    return split, _names(arrays["classes"], file) if "classes" in arrays else None


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


def _class_names(labels: Tensor, names: tuple[str, ...] | None, file: Path) -> tuple[str, ...]:
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


def _check_range(labels: Tensor, classes: tuple[str, ...], file: Path) -> None:
    if int(labels.max()) >= len(classes):
        raise ValueError(f"{file}: label {int(labels.max())} is out of range, there are {len(classes)} classes")
