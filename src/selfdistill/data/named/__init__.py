"""Named sets: scikit-learn's digits, CIFAR-10, CIFAR-100 and SVHN by torchvision, and sets of photographs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfdistill.data.arrays import LAYOUT, load_arrays, resize
from selfdistill.data.fingerprint import pixel_ids
from selfdistill.data.named.cub200 import load_cub200
from selfdistill.data.named.dogs import load_dogs
from selfdistill.data.named.download import torchvision_set
from selfdistill.data.named.imagenet import load_imagenet
from selfdistill.data.sets import HELD_OUT, ImageData, Limits, Split, hold_out


@dataclass(frozen=True)
class _Published:
    torchvision: str  # the class that downloads and checks it
    holds: str  # what that class reads, below the root
    augment: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def load_named(
    name: str, *, root: Path, image_size: int | None, limits: Limits, skip_unreadable: bool = False
) -> ImageData:
    """Load a set of ``NAMED_SETS``.

    Photographs: see ``load_cub200``, ``load_dogs`` and ``load_imagenet``. Of the others ``root/name/train.npz`` and
    ``test.npz`` are used if they exist (see ``load_arrays``); otherwise torchvision reads the published files below
    ``root``, after downloading and checking them.
    """
    return _LOADERS[name](root, image_size, limits, skip_unreadable)


def _load_published(
    root: Path, image_size: int | None, limits: Limits, skip_unreadable: bool, *, name: str, published: _Published
) -> ImageData:
    folder = root / name
    if (folder / "train.npz").is_file() or (folder / "test.npz").is_file():
        data = load_arrays(folder, image_size=image_size, limits=limits)
    else:
        data = limits.apply(_download(name, published, root, image_size))
    return replace(data, name=name, mean=published.mean, std=published.std, augment=published.augment)


def _load_digits(root: Path, image_size: int | None, limits: Limits, skip_unreadable: bool) -> ImageData:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 with values 0 to 16, as 32 x 32 RGB (bilinear)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    size = image_size or 32
    images = resize(grey[:, None].expand(-1, 3, -1, -1), size)
    classes = tuple(map(str, range(10)))
    split = Split(torch.from_numpy(bunch.target).long(), images=images, ids=pixel_ids(grey))
    train, test = hold_out(split, classes)  # by the fixed seed: these images stay as they are, and so do old records
    data = ImageData("digits", train, test, classes, (), (), size, augment="crop", test_split_description=HELD_OUT)
    return limits.apply(data)


def _download(name: str, published: _Published, root: Path, image_size: int | None) -> ImageData:
    from torchvision import datasets

    kind = getattr(datasets, published.torchvision)
    try:
        if name == "svhn":
            parts = [torchvision_set(kind, root, split=split) for split in ("train", "test")]
        else:
            parts = [torchvision_set(kind, root, train=train) for train in (True, False)]
    except Exception as error:  # no network, no space, a damaged archive: each layer has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(
            f"{name} is not in {root} and could not be downloaded ({reason}): put {published.holds} into {root}, or "
            f"train.npz and test.npz ({LAYOUT}) into {root / name}"
        ) from error
    train, test = (_split(part, name, image_size or 32) for part in parts)
    classes = tuple(map(str, range(10))) if name == "svhn" else tuple(parts[0].classes)
    size = image_size or 32
    return ImageData(
        name, train, test, classes, (), (), size, augment=published.augment, test_split_description="test set"
    )


def _split(part: Any, name: str, size: int) -> Split:
    """Return a torchvision set's arrays; SVHN's are (N, 3, 32, 32) already, and its labels have another name."""
    pixels = torch.from_numpy(np.asarray(part.data))
    images = pixels if name == "svhn" else pixels.permute(0, 3, 1, 2)
    labels = torch.as_tensor(np.asarray(part.labels if name == "svhn" else part.targets))
    ids = None if images.shape[-1] == size else pixel_ids(images)
    return Split(labels.long(), images=resize(images, size), ids=ids)


# The paper's code normalises CIFAR-100 by CIFAR-10's constants; so do most baselines.
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_TORCHVISION = {
    "cifar10": _Published("CIFAR10", "cifar-10-batches-py/", "crop_flip", *_CIFAR),
    "cifar100": _Published("CIFAR100", "cifar-100-python/", "crop_flip", *_CIFAR),
    "svhn": _Published("SVHN", "train_32x32.mat and test_32x32.mat", "crop"),  # a mirrored digit is not a digit
}
_LOADERS: dict[str, Callable[[Path, int | None, Limits, bool], ImageData]] = {
    "digits": _load_digits,
    **{name: partial(_load_published, name=name, published=published) for name, published in _TORCHVISION.items()},
    "cub200": load_cub200,
    "dogs": partial(load_dogs, cropped=True),
    "dogs_full": partial(load_dogs, cropped=False),
    "imagenet": load_imagenet,
}
NAMED_SETS = tuple(_LOADERS)
"""The names that `load_data` knows."""
