"""Stanford Dogs: 20,580 photographs of 120 breeds, cut to the box of the dog as they were for the paper, or whole."""

import xml.etree.ElementTree as ET
from pathlib import Path

import torch

from selfdistill.data.decode import check_regular
from selfdistill.data.named.download import Archive, fetched
from selfdistill.data.named.listed import check_inside, check_there, listed_set
from selfdistill.data.sets import ImageData, Limits, Split

# Where the authors publish it; public loaders that check an md5 check these.
_ADDRESS = "http://vision.stanford.edu/aditya86/ImageNetDogs"
ARCHIVES = {
    "Images": Archive(
        f"{_ADDRESS}/images.tar",
        "images.tar",
        "1bb1f2a596ae7057f99d7d75860002ef",
        20_580,
        inside="Images",
        most_bytes=10**9,
    ),
    "Annotation": Archive(
        f"{_ADDRESS}/annotation.tar", "annotation.tar", "4298cc0031f6bc6e74612ac83b5988e2", 0, inside="Annotation"
    ),
    "lists": Archive(f"{_ADDRESS}/lists.tar", "lists.tar", "edbb9f16854ec66506b5f09b583e0656", 0),
}

Box = tuple[int, int, int, int]


def load_dogs(root: Path, image_size: int | None, limits: Limits, skip_unreadable: bool, *, cropped: bool) -> ImageData:
    """Read Stanford Dogs, cut to the annotated box or whole, with its own split: 12,000 training and 8,580 test images.

    The paper does not say that the images were cut; its code reads a copy of the set that was. That copy was stored as
    JPEG files once more; here the box is cut out of the published file. Of an image with several dogs the first box is
    taken. A box (xmin, ymin, xmax, ymax) is left, top, right and bottom as in
    :class:`~selfdistill.data.sets.Split`, xmax and ymax not included. Images that such a network is to predict are not
    cut by anybody: they should show the dog alone too.

    The published files are looked for as ``root/dogs/``::

        Images/n02085620-Chihuahua/*.jpg  Annotation/n02085620-Chihuahua/*  lists/{train,test}_list.mat

    (the lists also beside the folders). What is not there is unpacked from ``root/dogs/images.tar`` (or
    ``annotation.tar``, ``lists.tar``), which is downloaded (0.8 GB in all) if needed; the md5 of the archives is
    checked. Of what is there, it is checked that every listed image has a file, and a box if it is to be cut, and that
    every class has images of both parts; not that it is the whole set. The classes are the sorted folders, named
    without the number.

    Args:
        image_size: the side of the square images in pixels; None: 224.
        skip_unreadable: decode every file once, and leave out those that cannot be.
        cropped: cut the images to their boxes: ``"dogs"``; otherwise ``"dogs_full"``.

    Source: Khosla et al., "Novel Dataset for Fine-Grained Image Categorization" (2011).
    """
    home = root / "dogs"
    images = _obtained(home, "Images")
    lists = home if (home / "train_list.mat").is_file() else _obtained(home, "lists")
    train, test = (_listed(lists / f"{part}_list.mat") for part in ("train", "test"))
    folders = sorted({file.parent.name for file in (*train, *test)})
    position = {folder: at for at, folder in enumerate(folders)}
    annotation = _obtained(home, "Annotation") if cropped else None

    def split(files: list[Path], name: str) -> Split:
        paths = tuple(images / file for file in files)
        check_there(paths, lists / name)
        labels = torch.tensor([position[file.parent.name] for file in files], dtype=torch.int64)
        if annotation is None:
            return Split(labels, paths=paths)
        boxes = [_box(annotation / file.with_suffix("")) for file in files]
        return Split(labels, paths=paths, boxes=torch.tensor(boxes, dtype=torch.int32))

    return listed_set(
        "dogs" if cropped else "dogs_full",
        [folder.partition("-")[2] or folder for folder in folders],
        split(train, "train_list.mat"),
        split(test, "test_list.mat"),
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
    )


def _obtained(home: Path, part: str) -> Path:
    """Return a folder of the set, unpacked and downloaded if needed."""
    folder, archive = home / part, ARCHIVES[part]
    if not folder.is_dir():
        files = ", ".join(known.file for known in ARCHIVES.values())
        remedy = f"put {files} of {_ADDRESS}, or Images/, Annotation/ and the lists from them, into {home}"
        fetched(f"dogs ({archive.file})", archive, folder, remedy)
    return folder


def _listed(file: Path) -> list[Path]:
    """Read the files that a list names, as ``n02085620-Chihuahua/n02085620_5927.jpg``."""
    from scipy.io import loadmat

    try:
        check_regular(file)
        with file.open("rb") as content:
            listed = [entry.item() for entry in loadmat(content)["file_list"].ravel()]
    except Exception as error:  # scipy has many errors for a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} is not a list of files ({reason}): unpack {ARCHIVES['lists'].file} again") from error
    check_inside(listed, file)
    return [Path(name) for name in listed]


def _box(file: Path) -> Box:
    """Read the first box of an annotation."""
    try:
        check_regular(file)
        known = ET.parse(file)
        left, top, right, bottom = (
            int(known.findtext(f"object/bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
        )
    except (OSError, ET.ParseError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file} gives no box ({reason}): unpack annotation.tar again, or take dogs_full") from error
    return left, top, right, bottom
