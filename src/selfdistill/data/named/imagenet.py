"""ImageNet as of 2012 (ILSVRC2012): the 1,000 classes, with the folders that torchvision and everybody else keep."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from selfdistill.data.decode import IMAGE_SUFFIXES, check_regular
from selfdistill.data.folders import check_same, class_folders
from selfdistill.data.named.listed import listed_set
from selfdistill.data.sets import ImageData, Limits, Split
from selfdistill.text import first_line

_LISTED_AT_ONCE = 8  # folders; a network's file system answers each slowly
_DEVKIT = "ILSVRC2012_devkit_t12"
_FLAT = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)

Files = list[tuple[Path, int]]  # file, label


@dataclass(frozen=True)
class _Meta:
    """What is known beside the images: a class's names by its WordNet id, and the ids of the validation images."""

    names: dict[str, str]
    validation: tuple[str, ...]


def load_imagenet(root: Path, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """List ImageNet: 1,281,167 training images, and as test set the 50,000 validation images.

    Looked for are ``root/imagenet/train/<wnid>/*.JPEG`` and ``root/imagenet/val/<wnid>/*.JPEG``, where ``<wnid>`` is a
    WordNet id such as n01440764. With torchvision's ``root/imagenet/meta.bin``, or the unpacked folder
    ``ILSVRC2012_devkit_t12`` there, the classes have readable names (the first of each, with the id where two classes
    share it), otherwise their ids are the names; and the validation images may lie in ``val/`` as they are published,
    ``ILSVRC2012_val_00000001.JPEG`` and on. The classes are the sorted ids in either case.

    The folders are listed, eight at a time; no file is opened, and a damaged one ends a run with a line that names it.
    (A folder that is passed as such, ``data="root/imagenet"``, has every file decoded once before the run.) It is
    checked that both parts have the same classes and that each has images; not how many. The set is not downloaded: an
    account at image-net.org is needed.

    Args:
        image_size: the side of the square images in pixels; None: 224.
        limits: the part that is wanted; of the first so many classes the folders alone are listed.
        skip_unreadable: decode every file once, and leave out those that cannot be.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (2015).
    """
    home = root / "imagenet"
    train, val = home / "train", home / "val"
    if not train.is_dir() or not val.is_dir():
        missing = " and ".join(str(folder) for folder in (train, val) if not folder.is_dir())
        raise RuntimeError(
            f"imagenet is not in {home} (no {missing}), and needs an account to be downloaded: get "
            "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org, and unpack them to "
            f"{train}/<wnid>/*.JPEG and {val}/<wnid>/*.JPEG"
        )
    wnids = list(class_folders(train))
    limits.check(wnids, home)
    meta, chosen = _meta(home), wnids[: limits.classes]
    flat = not _has_folders(val)
    if not flat:
        check_same(wnids, list(class_folders(val)), train, val)
    return listed_set(
        "imagenet",
        _readable_names(wnids, {} if meta is None else meta.names)[: len(chosen)],
        _to_split(_in_class_folders(train, chosen)),
        _to_split(_in_one_folder(val, chosen, meta) if flat else _in_class_folders(val, chosen)),
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
    )


def _in_class_folders(folder: Path, wnids: Sequence[str]) -> Files:
    parents = [folder / wnid for wnid in wnids]
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        found = pool.map(_images, parents)
        return [
            (parent / name, at) for at, (parent, names) in enumerate(zip(parents, found, strict=True)) for name in names
        ]


def _in_one_folder(folder: Path, wnids: Sequence[str], meta: _Meta | None) -> Files:
    """The validation images as they are published, without one folder per class: the list says which is which."""
    if meta is None:
        raise ValueError(
            f"{folder} has no class folders: put torchvision's meta.bin, or the folder {_DEVKIT} (unpacked), into "
            f"{folder.parent}, or move the images to {folder}/<wnid>/"
        )
    label = {wnid: at for at, wnid in enumerate(wnids)}
    files: Files = []
    for name in _images(folder):
        match = _FLAT.fullmatch(name)
        if match is None or not 1 <= int(match[1]) <= len(meta.validation):
            raise ValueError(
                f"{folder / name} is not among the {len(meta.validation):,} validation images of ImageNet "
                "(ILSVRC2012_val_00000001.JPEG and on): move it elsewhere"
            )
        wnid = meta.validation[int(match[1]) - 1]
        if wnid in label:
            files.append((folder / name, label[wnid]))
    return files


def _images(folder: Path) -> list[str]:
    """The image files in a folder, sorted; a name says enough, and to ask for more takes a file system its time."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return sorted(name for name in names if f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES)


def _has_folders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _to_split(files: Files) -> Split:
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return Split(labels, paths=tuple(path for path, _ in files))


def _readable_names(wnids: Sequence[str], names: dict[str, str]) -> list[str]:
    readable = [names.get(wnid, wnid) for wnid in wnids]
    often = Counter(readable)  # "crane" is a bird and a machine
    return [f"{name} ({wnid})" if often[name] > 1 else name for name, wnid in zip(readable, wnids, strict=True)]


def _meta(home: Path) -> _Meta | None:
    for file, read in ((home / "meta.bin", _from_torchvision), (home / _DEVKIT / "data", _from_devkit)):
        if file.exists():
            try:
                return read(file)
            except Exception as error:  # torch and scipy have many errors for a damaged file
                raise ValueError(f"{file} cannot be read ({first_line(error)}): replace or remove it") from error
    return None


def _from_torchvision(file: Path) -> _Meta:
    check_regular(file)
    names, validation = torch.load(file, weights_only=True)
    return _Meta({wnid: first for wnid, (first, *_) in names.items()}, tuple(validation))


def _from_devkit(folder: Path) -> _Meta:
    """Read the development kit; of its synsets those without children are the classes."""
    from scipy.io import loadmat

    synsets = loadmat(folder / "meta.mat")["synsets"].ravel()
    leaves = [synset for synset in synsets if not synset["num_children"].item()]
    wnid = {int(leaf["ILSVRC2012_ID"].item()): str(leaf["WNID"].item()) for leaf in leaves}
    names = {str(leaf["WNID"].item()): str(leaf["words"].item()).split(", ")[0] for leaf in leaves}
    numbers = (folder / "ILSVRC2012_validation_ground_truth.txt").read_text(encoding="ascii").split()
    return _Meta(names, tuple(wnid[int(number)] for number in numbers))
