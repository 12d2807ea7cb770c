"""CUB-200-2011: 11,788 photographs of 200 species of birds, by the lists that are published with them."""

from pathlib import Path

import torch

from selfdistill.data.decode import check_regular
from selfdistill.data.named.download import Archive, fetched
from selfdistill.data.named.listed import check_inside, check_there, listed_set
from selfdistill.data.sets import ImageData, Limits, Split

# Where the authors publish it; the md5 is the one that public loaders (avalanche, TDeVries/cub2011_dataset) check.
ARCHIVE = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
    11_788,
    inside="CUB_200_2011",
    most_bytes=2 * 10**9,
)

Listed = dict[int, str]  # what a line says after its number


def load_cub200(root: Path, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """Read CUB-200-2011, whole images, with its own split: 5,994 training and 5,794 test images.

    The published folder is looked for as ``root/CUB_200_2011`` and as ``root/cub200``::

        images.txt  image_class_labels.txt  train_test_split.txt  classes.txt  images/001.Black_footed_Albatross/*.jpg

    If there is none, it is unpacked from ``root/CUB_200_2011.tgz``, which is downloaded (1.1 GB) if needed; the md5 of
    the archive is checked. Of a folder that is there, it is checked that every image has a class, a part and a file and
    that every class has images of both parts; not that it is the whole set. The classes are in the order of
    ``classes.txt``, named without the number.

    Args:
        image_size: the side of the square images in pixels; None: 224.
        skip_unreadable: decode every file once, and leave out those that cannot be.

    Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset" (2011).
    """
    folder = next((root / name for name in ("CUB_200_2011", "cub200") if (root / name / "images.txt").is_file()), None)
    if folder is None:
        folder = root / "CUB_200_2011"
        remedy = f"put {ARCHIVE.file} of {ARCHIVE.address}, or the folder {folder.name} in it, into {root}"
        fetched("cub200", ARCHIVE, folder, remedy)
    names, paths = _read(folder / "classes.txt"), _read(folder / "images.txt")
    labels, parts = (_read_of(paths, folder / name) for name in ("image_class_labels.txt", "train_test_split.txt"))
    position = {str(number): at for at, number in enumerate(sorted(names))}
    _check(labels, position, folder / "image_class_labels.txt", "a class of classes.txt")
    _check(parts, {"0": 0, "1": 1}, folder / "train_test_split.txt", "0 (test) or 1 (training)")
    check_inside(paths.values(), folder / "images.txt")
    check_there([folder / "images" / path for path in paths.values()], folder / "images.txt")

    def split(part: str) -> Split:
        chosen = [number for number in paths if parts[number] == part]
        files = tuple(folder / "images" / paths[number] for number in chosen)
        return Split(torch.tensor([position[labels[number]] for number in chosen], dtype=torch.int64), paths=files)

    return listed_set(
        "cub200",
        [names[number].partition(".")[2] or names[number] for number in sorted(names)],
        split("1"),
        split("0"),
        image_size=image_size,
        limits=limits,
        skip_unreadable=skip_unreadable,
    )


def _read(file: Path) -> Listed:
    """Read lines of a number and what it stands for."""
    try:
        check_regular(file)
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or ("no text" if isinstance(error, UnicodeError) else error)
        raise ValueError(f"{file} cannot be read ({reason}): unpack the archive again") from error
    listed = {}
    for at, line in enumerate(lines, start=1):
        number, _, value = line.strip().partition(" ")
        if number.isdecimal() and value:
            listed[int(number)] = value
        elif number:
            raise ValueError(f"{file}, line {at}: {line!r} is not a number and what it stands for: unpack it again")
    return listed


def _read_of(images: Listed, file: Path) -> Listed:
    listed = _read(file)
    missing = [number for number in images if number not in listed]
    if missing:
        raise ValueError(
            f"{file} has no line for image {missing[0]} ({len(missing):,} of {len(images):,} are missing): unpack the "
            "archive again"
        )
    return listed


def _check(listed: Listed, known: dict[str, int], file: Path, wanted: str) -> None:
    for number, value in listed.items():
        if value not in known:
            raise ValueError(f"{file}: image {number} has {value!r}, wanted {wanted}")
