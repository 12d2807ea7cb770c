"""Published sets of photographs: files that are listed, and decoded while training and not before."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

import torch

from selfdistill.data.decode import SMALL, scan, to_tensor
from selfdistill.data.folders import IMAGENET_MEAN, IMAGENET_STD
from selfdistill.data.packed import ImageFile
from selfdistill.data.sets import ImageData, Limits, Split

SIZE = 224
"""Pixels a side, as the paper has them."""


def listed_set(
    name: str,
    classes: Sequence[str],
    train: Split,
    test: Split,
    *,
    image_size: int | None,
    limits: Limits,
    skip_unreadable: bool,
) -> ImageData:
    """Make a set of listed files, at 224 pixels, normalised by ImageNet's constants.

    No file is opened: a damaged one ends a run with a line that names it. ``skip_unreadable`` decodes every file once
    instead, and leaves those out. At 64 pixels and below the images in use are decoded at once, and kept in memory as
    squares, as those of a folder are.

    Args:
        image_size: the side of the square images in pixels; None: 224.
        skip_unreadable: as above.

    Raises:
        ValueError: a class without an image, a part that the set does not have, or a file that cannot be read.
    """
    size = image_size or SIZE
    data = ImageData(
        name=name,
        train=train,
        test=test,
        classes=tuple(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        image_size=size,
        augment="resized_crop_flip",
        test_split_description="test set",
    )
    if skip_unreadable:
        data = _readable(data, limits)
    _check_populated(data)
    data = limits.apply(data)
    return data if size > SMALL else _in_memory(data, limits)


def check_inside(listed: Iterable[object], names: Path) -> None:
    """Refuse a list, ``names``, that names files elsewhere than below a folder."""
    for name in listed:
        path = PurePosixPath(str(name))
        if not isinstance(name, str | PurePath) or path.is_absolute() or ".." in path.parts or "\0" in str(name):
            raise ValueError(f"{names} lists {str(name)[:80]!r}, which is not a file inside the set: get it again")


def check_there(paths: Sequence[Path], names: Path, remedy: str = "unpack the archive again") -> None:
    """Refuse a list, ``names``, of files that are not there; each folder is read once."""
    folders = {path.parent for path in paths}
    inside = {folder: {file.name for file in folder.iterdir()} if folder.is_dir() else set() for folder in folders}
    absent = [path for path in paths if path.name not in inside[path.parent]]
    if absent:
        raise ValueError(
            f"{names} lists {len(paths):,} files, of which {len(absent):,} are missing, such as {absent[0]}: {remedy}"
        )


def _readable(data: ImageData, limits: Limits) -> ImageData:
    """The set without the files that cannot be decoded."""
    skipped: list[ImageFile] = []

    def kept(split: Split) -> Split:
        assert split.paths is not None
        reasons = scan(split.paths, SIZE, split.boxes, limits.max_pixels).reasons
        skipped.extend(split.paths[at] for at in reasons)
        return split.select(torch.tensor([at for at in range(len(split)) if at not in reasons], dtype=torch.int64))

    return replace(data, train=kept(data.train), test=kept(data.test), skipped=tuple(skipped))


def _in_memory(data: ImageData, limits: Limits) -> ImageData:
    def decoded(split: Split) -> Split:
        assert split.paths is not None
        found = scan(split.paths, data.image_size, split.boxes, limits.max_pixels)
        if found.reasons:
            first, count = next(iter(found.reasons.values())), len(found.reasons)
            raise ValueError(
                f"{first} ({count} unreadable of {len(split)} images of {data.name}: repair or replace "
                f"{'them' if count > 1 else 'it'}, or pass `skip_unreadable=True`)"
            )
        images = to_tensor(image for image in found.small if image is not None)
        return replace(split, images=images, paths=None, boxes=None, ids=split.identify())

    return replace(data, train=decoded(data.train), test=decoded(data.test), augment="crop_flip")


def _check_populated(data: ImageData) -> None:
    for what, split in (("training", data.train), ("test", data.test)):
        counts = torch.bincount(split.labels, minlength=len(data.classes)).tolist()
        for name, count in zip(data.classes, counts, strict=True):
            if not count:
                raise ValueError(f"class {name!r} of {data.name} has no {what} image")
