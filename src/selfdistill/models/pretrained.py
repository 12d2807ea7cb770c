"""What a package says of its pretrained weights: their classes, and the images that they were trained on."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from selfdistill.text import first_line

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


@dataclass(frozen=True)
class Pretrained:
    """The pretrained weights of a model of torchvision or timm.

    Attributes:
        package: ``"torchvision"`` or ``"timm"``.
        classes: how many classes they tell apart.
        size: side of the square images that they were trained on, in pixels.
        fixed_size: whether the model takes no images of another size.
        mean: per channel, in [0, 1]; an input is ``(pixels / 255 - mean) / std``.
        std: per channel.
        interpolation: with which images were resized, ``"bilinear"`` or ``"bicubic"``.
        crop_pct: side of the tested square over the shorter side of the image that it is cut from, at most 1.
        crop_mode: ``"center"``, or another of timm's: ``"squash"`` changes an image's shape, ``"border"`` frames it.
        tested: how the package prepares images where it publishes an accuracy.
    """

    package: str
    classes: int
    size: int
    fixed_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    tested: str


SOURCES = ("hf-hub:", "local-dir:")
"""What weights begin with that timm finds: a repository of the Hugging Face hub, or a folder of the same form."""


def pretrained(model: str | None, weights: str = "default") -> Pretrained | None:
    """Return what the package says of a model's weights; None for our own networks and for a name it does not know.

    Args:
        model: ``"torchvision:NAME"`` or ``"timm:NAME"``.
        weights: ``"hf-hub:NAME"`` or ``"local-dir:DIR"``, which say it themselves; whatever else is the package's.

    Example:
        >>> known = pretrained("torchvision:resnet18")
        >>> known.classes, known.size, known.fixed_size, known.mean
        (1000, 224, False, (0.485, 0.456, 0.406))
        >>> pretrained("timm:vit_tiny_patch16_384").size, pretrained("resnet18_cifar")
        (384, None)
    """
    if weights.startswith(SOURCES):
        cfg, _ = timm_config(weights)
        return _of_cfg(cfg)
    package, _, name = (model or "").partition(":")
    if package == "torchvision":
        return _of_torchvision(name)
    return _of_timm(name) if package == "timm" else None


def _of_torchvision(name: str) -> Pretrained | None:
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    how = weights.transforms()
    (size,), (side,) = how.crop_size, how.resize_size
    return Pretrained(
        "torchvision",
        len(weights.meta["categories"]),
        size,
        name.startswith(("vit_", "maxvit")),
        tuple(how.mean),
        tuple(how.std),
        how.interpolation.value,
        min(size / side, 1.0),
        "center",
        f"shorter side to {side} px, central square of {size} px, {how.interpolation.value}",
    )


def _of_timm(name: str) -> Pretrained | None:
    from timm.models import get_pretrained_cfg

    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError:  # the architecture is known, the tag is not
        return None
    return None if cfg is None else _of_cfg(cfg)


@cache  # a recipe is resolved for each run, and the hub is asked each time
def timm_config(weights: str) -> tuple["PretrainedCfg", str]:
    """Return what ``config.json`` beside such weights says, and the architecture.

    Args:
        weights: ``"hf-hub:NAME"`` or ``"local-dir:DIR"``.

    Raises:
        OSError: it is not there, cannot be downloaded, or is not of timm's form.
    """
    from timm.models import PretrainedCfg
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    source, _, name = weights.partition(":")
    try:
        read = load_model_config_from_hf if source == "hf-hub" else load_model_config_from_path
        values, architecture, _ = read(name)
    except Exception as error:  # each of the hub's transports has errors of its own
        raise OSError(f"weights {weights!r} cannot be found ({first_line(error)})") from error
    return PretrainedCfg(**values), architecture


def _of_cfg(cfg: "PretrainedCfg") -> Pretrained:
    side, crop = cfg.input_size[-1], cfg.crop_pct
    if cfg.test_input_size is not None:
        side, crop = cfg.test_input_size[-1], cfg.test_crop_pct or crop
    tested = f"{side} px, crop_pct {crop:g}, crop_mode {cfg.crop_mode}, {cfg.interpolation}"
    return Pretrained(
        "timm",
        cfg.num_classes,
        cfg.input_size[-1],
        bool(cfg.fixed_input_size),
        tuple(cfg.mean),
        tuple(cfg.std),
        cfg.interpolation,
        min(cfg.crop_pct, 1.0),
        cfg.crop_mode,
        tested,
    )
