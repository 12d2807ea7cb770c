"""Images given in Python, arrays or a map-style dataset of torch, as a set like any other."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfdistill.data.arrays import join_parts, resize, to_split
from selfdistill.data.sets import ImageData, Split, pixel_statistics
from selfdistill.errors import ArgumentError
from selfdistill.progress import track


def collect_images(
    data: Any,
    test: Any = None,
    val: Any = None,
    *,
    image_size: int | None = None,
    as_they_are: bool = True,
) -> ImageData:
    """Make a set of images that are in memory, or of a dataset, each image of which is read once.

    Images are uint8; of float images, pixel / 255 as torchvision's ``ToTensor`` makes them are taken back to pixels.
    Names of classes are those of the dataset's ``classes``.

    Args:
        data: the training images: a map-style dataset of (image, label), with PIL images, arrays ``(H, W, C)`` or
            tensors ``(C, H, W)``; or a pair of arrays or tensors, images ``(N, H, W, C)``, ``(N, C, H, W)`` or
            ``(N, H, W)`` and labels ``(N,)``. The channels are the shorter of the two axes.
        test: the test images, likewise; None: about 20 % of each class are held out by content.
        val: validation images, likewise; None: none.
        image_size: side of the square images, in pixels; None: their longer side. Oblong ones are squeezed.
        as_they_are: the channels stay; otherwise grey becomes RGB, and images have at least 32 pixels a side.

    Raises:
        ArgumentError: ``data``, ``test`` or ``val`` is something else.

    Example:
        >>> images, labels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), np.arange(20) % 2
        >>> found = collect_images((images, labels))
        >>> found.name, len(found.train) + len(found.test), found.image_size, found.channels
        ('arrays', 20, 8, 1)
    """
    given = {"data": data, "test": test, "val": val}
    parts = {
        "train" if name == "data" else name: (name, f"passed as {name}", partial(read_labelled, name, part))
        for name, part in given.items()
        if part is not None
    }
    with _argument_named():
        found = join_parts(name_of_images(data), parts, image_size, as_they_are)
    assert found.train.images is not None
    mean, std = pixel_statistics(found.train.images)
    return replace(found, mean=mean, std=std)


def name_of_images(data: Any) -> str:
    """Return what a set of images given in Python is called: the type of a dataset, or "arrays"."""
    return "arrays" if isinstance(data, tuple | list) else type(data).__name__


def read_pixels(images: Any, image_size: int | None) -> Split:
    """Return images without labels, an array or a tensor as for `collect_images`; each label is 0."""
    pixels = _last_channels(_as_pixels("images", images))
    with _argument_named():
        return to_split(pixels, np.zeros(len(pixels), np.int64), "images", image_size, as_they_are=True)


def read_labelled(
    argument: str, part: Any, image_size: int | None, as_they_are: bool
) -> tuple[Split, tuple[str, ...] | None]:
    """Read labelled images, see `collect_images`, and the names of their classes if they are said."""
    names = getattr(part, "classes", None)
    if isinstance(part, tuple | list):
        if len(part) != 2:
            raise ArgumentError(argument, f"must be a pair of images and labels, not {len(part)} values")
        images, labels = _last_channels(_as_pixels(argument, part[0])), _as_array(part[1])
    elif hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        images, labels = _read_dataset(argument, part, image_size)
    else:
        raise ArgumentError(
            argument,
            f"is of type {type(part).__name__}: pass a map-style dataset of (image, label), of a DataLoader its "
            "dataset, or a pair of images and labels",
        )
    named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    classes = tuple(names) if names is not None and named else None
    with _argument_named():
        return to_split(images, labels, argument, image_size, as_they_are), classes


@contextmanager
def _argument_named() -> Iterator[None]:
    """Name the argument that stands before the colon in a ValueError inside."""
    try:
        yield
    except ArgumentError:
        raise
    except ValueError as error:
        argument, _, problem = str(error).partition(": ")
        raise ArgumentError(argument, f": {problem}") from None


def _read_dataset(argument: str, dataset: Any, image_size: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read each image and label once."""
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for at in track(range(len(dataset)), "reading the dataset", len(dataset)):
        try:
            image, label = dataset[at]
            labels.append(operator.index(label))
        except (TypeError, ValueError):
            problem = "must give (image, label) with a class index as label"
            raise ArgumentError(argument, f": the dataset {problem}, and item {at} does not") from None
        images.append(_picture(argument, image))
    if not images:
        raise ArgumentError(argument, "has no image")
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        images = _of_one_size(argument, images, image_size)
    return np.stack(images), np.array(labels)


def _of_one_size(argument: str, images: Sequence[NDArray[np.uint8]], image_size: int | None) -> list[NDArray[np.uint8]]:
    if len({image.shape[2] for image in images}) > 1:
        raise ArgumentError(argument, "has images of several numbers of channels: convert them in the dataset")
    if image_size is None:
        raise ArgumentError("image_size", "must be given: the images of the dataset have several sizes")
    return [
        resize(torch.from_numpy(image).permute(2, 0, 1)[None], image_size)[0].permute(1, 2, 0).numpy()
        for image in images
    ]


def _picture(argument: str, image: Any) -> NDArray[np.uint8]:
    """Return one image of a dataset as uint8 ``(H, W, C)``."""
    if isinstance(image, Image.Image):
        return np.atleast_3d(np.array(image if image.mode == "L" else image.convert("RGB")))
    pixels = _as_pixels(argument, image)
    if pixels.ndim == 3 and isinstance(image, Tensor):
        pixels = pixels.transpose(1, 2, 0)
    return np.ascontiguousarray(np.atleast_3d(pixels))


def _as_array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _as_pixels(argument: str, values: Any) -> NDArray[Any]:
    """Return images as an array; floats that are pixel / 255 as pixels."""
    array = _as_array(values)
    if array.dtype.kind != "f":
        return array
    pixels: NDArray[Any] = np.rint(array * 255)
    if array.size and not (pixels.min() >= 0 and pixels.max() <= 255 and np.abs(array * 255 - pixels).max() < 1e-3):
        raise ArgumentError(
            argument,
            "has float images that are not pixel / 255: leave out their normalisation and augmentation, "
            "which a training does itself, or pass uint8",
        )
    return pixels.astype(np.uint8)


def _last_channels(images: NDArray[Any]) -> NDArray[Any]:
    """Bring the channels, the shorter of the two axes, to the end."""
    if images.ndim == 4 and images.shape[1] < images.shape[3]:
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return images
