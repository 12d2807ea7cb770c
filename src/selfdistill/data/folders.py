"""Folders of images, one folder per class."""

import os
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from selfdistill.data.decode import IMAGE_SUFFIXES, SMALL, Scan, scan, to_square, to_tensor
from selfdistill.data.sets import HELD_OUT, ImageData, Limits, Split, hold_out

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEST_FOLDERS = ("test", "val", "valid", "validation")
"""In the order of preference."""

_PHOTO_SIZE = 224
_LEAST_SIZE = 32  # corruptions and the small networks expect at least this

Files = list[tuple[Path, int]]  # file, label


def load_folder(folder: Path, *, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """Read ``folder/train/<class>/*`` with ``folder/test|val/<class>/*``, or ``folder/<class>/*`` held out 80/20.

    Classes are the sorted folder names; files are found at any depth, hidden ones are ignored. Every file is decoded
    once. Sets of small images (64 pixels at most) are kept in memory as squares of their common size (the median of
    the longer sides, at least 32; oblong images are squeezed), with ``mean`` and ``std`` left empty: to be measured on
    the training images in use. Of others the paths are kept, with ImageNet's constants.

    Raises:
        ValueError: a missing or empty folder, classes that differ between the two splits, a class without an image, a
            single class, an unreadable file without ``skip_unreadable``.
    """
    train_folder = folder / "train"
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if train_folder.is_dir() and not tests:
        raise ValueError(
            f"{folder} has train/ but none of {', '.join(f'{name}/' for name in TEST_FOLDERS)}: "
            f"add one, or pass {train_folder} to hold out 20 % of it"
        )
    if tests and not train_folder.is_dir():
        raise ValueError(f"{folder} has {tests[0].name}/ but no train/")
    two = bool(tests)
    names = class_names(train_folder if two else folder)
    if two:
        check_same(names, class_names(tests[0]), train_folder, tests[0])
    limits.check(names, folder)
    classes = names[: limits.classes]
    listed = _list(train_folder if two else folder, classes)
    parts = [listed, _list(tests[0], classes)] if two else [listed]

    files = [file for part in parts for file in part]
    found = scan([path for path, _ in files], image_size)
    if found.reasons and not skip_unreadable:
        count = len(found.reasons)
        raise ValueError(
            f"{next(iter(found.reasons.values()))} ({count} unreadable of {len(files)} images in {folder}: "
            f"repair or remove {'them' if count > 1 else 'it'}, or pass `skip_unreadable=True`)"
        )
    size, whole = _to_split(files, found, image_size)
    kept = [at for at in range(len(files)) if at not in found.reasons]
    boundary = sum(at < len(listed) for at in kept)
    train = whole.select(torch.arange(boundary))
    test = whole.select(torch.arange(boundary, len(kept)))
    for split, where in zip((train, test), (train_folder if two else folder, *tests[:1]), strict=False):
        _check_populated(split, classes, where)
    if not two:
        train, test = hold_out(train, classes, folder)
    in_memory = whole.images is not None
    data = ImageData(
        name=folder.resolve().name,
        train=train,
        test=test,
        classes=tuple(classes),
        mean=() if in_memory else IMAGENET_MEAN,
        std=() if in_memory else IMAGENET_STD,
        image_size=size,
        augment="crop_flip" if in_memory else "resized_crop_flip",
        test_split_description=f"{tests[0].name} folder" if two else HELD_OUT,
        skipped=tuple(files[at][0] for at in found.reasons),
    )
    return limits.apply(data)


def class_names(folder: Path) -> list[str]:
    """Return the sorted names of the class folders in a folder, of which there are at least two.

    Raises:
        ValueError: there are fewer.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"{folder} has no class folders: put the images of each class in a folder of its own")
    if len(names) == 1:
        raise ValueError(f"{folder} has one class folder, {names[0]!r}: at least 2 classes are needed")
    return names


def check_same(train: Sequence[str], test: Sequence[str], train_folder: Path, test_folder: Path) -> None:
    """Refuse class folders that differ between the two parts.

    Raises:
        ValueError: some are in one of the two alone; the first of them are named.
    """
    for more, less, where, missing in (
        (train, test, train_folder, test_folder),
        (test, train, test_folder, train_folder),
    ):
        extra = sorted(set(more) - set(less))
        if extra:
            others = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
            raise ValueError(
                f"class {', '.join(map(repr, extra[:3]))}{others} is in {where} but not in {missing}: "
                "both need the same class folders"
            )


def image_files(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted; hidden ones, and those in hidden folders, are not.

    A file is an image by its suffix; whether it can be read is seen when it is.
    """
    found = []
    for parent, folders, inside in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [
            Path(parent, file) for file in inside if not file.startswith(".") and Path(file).suffix.lower() in suffixes
        ]
    return sorted(found)


def _list(folder: Path, classes: Sequence[str]) -> Files:
    files: Files = []
    for label, name in enumerate(classes):
        found = image_files(folder / name)
        if not found:
            raise ValueError(f"class {name!r} has no image in {folder / name}: add images or remove the folder")
        files += [(path, label) for path in found]
    return files


def _to_split(files: Files, found: Scan, image_size: int | None) -> tuple[int, Split]:
    """Return the image size and the readable files, in memory if all of them are small."""
    readable = [at for at in range(len(files)) if at not in found.reasons]
    labels = torch.tensor([files[at][1] for at in readable], dtype=torch.int64)
    small = [image for at in readable if (image := found.small[at]) is not None]
    if not readable or len(small) < len(readable):
        return image_size or _PHOTO_SIZE, Split(labels, paths=tuple(files[at][0] for at in readable))
    sides = [side for side in found.sizes if side is not None]
    size = image_size or max(_LEAST_SIZE, min(SMALL, round(statistics.median(sides))))
    return size, Split(labels, images=to_tensor(to_square(image, size) for image in small))


def _check_populated(split: Split, classes: Sequence[str], where: Path) -> None:
    counts = torch.bincount(split.labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise ValueError(f"class {name!r} has no readable image in {where / name}")
