"""What a set of images is: a training and a test split, its classes, and how its pixels are normalised."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfdistill.data.fingerprint import Fingerprint, file_ids, hashes, pixel_ids, summarise
from selfdistill.data.packed import CachedImages, ImageFile, Packed
from selfdistill.data.randomness import generator, hash_key
from selfdistill.errors import ArgumentError
from selfdistill.text import plain_name

HELD_OUT = "20 % held out, seed 0"
HELD_OUT_BY_NAME = "about 20 % held out, by file name"
HELD_OUT_BY_CONTENT = "about 20 % held out, by content"
HELD_OUT_BY_HASH = (HELD_OUT_BY_NAME, HELD_OUT_BY_CONTENT)
VAL_FRACTION = 0.2
"""Held out for validation where a search needs some and nothing else is asked for."""

_TEST_SHARE = 0.2
_SPLIT, _TRAIN, _TEST = range(3)  # streams of the fixed seed 0
_TENSORS = ("labels", "images", "boxes", "ids")  # of a split
_MEASURED = 50_000  # images that the mean and the standard deviation are measured on, at most


@dataclass(frozen=True)
class Split:
    """Labelled images, in memory or as files.

    Attributes:
        labels: int64 ``(N,)``, class indices.
        images: uint8 ``(N, C, S, S)``, or None; C is 3 but for models of one's own.
        paths: ``N`` image files, or images in containers, or None; exactly one of the two is given.
        boxes: of each file the rectangle that is its image, integers ``(N, 4)``: left, top, right and bottom in pixels
            of the picture as it is stored, right and bottom not included; None: all of it.
        cache: the files decoded and resized already, ``N`` too; used where that changes no pixel. None: they are
            decoded each time.
        ids: int64 ``(N, 2)``, what says which image each is: hashes of its name and of its content, see
            :mod:`selfdistill.data.fingerprint`. None: they are found from the images or the files.

    Raises:
        ValueError: not exactly one of images and paths is given, the lengths differ, or boxes are not of that shape.

    Example:
        >>> split = Split(torch.tensor([0, 1]), images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
        >>> len(split), split.select(torch.tensor([1])).labels.tolist()
        (2, [1])
    """

    labels: Tensor
    images: Tensor | None = None
    paths: tuple[Path, ...] | Packed | None = None
    boxes: Tensor | None = None
    cache: CachedImages | None = None
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        given = [part for part in (self.images, self.paths) if part is not None]
        if len(given) != 1:
            raise ValueError(f"a Split holds either images or paths, {len(given)} of the two were given")
        if len(given[0]) != len(self.labels):
            raise ValueError(f"a Split has one label per image, not {len(self.labels)} for {len(given[0])}")
        if self.boxes is not None and (self.paths is None or self.boxes.shape != (len(self), 4)):
            raise ValueError(f"boxes are (N, 4) and belong to paths, not {tuple(self.boxes.shape)} for {len(self)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_small(self) -> bool:
        """Whether the images are squares from the start: in memory, or small ones in containers."""
        return self.images is not None or (isinstance(self.paths, Packed) and self.paths.small)

    def identify(self) -> Tensor:
        """Return the ids ``(N, 2)``; where they are not given, of the images or the files with their boxes."""
        if self.ids is not None:
            return self.ids
        if self.images is not None:
            return pixel_ids(self.images)
        assert isinstance(self.paths, tuple)  # packed images come with their ids
        return file_ids(self.paths, None if self.boxes is None else [str(box) for box in self.boxes.tolist()])

    def select(self, index: Tensor) -> "Split":
        """Return the images at the positions ``index`` ``(n,)``, in that order."""
        of_each: dict[str, Any] = {
            name: None if (all := getattr(self, name)) is None else all[index] for name in _TENSORS
        }
        paths = self.paths
        if paths is not None:
            paths = tuple(paths[i] for i in index.tolist()) if isinstance(paths, tuple) else paths.select(index)
        return replace(self, **of_each, paths=paths, cache=None if self.cache is None else self.cache.select(index))

    def join(self, other: "Split") -> "Split":
        """Return these images and behind them others of the same set, without their cache."""
        pairs = {name: [getattr(part, name) for part in (self, other)] for name in _TENSORS if name != "ids"}
        joined: dict[str, Any] = {name: None if of[0] is None else torch.cat(of) for name, of in pairs.items()}
        paths: Any = self.paths
        paths = None if paths is None else paths + other.paths
        return Split(**joined, paths=paths, ids=torch.cat((self.identify(), other.identify())))

    def spaced(self, most: int) -> "Split":
        """Return at most ``most`` images, evenly spaced, so that a set sorted by class keeps its classes.

        Example:
            >>> Split(torch.arange(10), images=torch.zeros(10, 3, 4, 4, dtype=torch.uint8)).spaced(4).labels.tolist()
            [0, 2, 5, 7]
        """
        return self if len(self) <= most else self.select(spaced_positions(len(self), most))


@dataclass(frozen=True)
class Resizing:
    """How an image file becomes the square that is tested: resized to S / crop_pct, then the central square.

    Images in memory are squares already.

    Attributes:
        interpolation: ``"bilinear"`` or ``"bicubic"``, antialiased; of augmented training images too.
        crop_pct: in (0, 1]; 224 / 256 as usual with ImageNet.
        crop_mode: ``"center"``: the shorter side is resized to that; ``"squash"``: both sides are.

    Raises:
        ArgumentError: another ``crop_mode``, such as timm's ``"border"``.
    """

    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        if self.crop_mode not in ("center", "squash"):
            raise ArgumentError("crop_mode", f"must be center or squash, not {self.crop_mode}, as these weights say")

    def margin(self, size: int) -> int:
        """Return the shorter side that a square of ``size`` is cut from, in pixels.

        Example:
            >>> Resizing().margin(224), Resizing().margin(299), Resizing(crop_pct=1.0).margin(384)
            (256, 342, 384)
        """
        return round(size / self.crop_pct)

    def shorter_side(self, size: int) -> int | None:
        """Return what the shorter side of a file is resized to, in pixels; None where the file's shape is changed."""
        return self.margin(size) if self.crop_mode == "center" else None

    def in_words(self, size: int) -> str:
        """Say how a file becomes a square of ``size``, but for the interpolation.

        Example:
            >>> Resizing().in_words(224)
            'shorter side to 256 px, central square of 224 px'
        """
        sides = "shorter side" if self.crop_mode == "center" else "both sides"
        return f"{sides} to {self.margin(size)} px, central square of {size} px"


BILINEAR = Resizing()


@dataclass(frozen=True)
class ImageData:
    """A set of images, ready to train on and to be scored on.

    Attributes:
        name: what the user asked for: a named set, or the path's last part.
        train: the training images.
        test: the images that are scored.
        classes: the classes' names; a label is a position here.
        mean: a channel's mean, in [0, 1].
        std: a channel's standard deviation.
        image_size: the side S of the square images that a model sees, in pixels.
        augment: this set's default, one of ``augment.AUGMENTS``.
        test_split_description: what the test images are, such as ``"test folder"`` or ``"20 % held out, seed 0"``.
        skipped: unreadable files that were left out.
        train_split_description: which part the training images are, such as ``"train folder"``; empty: what is left.
        notes: what a user should know of the files before a training, such as ``"3 .txt are not read"``.
        val: the images that decide what is kept and when to stop, if there are any; never the test images.
        val_split_description: what they are, such as ``"val folder"``.
        resizing: how files are brought to the size.
        from_files: whether they are image files, of which small ones are squares from the start.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    augment: str
    test_split_description: str
    skipped: tuple[ImageFile, ...] = ()
    train_split_description: str = ""
    notes: tuple[str, ...] = ()
    val: Split | None = None
    val_split_description: str = ""
    resizing: Resizing = BILINEAR
    from_files: bool = False

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What says which images these are; wherever their files lie."""
        splits = {"train": self.train, "test": self.test} | ({} if self.val is None else {"val": self.val})
        parts = {part: (split.labels, split.identify()) for part, split in splits.items()}
        return summarise(self.classes, parts, self.test_split_description)

    @property
    def channels(self) -> int:
        """How many channels a model sees."""
        return len(self.mean)

    @property
    def is_held_out(self) -> bool:
        """Whether the test images are a share of a set that has no test part."""
        return self.test_split_description in (HELD_OUT, *HELD_OUT_BY_HASH)


@dataclass(frozen=True)
class Limits:
    """A part of a set: the first classes, and a number of images of each, drawn by the fixed seed 0.

    A smaller draw is contained in a larger one (the 100 images per class are among the 300), whatever the run's seed.

    Args:
        classes: keep the first so many classes, at least 2; None keeps all.
        per_class: training images of each class, at least 1; None keeps all.
        test_per_class: test images of each class, likewise.
        max_pixels: files of more pixels are unreadable, see :func:`~selfdistill.data.decode.read_rgb`.

    Raises:
        ValueError: a number is too small, or (in ``apply``) larger than what the set has.
    """

    classes: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("classes", 2), ("per_class", 1), ("test_per_class", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ArgumentError(name, f"must be at least {least}, not {value}")

    def check(self, classes: Sequence[str], where: str | Path) -> None:
        """Refuse more classes than there are."""
        if self.classes is not None and self.classes > len(classes):
            raise ArgumentError("classes", f"is {self.classes}, but {where} has {len(classes)} classes")

    def apply(self, data: ImageData) -> ImageData:
        """Return the part of ``data``."""
        self.check(data.classes, data.name)
        classes = data.classes[: self.classes]
        train = _draw(data.train, classes, self.per_class, "per_class", data.name, _TRAIN)
        test = _draw(data.test, classes, self.test_per_class, "test_per_class", data.name, _TEST)
        val = None if data.val is None else _draw(data.val, classes, None, "", data.name, _TEST)
        return replace(data, train=train, test=test, val=val, classes=classes)


def spaced_positions(n: int, most: int) -> Tensor:
    """Return at most ``most`` of the positions 0 to n - 1, int64, evenly spaced from 0 on.

    Example:
        >>> spaced_positions(10, 4).tolist(), spaced_positions(3, 4).tolist()
        ([0, 2, 5, 7], [0, 1, 2])
    """
    count = min(n, most)
    return torch.arange(count) * n // count


def hold_out(split: Split, classes: Sequence[str], names: Sequence[str] | None = None) -> tuple[Split, Split]:
    """Cut 20 % of each class off as the test split; at least one image on each side, if there are two.

    By the fixed seed 0, of a set that never changes; or by a hash of each image's name alone, about 20 %, so that an
    image that is added or removed moves no other one between the parts (unless all others of its class are on one
    side).

    Args:
        names: what each image is called, such as its path in its class's folder, or what it holds; None: the set never
            changes.

    Example:
        >>> labels = torch.tensor([0] * 10 + [1] * 5)
        >>> data = Split(labels, images=torch.zeros(15, 3, 4, 4, dtype=torch.uint8))
        >>> train, test = hold_out(data, ["cat", "dog"])
        >>> train.labels.bincount().tolist(), test.labels.bincount().tolist()
        ([8, 4], [2, 1])
    """
    train, test = [], []
    for label, name in enumerate(classes):
        if names is None:
            members = _shuffled(split, label, _SPLIT)
            count = round(_TEST_SHARE * len(members))
        else:
            place = {at: _place(f"{name}/{names[at]}") for at in (split.labels == label).nonzero()[:, 0].tolist()}
            members = torch.tensor(sorted(place, key=place.__getitem__), dtype=torch.int64)
            count = sum(value < _TEST_SHARE for value in place.values())
        count = min(max(1, count), len(members) - 1)
        test.append(members[:count])
        train.append(members[count:])
    return split.select(torch.cat(train).sort().values), split.select(torch.cat(test).sort().values)


def hold_out_validation(data: ImageData, fraction: float) -> ImageData:
    """Take about a fraction of each class's training images for validation; at least one stays on each side.

    By a hash of each file's path in its class's folder; of images in memory, of their names and contents: an image that
    is added moves no other one. Where neither is known it is the position.

    Args:
        fraction: in (0, 1).

    Raises:
        ArgumentError: there are validation images already, or a class has a single training image.

    Example:
        >>> labels = torch.arange(200) % 2
        >>> split = Split(labels, images=torch.zeros(200, 3, 4, 4, dtype=torch.uint8))
        >>> data = ImageData("grey", split, split, ("cat", "dog"), (0.5,) * 3, (1.0,) * 3, 4, "none", "test folder")
        >>> parts = hold_out_validation(data, 0.1)
        >>> len(parts.train) + len(parts.val), 10 < len(parts.val) < 30
        (200, True)
    """
    if data.val is not None:
        raise ArgumentError("val_fraction", f"would be ignored: {data.name} has a {data.val_split_description}")
    train, val = [], []
    for label, name in enumerate(data.classes):
        members = (data.train.labels == label).nonzero()[:, 0].tolist()
        if len(members) < 2:
            raise ArgumentError("val_fraction", f"needs 2 training images of each class, and {name!r} has 1")
        place = {at: _place(f"validation/{name}/{_name_of(data.train, at, name)}") for at in members}
        members.sort(key=place.__getitem__)
        count = min(max(1, sum(value < fraction for value in place.values())), len(members) - 1)
        val += members[:count]
        train += members[count:]
    parts = [data.train.select(torch.tensor(sorted(part), dtype=torch.int64)) for part in (train, val)]
    described = f"about {fraction:.0%} of the training images"
    return replace(data, train=parts[0], val=parts[1], val_split_description=described)


def train_on_validation(data: ImageData) -> ImageData:
    """Put the validation images behind the training images: for a last training, once nothing is to be chosen.

    Example:
        >>> split = Split(torch.arange(4) % 2, images=torch.zeros(4, 3, 4, 4, dtype=torch.uint8))
        >>> data = ImageData("grey", split, split, ("cat", "dog"), (0.5,) * 3, (1.0,) * 3, 4, "none", "", val=split)
        >>> whole = train_on_validation(data)
        >>> len(whole.train), whole.val
        (8, None)
    """
    if data.val is None:
        raise ArgumentError("train_on_val", f"needs validation images: {data.name} has none")
    train = data.train.join(data.val)
    described = f"{data.train_split_description or 'training images'} and {data.val_split_description}"
    return replace(data, train=train, val=None, val_split_description="", train_split_description=described)


def without_test(data: ImageData) -> ImageData:
    """Return images whose validation part stands in for the test part, so that nothing can be chosen by the latter."""
    assert data.val is not None
    return replace(data, test=data.val, test_split_description=data.val_split_description or "validation images")


def names_by_content(split: Split) -> list[str]:
    """Return a name of each image in memory, of what it holds: for `hold_out`."""
    assert split.images is not None
    ids = split.identify()[:, 1]
    contents = ids if ids.any() else hashes(split.images.numpy())  # of very many images the ids say nothing
    return list(map(str, contents.tolist()))


def _name_of(split: Split, at: int, label: str) -> str:
    if isinstance(split.paths, tuple):
        parts = [plain_name(part) for part in split.paths[at].parts]
        return "/".join(parts[len(parts) - parts[::-1].index(label) :]) if label in parts[:-1] else parts[-1]
    known = [0, 0] if split.ids is None else split.ids[at].tolist()
    return "/".join(map(str, known)) if any(known) else str(at)


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the channels' mean and standard deviation, in [0, 1], of uint8 images ``(N, C, H, W)``.

    Over at most 50,000 images, evenly spaced. The standard deviation is at least 1/255, so that constant images can be
    normalised.

    Example:
        >>> pixel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
        ((0.5,), (0.5,))
    """
    images = images[:: -(-len(images) // _MEASURED)]
    total = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for chunk in torch.split(images, 1000):  # exact: sums of integers below 2**53
        pixels = chunk.double()
        total += torch.stack((pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))))
    mean, square = total / (images.numel() // images.shape[1])
    std = (square - mean.square()).clamp(min=1).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _place(name: str) -> float:
    """Return a number in [0, 1) that a name alone decides."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64


def _shuffled(split: Split, label: int, stream: int) -> Tensor:
    members = (split.labels == label).nonzero()[:, 0]
    return members[torch.randperm(len(members), generator=generator(hash_key(0, stream, label)))]


def _draw(split: Split, classes: Sequence[str], count: int | None, argument: str, where: str, stream: int) -> Split:
    if count is None:
        kept = split.labels < len(classes)
        return split if bool(kept.all()) else split.select(kept.nonzero()[:, 0])
    drawn = []
    for label, name in enumerate(classes):
        members = _shuffled(split, label, stream)
        if len(members) < count:
            raise ArgumentError(argument, f"is {count}, but class {name!r} of {where} has {len(members)} such images")
        drawn.append(members[:count])
    return split.select(torch.cat(drawn).sort().values)
