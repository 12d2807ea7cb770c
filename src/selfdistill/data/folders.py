"""Folders of images, one folder per class."""

import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from selfdistill.data.decode import IMAGE_SUFFIXES, SMALL, Scan, scan, to_square, to_tensor
from selfdistill.data.fingerprint import file_ids
from selfdistill.data.sets import HELD_OUT_BY_NAME, ImageData, Limits, Split, hold_out
from selfdistill.text import count_of, join_names, plain_name

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
"""What the parts of a set are called, in any case."""

_LIKE_PARTS = {
    part: re.compile(rf"(?<![a-z])({'|'.join(names)})(set|data|images)?(?![a-z])") for part, names in PARTS.items()
}
_NO_IMAGES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}  # systems leave them everywhere
PHOTO_SIZE = 224
LEAST_SIZE = 32  # corruptions and the small networks expect at least this

Files = list[tuple[Path, int]]  # file, label


def load_folder(folder: Path, *, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """Read ``folder/train/<class>/*`` with ``folder/test|val/<class>/*``, or ``folder/<class>/*`` held out 80/20.

    The parts have a name of `PARTS`; val/ beside test/ is for validation, without it for testing. Classes are the
    sorted folder names, composed (NFC); files are found at any depth, in linked folders too; hidden ones are ignored.
    Every file is decoded once. Sets of small images (64 pixels at most) are kept in memory as squares of their common
    size (the median of the longer sides, at least 32; oblong images are squeezed), with ``mean`` and ``std`` left
    empty: to be measured on the training images in use. Of others the paths are kept, with ImageNet's constants.

    Raises:
        ValueError: a missing or empty folder, parts of another name, classes that differ between the two splits, a
            class without an image, a single class, an unreadable file without ``skip_unreadable``.
    """
    train_folder, test_folder, val_folder = _find_folders(folder)
    given = [part for part in (train_folder, test_folder, val_folder) if part is not None]
    folders = [class_folders(part) for part in given]
    names = list(folders[0])
    for part, found_there in zip(given[1:], folders[1:], strict=True):
        check_same(names, list(found_there), train_folder, part)
    limits.check(names, folder)
    classes = names[: limits.classes]
    unread: Counter[str] = Counter()
    parts = [_list(part, classes, unread) for part in folders]

    used = dict(zip(("train", "test", "val"), parts, strict=False))
    place_of = dict(zip(used, given, strict=True))
    return files_data(
        plain_name(folder.resolve().name),
        folder,
        classes,
        used,
        places={part: place.joinpath for part, place in place_of.items()},
        described={part: f"{place.name} folder" for part, place in place_of.items()} if len(used) > 1 else {},
        name_of=lambda path, label: path.relative_to(folders[0][classes[label]]).as_posix(),
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
        notes=tuple(_notes(folder, given, unread)),
    )


def files_data(
    name: str,
    source: Path,
    classes: Sequence[str],
    parts: Mapping[str, Files],
    *,
    places: Mapping[str, Callable[[str], object]],
    described: Mapping[str, str],
    name_of: Callable[[Path, int], str],
    image_size: int | None,
    limits: Limits,
    skip_unreadable: bool,
    notes: tuple[str, ...] = (),
) -> ImageData:
    """Make a set of image files: each is decoded once, and kept in memory if all of them are small.

    Args:
        parts: the files of "train", and of "test" and "val" if they are there; without "test" a share is held out.
        places: of each part, where the images of a class should be, for messages.
        name_of: what a file of some label is called, which decides whether it is held out.
        image_size: as for :func:`load_folder`, like the rest.

    Raises:
        ValueError: a class of a part without a readable image, or an unreadable file without ``skip_unreadable``.
    """
    files = [file for part in parts.values() for file in part]
    paths = [path for path, _ in files]
    found = scan(paths, image_size, max_pixels=limits.max_pixels)
    if found.reasons and not skip_unreadable:
        count = len(found.reasons)
        raise ValueError(
            f"{next(iter(found.reasons.values()))} ({count} unreadable of {len(files)} images in {source}: "
            f"repair or remove {'them' if count > 1 else 'it'}, or pass `skip_unreadable=True`)"
        )
    size, whole = _to_split(files, found, image_size)
    kept = [at for at in range(len(files)) if at not in found.reasons]
    part_of = torch.tensor([number for number, part in enumerate(parts.values()) for _ in part])[kept]
    splits = {part: whole.select((part_of == number).nonzero()[:, 0]) for number, part in enumerate(parts)}
    for part, split in splits.items():
        check_populated(split, classes, places[part])
    if "test" not in splits:
        inside = [plain_name(name_of(*files[at])) for at in kept]
        splits["train"], splits["test"] = hold_out(splits["train"], classes, inside)
    in_memory = whole.images is not None
    data = ImageData(
        name=name,
        train=splits["train"],
        test=splits["test"],
        classes=tuple(classes),
        mean=() if in_memory else IMAGENET_MEAN,
        std=() if in_memory else IMAGENET_STD,
        image_size=size,
        augment="crop_flip" if in_memory else "resized_crop_flip",
        test_split_description=described.get("test", HELD_OUT_BY_NAME),
        skipped=tuple(paths[at] for at in found.reasons),
        train_split_description=described.get("train", ""),
        notes=notes,
        val=splits.get("val"),
        val_split_description=described.get("val", ""),
        from_files=True,
    )
    return limits.apply(data)


def find_parts(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the entries of a folder that are called as one of `PARTS` is: folders, or files with a suffix."""
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        name = entry.name.lower()
        part = next((part for part, names in PARTS.items() if name in {known + suffix for known in names}), None)
        if part is None or not (entry.is_file() if suffix else entry.is_dir()):
            continue
        if part in found:
            raise ValueError(
                f"{folder} has both {found[part].name} and {entry.name}: join them, or move one of the two elsewhere"
            )
        found[part] = entry
    return found


def class_folders(folder: Path) -> dict[str, Path]:
    """Return the class folders in a folder, of which there are at least two, by the classes' sorted names."""
    above = (folder.resolve(), *folder.resolve().parents)
    found: dict[str, Path] = {}
    for entry in _inside(folder):
        if entry.is_dir() and not (entry.is_symlink() and Path(entry).resolve() in above):
            name = plain_name(entry.name)
            if name in found:
                raise ValueError(f"{folder} has two class folders that look alike, {name!r}: join or rename them")
            found[name] = Path(entry)
    if not found:
        raise ValueError(f"{folder} has no class folders: put the images of each class in a folder of its own")
    if len(found) == 1:
        raise ValueError(f"{folder} has one class folder, {next(iter(found))!r}: at least 2 classes are needed")
    _refuse_parts(folder, found)
    return dict(sorted(found.items()))


def _refuse_parts(folder: Path, classes: Mapping[str, Path]) -> None:
    """Refuse seg_train/ and seg_test/, or train_set/ and test_set/, which hold the classes and are none."""
    like: dict[str, str] = {}
    for name, place in classes.items():
        part = next((part for part, pattern in _LIKE_PARTS.items() if pattern.search(name.lower())), None)
        inside = _inside(place) if part is not None else []
        if part is not None and inside and all(entry.is_dir() for entry in inside):
            like.setdefault(part, name)
    if "train" in like and len(like) > 1:
        like = {part: like[part] for part in PARTS if part in like}
        raise ValueError(
            f"{folder} has {join_names(f'{name}/' for name in like.values())}, which hold folders and are not classes: "
            f"call them {join_names(f'{part}/' for part in like)}, with the class folders right inside"
        )


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
    """Return the image files in a folder and its subfolders, sorted, as :func:`find_images` finds them."""
    return find_images(folder, suffixes)[0]


def find_images(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> tuple[list[Path], Counter[str]]:
    """Return the image files in a folder and its subfolders, sorted, and how many other files there are by suffix.

    A file is an image by its suffix; whether it can be read is seen when it is. Linked folders are followed, each
    folder once, but not up. What is hidden is not looked at.
    """
    real = folder.resolve()
    seen = {_identity(above) for above in (real, *real.parents)}
    found, unread = [], Counter[str]()
    for parent, folders, inside in os.walk(folder, followlinks=True):
        new = []
        for path in sorted((Path(parent, f) for f in folders if not _is_hidden(f)), key=lambda f: (f.is_symlink(), f)):
            if (identity := _identity(path)) not in seen:
                seen.add(identity)
                new.append(path.name)
        folders[:] = new
        for file in inside:
            if not _is_hidden(file):
                suffix = Path(file).suffix.lower()
                if suffix in suffixes:
                    found.append(Path(parent, file))
                else:
                    unread[suffix] += 1
    return sorted(found), unread


def unread_note(unread: Counter[str]) -> str:
    """Return what was not read, by suffix.

    Example:
        >>> unread_note(Counter({".txt": 2, "": 1}))
        '2 .txt and 1 file without suffix are not read'
    """
    often = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    counted = [f"{n:,} {suffix}" if suffix else f"{count_of(n, 'file')} without suffix" for suffix, n in often]
    several = len(counted) > 1 or unread.total() > 1
    return f"{join_names(counted)} {'are' if several else 'is'} not read"


def _find_folders(folder: Path) -> tuple[Path, Path | None, Path | None]:
    """Return the folders of the training, test and validation images, or the folder itself and None."""
    parts = find_parts(folder)
    train, test = parts.get("train"), parts.get("test") or parts.get("val")
    if train is None and test is None:
        return folder, None, None
    if test is None:
        wanted = ", ".join(f"{name}/" for part in ("test", "val") for name in PARTS[part])
        raise ValueError(
            f"{folder} has {parts['train'].name}/ but none of {wanted}: add one, or pass {train} to hold out 20 % of it"
        )
    if train is None:
        raise ValueError(f"{folder} has {test.name}/ but no train/")
    return train, test, parts.get("val") if "test" in parts else None


def _notes(folder: Path, parts: Sequence[Path], unread: Counter[str]) -> Iterator[str]:
    """Yield what is there and is not used."""
    if len(parts) > 1:
        others = [f"{entry.name}/" for entry in _inside(folder) if entry.is_dir()]
        others = [other for other in sorted(others) if other not in {f"{part.name}/" for part in parts}]
        if others:
            yield f"{join_names(others)} {'is' if len(others) == 1 else 'are'} not used"
    loose = [entry.name for part in dict.fromkeys((folder, *parts)) for entry in _inside(part) if entry.is_file()]
    unread = unread + Counter(Path(name).suffix.lower() for name in loose)
    if unread:
        yield unread_note(unread)


def _inside(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not _is_hidden(entry.name)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NO_IMAGES


def _identity(folder: Path) -> tuple[int, int]:
    known = folder.stat()
    return known.st_dev, known.st_ino


def _list(folders: dict[str, Path], classes: Sequence[str], unread: Counter[str]) -> Files:
    files: Files = []
    for label, name in enumerate(classes):
        found, others = find_images(folders[name])
        unread += others
        if not found:
            what = f" ({unread_note(others)})" if others else ""
            raise ValueError(f"class {name!r} has no image in {folders[name]}{what}: add images or remove the folder")
        files += [(path, label) for path in found]
    return files


def _to_split(files: Files, found: Scan, image_size: int | None) -> tuple[int, Split]:
    """Return the image size and the readable files, in memory if all of them are small."""
    readable = [at for at in range(len(files)) if at not in found.reasons]
    labels = torch.tensor([files[at][1] for at in readable], dtype=torch.int64)
    paths = tuple(files[at][0] for at in readable)
    small = [image for at in readable if (image := found.small[at]) is not None]
    if not readable or len(small) < len(readable):
        return image_size or PHOTO_SIZE, Split(labels, paths=paths)
    sides = [side for side in found.sizes if side is not None]
    size = image_size or max(LEAST_SIZE, min(SMALL, round(statistics.median(sides))))
    images = to_tensor(to_square(image, size) for image in small)
    return size, Split(labels, images=images, ids=file_ids(paths))


def check_populated(split: Split, classes: Sequence[str], place: Callable[[str], object]) -> None:
    """Refuse a class without an image; ``place`` says where its images should be."""
    counts = torch.bincount(split.labels, minlength=len(classes)).tolist()
    for name, count in zip(classes, counts, strict=True):
        if not count:
            raise ValueError(f"class {name!r} has no readable image in {place(name)}")
