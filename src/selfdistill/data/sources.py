"""``load_data``: one function from what a user names to images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfdistill.data.arrays import load_arrays
from selfdistill.data.folders import load_folder
from selfdistill.data.named import NAMED_SETS, load_named
from selfdistill.data.sets import ImageData, Limits, pixel_statistics
from selfdistill.errors import ArgumentError
from selfdistill.text import join_names, nearest

_SMALLEST = 8  # pixels


def load_data(
    source: str | Path,
    *,
    root: Path = Path("data"),
    image_size: int | None = None,
    classes: int | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    skip_unreadable: bool = False,
) -> ImageData:
    """Load a set of images: a named set, a folder of images, or arrays.

    ============================================  ==================================================================
    ``"digits"``                                  1,797 handwritten digits inside scikit-learn, 32 x 32, 20 % held out
    ``"cifar10"``, ``"cifar100"``, ``"svhn"``     from ``root``, downloaded if needed
    ``"cub200"``                                  birds of 200 species: ``root/CUB_200_2011``, downloaded if needed
    ``"dogs"``, ``"dogs_full"``                   120 breeds, cut to the dog or whole: ``root/dogs``, likewise
    ``"imagenet"``                                ILSVRC2012: ``root/imagenet/train`` and ``val``; not downloaded
    ``DIR`` with train/ and test/ (or val/)       image files, one folder per class in each
    ``DIR`` of class folders                      image files, 20 % of each class held out by the fixed seed 0
    ``DIR`` with train.npz and test.npz (val)     arrays ``images`` uint8 (N, H, W, C) and ``labels`` (N,)
    ``FILE.npz``                                  the same, 20 % of each class held out
    ============================================  ==================================================================

    Small images are kept in memory; files larger than 64 pixels are decoded while training, at 224 pixels. The files of
    a folder are decoded once before, to find the unreadable; those of named sets with ``skip_unreadable`` alone.
    A named set goes before a folder of that name: write ``./cifar10`` for the folder.

    Args:
        source: the set, as above.
        root: where named sets are kept.
        image_size: the side of the square images, at least 8 pixels; None: the set's own.
        classes: use the first so many classes, at least 2.
        per_class: use so many training images of each class, drawn by the fixed seed 0 whatever the run's seed; a
            smaller draw is contained in a larger one.
        test_per_class: so many test images of each class, likewise.
        skip_unreadable: leave unreadable image files out, and list them in ``ImageData.skipped``.

    Raises:
        ValueError: one line on what is wrong with the input, and the remedy.
        RuntimeError: a named set cannot be downloaded.

    Example:
        >>> data = load_data("digits", per_class=10)
        >>> len(data.train), len(data.test), tuple(data.train.images.shape[1:]), data.test_split_description
        (100, 359, (3, 32, 32), '20 % held out, seed 0')
    """
    limits = Limits(classes, per_class, test_per_class)
    if image_size is not None and image_size < _SMALLEST:
        raise ArgumentError("image_size", f"must be at least {_SMALLEST}, not {image_size}")
    path = Path(source).expanduser()
    if str(source) in NAMED_SETS:
        data = load_named(str(source), root=root, image_size=image_size, limits=limits, skip_unreadable=skip_unreadable)
    elif path.is_dir():
        data = _from_folder(path, image_size, limits, skip_unreadable)
    elif path.suffix.lower() == ".npz" and path.is_file():
        data = load_arrays(path, image_size=image_size, limits=limits)
    elif path.is_file():
        raise ValueError(f"{path} is a file, but not an .npz file: pass a folder of images or an .npz file")
    else:
        raise unknown_source("data set", str(source), NAMED_SETS, "a folder or .npz file that exists")
    if data.train.images is not None and not data.mean:
        mean, std = pixel_statistics(data.train.images)
        data = replace(data, mean=mean, std=std)
    return data


def _from_folder(path: Path, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    if (path / "train.npz").exists() and (path / "train").exists():
        raise ValueError(f"{path} has both train.npz and train/: move one of the two elsewhere")
    if any((path / name).is_file() for name in ("train.npz", "test.npz", "val.npz")):
        return load_arrays(path, image_size=image_size, limits=limits)
    return load_folder(path, image_size=image_size, limits=limits, skip_unreadable=skip_unreadable)


def unknown_source(what: str, source: str, known: Sequence[str], files: str) -> ValueError:
    """Make the error for a source that is neither a known set nor on the disk; it names the nearest that is.

    Args:
        what: what was asked for, such as "data set".
        source: as the user wrote it.
        known: the named sets.
        files: which files would do.

    Example:
        >>> print(unknown_source("data set", "digit", ["digits", "svhn"], "a folder that exists"))
        unknown data set 'digit'; did you mean 'digits'?
    """
    path = Path(source).expanduser()
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(source, known)
    if near is None and (file := nearest(path.name, beside)) is not None:
        near = str(path.with_name(file))
    remedy = f"pass {join_names(known, 'or')}, or {files}" if near is None else f"did you mean {near!r}?"
    return ValueError(f"unknown {what} {source!r}; {remedy}")
