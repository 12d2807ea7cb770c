"""``load_data``: one function from what a user names to images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from selfdistill.data.arrays import load_arrays
from selfdistill.data.folders import find_parts, load_folder
from selfdistill.data.listings import TABLES, holds_shards, load_hub, load_shards, load_table
from selfdistill.data.named import NAMED_SETS, load_named
from selfdistill.data.sets import ImageData, Limits, pixel_statistics
from selfdistill.errors import ArgumentError
from selfdistill.text import join_names, nearest, plain_name

_SMALLEST = 8  # pixels
_LISTINGS = ("wds", "hf")


def load_data(
    source: str | Path,
    *,
    root: Path = Path("data"),
    image_size: int | None = None,
    classes: int | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    skip_unreadable: bool = False,
    max_pixels: int | None = None,
    test_only: bool = False,
    as_they_are: bool = False,
) -> ImageData:
    """Load a set of images: a named set, a folder of images, or arrays.

    ============================================  ==================================================================
    ``"digits"``                                  1,797 handwritten digits inside scikit-learn, 32 x 32, 20 % held out
    ``"cifar10"``, ``"cifar100"``, ``"svhn"``     from ``root``, downloaded if needed
    ``"cub200"``                                  birds of 200 species: ``root/CUB_200_2011``, downloaded if needed
    ``"dogs"``, ``"dogs_full"``                   120 breeds, cut to the dog or whole: ``root/dogs``, likewise
    ``"imagenet"``                                ILSVRC2012: ``root/imagenet/train`` and ``val``; not downloaded
    ``DIR`` with train/ and test/ (or val/)       image files, one folder per class in each
    ``DIR`` of class folders                      image files, about 20 % of each class held out by file name
    ``DIR`` with train.npz and test.npz (val)     arrays ``images`` uint8 (N, H, W, C) and ``labels`` (N,)
    ``FILE.npz``                                  the same, about 20 % of each class held out by content
    ``FILE.csv``, ``FILE.parquet``                image files: columns path, label and, if wanted, split (train, ...)
    ``DIR`` of .tar files, ``wds:DIR``            WebDataset shards, train-*.tar and test-*.tar (or val-*.tar)
    ``wds:DIR/train-{000..009}.tar``              the same, as many as the numbers say
    ``hf:DIR``, ``hf:NAME[:CONFIG]``              a dataset of Hugging Face, from ``save_to_disk`` or the hub
    ============================================  ==================================================================

    Small images are kept in memory, but for those of shards and of Hugging Face; files larger than 64 pixels are
    decoded while training, at 224 pixels. The files of a folder or a table are decoded once before, to find the
    unreadable; those of other sets with ``skip_unreadable`` alone.
    A named set goes before a folder of that name: write ``./cifar10`` for the folder. Parts may be called train or
    training, test or testing, val, valid or validation, in any case.

    Args:
        source: the set, as above.
        root: where named sets are kept; it must exist unless it is below the working directory.
        image_size: the side of the square images, at least 8 pixels; None: the set's own.
        classes: use the first so many classes, at least 2.
        per_class: use so many training images of each class, drawn by the fixed seed 0 whatever the run's seed; a
            smaller draw is contained in a larger one.
        test_per_class: so many test images of each class, likewise.
        skip_unreadable: leave unreadable image files out, and list them in ``ImageData.skipped``.
        max_pixels: image files of more pixels are unreadable (default: `decode.MAX_PIXELS`).
        test_only: only the test images are wanted: of a set without such, or with one part alone, those are all images.
        as_they_are: arrays keep their channels, any number, and sides below 32; otherwise grey becomes RGB.

    Raises:
        ValueError: one line on what is wrong with the input, and the remedy.
        RuntimeError: a named set cannot be downloaded.

    Example:
        >>> data = load_data("digits", per_class=10)
        >>> len(data.train), len(data.test), tuple(data.train.images.shape[1:]), data.test_split_description
        (100, 359, (3, 32, 32), '20 % held out, seed 0')
    """
    limits = Limits(classes, per_class, test_per_class, max_pixels)
    if image_size is not None and image_size < _SMALLEST:
        raise ArgumentError("image_size", f"must be at least {_SMALLEST}, not {image_size}")
    path = Path(source).expanduser()
    if str(source) in NAMED_SETS:
        check_root(root)
        data = load_named(str(source), root=root, image_size=image_size, limits=limits, skip_unreadable=skip_unreadable)
    elif (listed := _listing(str(source), root)) is not None:
        load, where = listed
        data = load(where, image_size=image_size, limits=limits, skip_unreadable=skip_unreadable)
    elif path.is_dir():
        data = _from_folder(path, image_size, limits, skip_unreadable, test_only, as_they_are)
    elif path.suffix.lower() == ".npz" and path.is_file():
        data = load_arrays(path, image_size=image_size, limits=limits, as_they_are=as_they_are)
    elif path.is_file():
        raise ValueError(f"{path} is a file, but not .npz, .csv or .parquet: pass such a file or a folder of images")
    else:
        raise unknown_source("data set", str(source), NAMED_SETS, "a folder, .npz or .csv file that exists")
    data = _all_images(data) if test_only and data.is_held_out else data
    if data.is_held_out:
        _check_test(data, path)
    if data.train.images is not None and not data.mean:
        mean, std = pixel_statistics(data.train.images)
        data = replace(data, mean=mean, std=std)
    return data


def _listing(source: str, root: Path) -> tuple[Callable[..., ImageData], Any] | None:
    """Return what loads a source that is listed, and what of it names the list; None for others."""
    kind, _, where = source.partition(":")
    path = Path(source).expanduser()
    if kind == "wds" or (path.is_dir() and holds_shards(path)):
        check_root(root)
        return partial(load_shards, cache=root / "cache"), where if kind == "wds" else source
    if kind == "hf":
        return load_hub, where
    return (load_table, path) if path.suffix.lower() in TABLES and path.is_file() else None


def absolute_source(source: str) -> str | None:
    """Return where images are, whatever the working directory will be; None for a named set, and where they are not."""
    kind, _, where = source.partition(":")
    if kind not in _LISTINGS:
        path = Path(source).expanduser()
        return str(path.absolute()) if source not in NAMED_SETS and path.exists() else None
    path = Path(where).expanduser()
    there = path.parent if "{" in path.name else path
    return f"{kind}:{path.absolute()}" if there.exists() else None


def check_root(root: Path) -> None:
    """Refuse a folder for data sets that would have to be made elsewhere than below the working directory.

    It may stand in a recipe that somebody else wrote.
    """
    if not root.is_dir() and (root.is_absolute() or ".." in root.parts):
        raise ArgumentError("data_root", f"is {root}, which does not exist: make that folder first")


def _from_folder(
    path: Path, image_size: int | None, limits: Limits, skip_unreadable: bool, test_only: bool, as_they_are: bool
) -> ImageData:
    arrays, folders = find_parts(path, ".npz"), find_parts(path)
    if "train" in arrays and "train" in folders:
        raise ValueError(
            f"{path} has both {arrays['train'].name} and {folders['train'].name}/: move one of the two elsewhere"
        )
    parts, name = arrays or folders, plain_name(path.resolve().name)
    if test_only and parts and not ("train" in parts and len(parts) > 1):
        path = parts.get("test") or parts.get("val") or parts["train"]
    if arrays:
        data = load_arrays(path, image_size=image_size, limits=limits, as_they_are=as_they_are)
    else:
        data = load_folder(path, image_size=image_size, limits=limits, skip_unreadable=skip_unreadable)
    return replace(data, name=name)


def _all_images(data: ImageData) -> ImageData:
    """Return a set whose test part is everything."""
    test = data.train.join(data.test)
    return replace(data, test=test, test_split_description="all images")


def _check_test(data: ImageData, where: Path) -> None:
    """Refuse a class of which no image could be held out."""
    counts = data.test.labels.bincount(minlength=len(data.classes)).tolist()
    for name, count in zip(data.classes, counts, strict=True):
        if not count:
            raise ValueError(
                f"{where}: class {name!r} has 1 of the at least 2 images needed to hold some out: add images, or make "
                "train and test folders"
            )


def unknown_source(what: str, source: str, known: Sequence[str], files: str) -> ValueError:
    """Make the error for a source that is neither a known set nor on the disk; it names the nearest that is.

    Args:
        what: what was asked for, such as "data set".

    Example:
        >>> print(unknown_source("data set", "digit", ["digits", "svhn"], "a folder that exists"))
        unknown data set 'digit'; did you mean 'digits'?
    """
    path = Path(source).expanduser()
    if path.exists() and not path.is_dir() and not path.is_file():
        return ValueError(f"{source} is neither a folder nor a regular file")
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(source, known)
    if near is None and (file := nearest(path.name, beside)) is not None:
        near = str(path.with_name(file))
    remedy = f"pass {join_names(known, 'or')}, or {files}" if near is None else f"did you mean {near!r}?"
    return ValueError(f"unknown {what} {source!r}; {remedy}")
