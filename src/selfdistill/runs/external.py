"""External pretrained models (torchvision, timm, a checkpoint), and images prepared for them."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from selfdistill.config.train_config import MAX_IMAGE_SIZE
from selfdistill.data import ImageData, load_data
from selfdistill.data.sets import Resizing
from selfdistill.errors import ArgumentError, blaming, check_range
from selfdistill.models import build
from selfdistill.models.build import made_for
from selfdistill.models.function import is_function
from selfdistill.models.pretrained import Pretrained, pretrained
from selfdistill.network import check_classifier


@dataclass(frozen=True)
class ExternalModel:
    """An external model and the images that it is evaluated on.

    Attributes:
        model: in evaluation mode, on the CPU; images ``(B, 3, S, S)`` to logits ``(B, C)``.
        data: the images at the network's size, with the mean and the deviation that it is fed with.
        prepared: how the images are brought to that size and normalised, and how the package itself does it.
    """

    model: nn.Module
    data: ImageData
    prepared: str


def load_external(
    model: str,
    checkpoint: Path | None,
    data: str,
    *,
    data_root: Path,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    width: int | None = None,
    skip_unreadable: bool = False,
    max_pixels: int | None = None,
) -> ExternalModel:
    """Build a network with its weights, and load the images it is measured on: a test part, or all where there is none.

    A folder that has only val/ or test/, as ImageNet's validation images come, is measured on all images of that.

    Position k of the logits is the set's class k (class folders in alphabetical order); a file of weights does not say
    in which order its classes were, so another order shows as an accuracy at chance.

    Args:
        model: ``"torchvision:NAME"``, ``"timm:NAME"``, one of our own networks, or ``"package.module:function"``.
        checkpoint: a file of weights, see `selfdistill.models.weights.load_weights`; None: those of the package,
            or those that the function gives its model.
        data: a data set; see `selfdistill.data.load_data`.
        image_size: S, at least 8 pixels; None: what the package's weights were trained at, 32 for our CIFAR networks,
            the images' own for a function.
        mean: of each channel, in [0, 1]; None: that of the package's weights, for our own networks that of the images.
        std: of each channel, in [1/255, 1]; None: likewise.
        width: of our own networks; see `selfdistill.models.build`.
        max_pixels: image files of more pixels are unreadable.

    Raises:
        ValueError: an unknown network, a file that is missing or does not fit, or another number of classes.
        RuntimeError: the package has no pretrained weights of that name.
        OSError: the weights cannot be read or downloaded.

    Example:
        >>> import tempfile, torch
        >>> weights = build("resnet10_cifar", 10, width=4).state_dict()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "digits.pt"
        ...     torch.save(weights, file)
        ...     external = load_external("resnet10_cifar", file, "digits", data_root=Path("data"), width=4)
        >>> len(external.data.test), external.data.test_split_description
        (1797, 'all images')
        >>> external.prepared
        'whole images as squares of 32 px; normalised by the mean and deviation of digits'
    """
    if checkpoint is not None and not checkpoint.is_file():
        raise ArgumentError(
            "checkpoint", f"is {checkpoint}, which does not exist: name the file with the weights of {model}"
        )
    trained = pretrained(model)
    own = is_function(model)
    if trained is None:
        build(model, 2, width=width)  # an unknown name is refused before images are read
        if checkpoint is None and not own:
            raise ValueError(f"{model} has no pretrained weights: name a file of weights with `checkpoint`")
    check_range("image_size", image_size, 8, MAX_IMAGE_SIZE)
    for name, values in (("mean", mean), ("std", std)):
        _check_constants(name, values, len(values or ()) if own else 3)
    size = image_size or (trained.size if trained is not None else None if own else made_for(model))
    with blaming("data"):
        images = load_data(
            data,
            root=data_root,
            image_size=size,
            skip_unreadable=skip_unreadable,
            max_pixels=max_pixels,
            test_only=True,
            as_they_are=own,
        )
    for name, values in (("mean", mean), ("std", std)):
        _check_constants(name, values, images.channels)
    known = images if trained is None else trained
    resizing = (
        images.resizing if trained is None else Resizing(trained.interpolation, trained.crop_pct, trained.crop_mode)
    )
    images = replace(images, mean=mean or known.mean, std=std or known.std, resizing=resizing)
    if trained is not None and checkpoint is None and trained.classes != len(images.classes):
        raise ValueError(
            f"the pretrained weights of {model} are for {trained.classes} classes, but {images.name} has "
            f"{len(images.classes)}: measure on images of those classes, or give weights with `checkpoint`"
        )
    network = _with_weights(model, checkpoint, images, width).eval()
    shape = (images.channels, images.image_size, images.image_size)
    check_classifier(network, model, shape, len(images.classes))
    return ExternalModel(network, images, _preparation(images, trained, own=not (mean or std)))


def _check_constants(name: str, values: tuple[float, ...] | None, channels: int) -> None:
    least = 0 if name == "mean" else 1 / 255  # a smaller deviation is no deviation of 8-bit pixels
    if values is not None and (len(values) != channels or not all(least <= value <= 1 for value in values)):
        given = ",".join(f"{value:g}" for value in values)
        raise ArgumentError(name, f"must be one value per channel in [0, 1], such as 0.485,0.456,0.406, not {given}")


def _with_weights(model: str, checkpoint: Path | None, images: ImageData, width: int | None) -> nn.Module:
    """Build for the classes of the images; weights for another number of classes are refused."""
    classes = len(images.classes)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="weights .* are for .* classes, not", category=UserWarning)
        try:
            return build(model, classes, width=width, weights="default" if checkpoint is None else checkpoint)
        except ArgumentError as error:  # what is a file of weights there is the checkpoint here
            name = "checkpoint" if error.argument == "weights" else error.argument
            raise ArgumentError(name, error.problem) from None
        except UserWarning as warning:
            found = str(warning).rpartition(f", not {classes}:")[0]
            raise ValueError(
                f"{found}, but {images.name} has {classes}: measure on images of the classes that they were trained on"
            ) from None


def _preparation(images: ImageData, trained: Pretrained | None, own: bool) -> str:
    size = images.image_size
    if images.test.images is not None:
        how = f"whole images as squares of {size} px"
    else:
        cut = "" if images.test.boxes is None else "cut to their boxes, "
        how = f"{cut}{images.resizing.in_words(size)}, {images.resizing.interpolation}"
    tested = "" if trained is None else f"{trained.package} tests with: {trained.tested}"
    if not own:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (images.mean, images.std))
        return f"{how}; normalised by mean {mean} and deviation {std}{tested and '; ' + tested}"
    source = images.name if trained is None else f"{trained.package}'s weights"
    return f"{how}; normalised by the mean and deviation of {source}{tested and ', which ' + tested}"
