"""What listed sets have in common: the names of classes and parts, and images that are read where they lie."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfdistill.data.decode import SMALL, scan
from selfdistill.data.folders import IMAGENET_MEAN, IMAGENET_STD, LEAST_SIZE, PARTS, PHOTO_SIZE, check_populated
from selfdistill.data.packed import Packed, PackedImage
from selfdistill.data.sets import HELD_OUT_BY_NAME, ImageData, Limits, Split, hold_out, spaced_positions

_LOOKED_AT = 64  # images that decide whether a set is one of small images
_LARGE = SMALL + 1  # a size of which a scan keeps no image


def class_order(labels: Iterable[str]) -> list[str]:
    """Return the names of classes in order: as numbers if all of them are, otherwise by name.

    Example:
        >>> class_order(["10", "9"]), class_order(["dog", "cat", "9"])
        (['9', '10'], ['9', 'cat', 'dog'])
    """
    labels = list(labels)
    numbers = all(label.isascii() and label.isdigit() and len(label) < 19 for label in labels)
    return sorted(labels, key=lambda label: (int(label) if numbers else 0, label))


def part_of(name: str) -> str | None:
    """Return which of the `PARTS` a name means; None: none of them.

    Example:
        >>> part_of("Validation"), part_of("extra")
        ('val', None)
    """
    return next((part for part, names in PARTS.items() if name.strip().lower() in names), None)


def packed_data(
    name: str,
    images: Packed,
    *,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    part_of: NDArray[np.int64],
    ids: Tensor,
    source: str,
    unit: str,
    image_size: int | None,
    limits: Limits,
    skip_unreadable: bool,
    ordered: bool = False,
    notes: tuple[str, ...] = (),
) -> ImageData:
    """Make a set of packed images, which are decoded while training and never kept in memory.

    Args:
        labels: ``(N,)``, positions in ``classes``.
        part_of: of each image its part, a position in `PARTS`; without test images a share is held out.
        ids: of the images, see :mod:`selfdistill.data.fingerprint`.
        unit: what the images of a part lie in, for descriptions.
        image_size: None: 224, or of small images the median of some of their longer sides.
        skip_unreadable: decode every image once, and leave out those that cannot be.
        ordered: the classes stay in their order; otherwise they are sorted.

    Raises:
        ValueError: a single class, a class of a part without an image, or an image that cannot be read.
    """
    names = list(classes) if ordered else class_order(classes)
    if len(names) < 2:
        raise ValueError(f"{source} has one class, {names[0]!r}: at least 2 are needed")
    limits.check(names, source)
    label_of = {one: at for at, one in enumerate(names)}
    images.small, size = _size(images, image_size, limits)
    split = Split(
        torch.tensor([label_of[one] for one in classes])[torch.from_numpy(labels.copy())], paths=images, ids=ids
    )
    parts = torch.from_numpy(part_of)
    wanted = split.labels < (limits.classes or len(names))
    skipped: tuple[PackedImage, ...] = ()
    if skip_unreadable:
        reasons = scan(images, _LARGE, max_pixels=limits.max_pixels).reasons
        wanted[list(reasons)] = False
        skipped = tuple(images[at] for at in reasons)
    found = {
        part: split.select(((parts == number) & wanted).nonzero()[:, 0])
        for number, part in enumerate(PARTS)
        if bool((parts == number).any())
    }
    for part, one in found.items():
        check_populated(one, names[: limits.classes], lambda _, part=part: f"the {part} images of {source}")  # type: ignore[misc]
    described = {part: f"{part} {unit}" for part in found} if len(found) > 1 else {}
    if "test" not in found:
        found["train"], found["test"] = hold_out(found["train"], names[: limits.classes], _names_of(found["train"]))
    data = ImageData(
        name=name,
        train=found["train"],
        test=found["test"],
        classes=tuple(names),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        image_size=size,
        augment="crop_flip" if images.small else "resized_crop_flip",
        test_split_description=described.get("test", HELD_OUT_BY_NAME),
        skipped=skipped,
        train_split_description=described.get("train", ""),
        notes=notes,
        val=found.get("val"),
        val_split_description=described.get("val", ""),
        from_files=True,
    )
    return limits.apply(data)


def _names_of(split: Split) -> list[str]:
    """Return the images' names; where several have the same, with their sizes."""
    ids = split.identify().tolist()
    count = Counter(name for name, _ in ids)
    return [str(name) if count[name] == 1 else f"{name}/{size}" for name, size in ids]


def _size(images: Packed, image_size: int | None, limits: Limits) -> tuple[bool, int]:
    """Return whether images are small, by some of them if need be, and the size that they are brought to."""
    if image_size is not None:
        return image_size <= SMALL, image_size
    some = [images[at] for at in spaced_positions(len(images), _LOOKED_AT).tolist()]
    found = [side for side in scan(some, _LARGE, max_pixels=limits.max_pixels).sizes if side is not None]
    side = round(statistics.median(found)) if found else PHOTO_SIZE
    return (True, max(LEAST_SIZE, side)) if side <= SMALL else (False, PHOTO_SIZE)
