"""Faster R-CNN with a feature pyramid on a ResNet that was trained before, or was not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from selfdistill.detect.config import DetectConfig
from selfdistill.errors import ArgumentError, blaming
from selfdistill.models import build
from selfdistill.records import RunRecord
from selfdistill.training.export import description, load_run

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGER = 1333 / 800
"""The longer side of an image is at most so many times the shorter side that is wanted."""

_PACKAGE = "torchvision:"


@dataclass(frozen=True)
class Backbone:
    """What a detector starts from.

    Attributes:
        model: torchvision's name, such as ``"resnet50"``.
        state: the classifier's ``state_dict`` without its ``fc``; None starts at random.
        mean: per channel, of the images that it was trained on: the detector's images are normalised alike.
        std: per channel.
        source: what a record says of it: ``weights``; of a run also ``run``, ``method``, ``seed``, ``epochs``, ``data``
            and ``top1``.
    """

    model: str
    state: dict[str, Tensor] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: dict[str, Any]


class Pyramid(nn.Module):
    """torchvision's ``BackboneWithFPN``, name for name, in half precision where it is asked for.

    What comes after it stays in float32: autocast around the whole detector would give boxes and anchors bfloat16's
    eight bits, in which a pixel's place beyond the 256th is off by one or more.

    Args:
        layers: from ``resnet_fpn_backbone``.
        half: run under autocast to bfloat16.
    """

    def __init__(self, layers: nn.Module, *, half: bool):
        super().__init__()
        self.body, self.fpn, self.out_channels, self.mixed = layers.body, layers.fpn, layers.out_channels, half

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps ``(B, 256, H / s, W / s)`` of strides s = 4, 8, 16, 32 and 64."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            maps: dict[str, Tensor] = self.fpn(self.body(images))  # type: ignore[operator]
        return {name: value.float() for name, value in maps.items()}


def load_backbone(recipe: DetectConfig) -> Backbone:
    """Load the network that a recipe names.

    Raises:
        ValueError: neither ``backbone`` nor ``model`` is given, there is no such run, or it has no ResNet of
            torchvision's.
        OSError: pretrained weights cannot be downloaded.
    """
    if recipe.backbone is not None:
        if recipe.weights != "none":
            raise ArgumentError("weights", "belongs to `model` alone: with `backbone` the weights are the run's")
        with blaming("backbone"):
            return _backbone_of_run(Path(recipe.backbone).expanduser())
    if recipe.model is None:
        raise ArgumentError("backbone", "or `model` must be given, such as `model=resnet50`: the network that detects")
    with blaming("model"):
        _check_model(recipe.model, recipe.model)
    state = None
    if recipe.weights == "default":
        classes = len(models.get_model_weights(recipe.model).DEFAULT.meta["categories"])
        state = _without_head(build(_PACKAGE + recipe.model, classes, weights="default"))
    source = {"weights": "from scratch" if state is None else "torchvision's default"}
    return Backbone(recipe.model, state, IMAGENET_MEAN, IMAGENET_STD, source)


def build_detector(backbone: Backbone, recipe: DetectConfig, classes: int) -> FasterRCNN:
    """Build the detector; what has no trained weights is drawn from torch's generator.

    Images enter as they are, in [0, 1]; the detector normalises and resizes them, and its boxes are in their pixels.

    Args:
        classes: logits, the background's (0) included; 91 for COCO's ids.
    """
    layers = resnet_fpn_backbone(
        backbone_name=backbone.model,
        weights=None,
        # Its eps is BatchNorm's own, 1e-5: the 0 that torchvision sets elsewhere is for older weights of its own.
        norm_layer=FrozenBatchNorm2d if recipe.norm == "frozen" else nn.BatchNorm2d,
        trainable_layers=recipe.trainable_layers,
    )
    if backbone.state is not None:
        layers.body.load_state_dict(backbone.state)
    return FasterRCNN(
        Pyramid(layers, half=recipe.precision == "bf16-mixed"),
        classes,
        min_size=recipe.image_size,
        max_size=round(recipe.image_size * LONGER),
        image_mean=list(backbone.mean),
        image_std=list(backbone.std),
        box_batch_size_per_image=recipe.rois,
    )


def _backbone_of_run(run: Path) -> Backbone:
    name = str(description(run)["model"])
    model = name.removeprefix(_PACKAGE)
    _check_model(model, f"{run} is a {name}")
    loaded = load_run(run)
    source: dict[str, Any] = {"weights": "of a run", "run": run.resolve().name}
    if (run / "result.json").is_file():
        record = RunRecord.load(run / "result.json")
        source |= {
            "method": record.method,
            "seed": record.seed,
            "epochs": record.epochs,
            "data": record.data.name,
            "top1": record.evaluation.top1,
        }
    return Backbone(model, _without_head(loaded.model), loaded.mean, loaded.std, source)


def _check_model(model: str, where: str) -> None:
    known = models.list_models(module=models, include=("resnet*", "resnext*", "wide_resnet*"))
    if model not in known:
        raise ValueError(f"{where}: a detector's backbone is a ResNet of torchvision's, {', '.join(known)}")


def _without_head(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
