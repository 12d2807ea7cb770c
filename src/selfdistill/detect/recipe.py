"""The recipe of a detector: one frozen dataclass that says everything about its training, and its YAML. No torch."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from selfdistill.detect.schedule import drops_of
from selfdistill.errors import ArgumentError
from selfdistill.train.recipe_file import YamlRecipe

EPOCHS = {"1x": 12, "0.5x": 7}

PER_IMAGE = 0.02 / 16
"""The usual learning rate, 0.02, is for 16 images a step; it is scaled in proportion."""


@dataclass(frozen=True)
class DetectRecipe(YamlRecipe):
    """Everything that decides the training of a detector; the defaults are the usual 1x recipe on COCO.

    Attributes:
        data: folder of COCO's layout: train2017/, val2017/, annotations/instances_*.json
        images: use only the first so many training images, by id
        measure_on: images to measure on: val2017, or the training images again
        measured_images: measure on the first so many images only, by id
        image_size: shorter side of an image in pixels; the longer is at most 1333/800 of it
        flip: mirror half of the training images
        model: resnet18 ... resnet152, resnext... or wide_resnet... (default: that of `backbone`)
        backbone: a run's folder (or exported file), whose network becomes the backbone
        weights: of `model` without `backbone`: none (from scratch) or default (torchvision's pretrained)
        norm: BatchNorm of the backbone (default: frozen, or trained from scratch)
        trainable_layers: layers of the backbone that are trained, from the last (default: 3, or 5 from scratch)
        rois: proposals of each image that the loss of the box head is taken on
        epochs: passes over the training set (default: those of `schedule`)
        schedule: 1x is 12 epochs with drops after 8 and 11, 0.5x is 7 with drops after 5 and 6
        drops: epochs after which the rate drops (default: in proportion to 8 and 11 of 12)
        batch_size: images of one optimiser step over all devices
        lr: learning rate (default: 0.02 per 16 images of `batch_size`)
        gamma: factor of each drop
        warmup_steps: steps over which the rate rises linearly from a thousandth
        momentum: momentum of SGD
        weight_decay: weight decay on all trained parameters
        clip: largest norm of the gradient (default: no clipping)
        seed: seed of the initial weights, the sampled boxes, the order and the mirroring
        precision: floating-point precision; boxes are float32 in any case
        threads: CPU threads of this process (default: torch's choice)
        workers: image-decoding processes (default: by the number of processors)

    Raises:
        ValueError: a value is of the wrong type or out of range; the message names the argument.

    Example:
        >>> recipe = DetectRecipe(model="resnet50", weights="default", schedule="0.5x", batch_size=8)
        >>> whole = recipe.resolve("resnet50", trained=True)
        >>> whole.epochs, whole.drops, whole.lr, whole.norm, whole.trainable_layers
        (7, (5, 6), 0.01, 'frozen', 3)
    """

    NON_SEMANTIC_FIELDS: ClassVar[tuple[str, ...]] = ("threads", "workers")

    data: str = "data/coco"
    images: int | None = None
    measure_on: Literal["val", "train"] = "val"
    measured_images: int | None = None
    image_size: int = 800
    flip: bool = True
    model: str | None = None
    backbone: str | None = None
    weights: Literal["none", "default"] = "none"
    norm: Literal["frozen", "trained"] | None = None
    trainable_layers: int | None = None
    rois: int = 512
    epochs: int | None = None
    schedule: Literal["1x", "0.5x"] = "1x"
    drops: tuple[int, ...] | None = None
    batch_size: int = 16
    lr: float | None = None
    gamma: float = 0.1
    warmup_steps: int = 500
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float | None = None
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Convert numbers and lists to the fields' types and check every range."""
        self.convert_fields()
        for name in ("images", "measured_images", "image_size", "rois", "epochs", "batch_size", "threads"):
            self.require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        for name in ("warmup_steps", "weight_decay", "seed", "workers"):
            self.require(getattr(self, name) is None or getattr(self, name) >= 0, name, "at least 0")
        for name in ("momentum", "gamma"):
            self.require(0 <= getattr(self, name) <= 1, name, "in [0, 1]")
        for name in ("lr", "clip"):
            self.require(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0")
        self.require(self.trainable_layers in (None, 0, 1, 2, 3, 4, 5), "trainable_layers", "from 0 to 5")
        epochs = self.epochs or EPOCHS[self.schedule]
        rising = self.drops is None or list(self.drops) == sorted(set(self.drops))
        inside = all(1 <= drop < epochs for drop in self.drops or ())
        self.require(rising and inside, "drops", f"rising epochs from 1 to {epochs - 1}")
        self.require(bool(self.data.strip()), "data", "a text that is not empty")
        self.require(self.backbone is None or bool(self.backbone.strip()), "backbone", "a text that is not empty")

    @property
    def name_of_schedule(self) -> str:
        """``1x (12 epochs)``, or the epochs alone where they are not the schedule's."""
        counted = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        standard = self.epochs == EPOCHS[self.schedule] and self.drops == drops_of(EPOCHS[self.schedule])
        return f"{self.schedule} ({counted})" if standard else counted

    def resolve(self, model: str, *, trained: bool) -> "DetectRecipe":
        """Return the recipe with everything filled in that it leaves open.

        Args:
            model: the backbone's name, such as ``"resnet50"``.
            trained: whether the backbone has trained weights.

        Raises:
            ValueError: the model is not the backbone's, or it starts from scratch and is to be frozen.
        """
        self.require(self.model in (None, model), "model", f"{model}, as `backbone` has it, or left out")
        if not trained and self.norm == "frozen":
            raise ArgumentError(
                "norm",
                "frozen needs trained weights, as of `backbone` or `weights='default'`: BatchNorm that was never "
                "trained normalises nothing",
            )
        epochs = self.epochs or EPOCHS[self.schedule]
        layers = self.trainable_layers
        return replace(
            self,
            model=model,
            norm=self.norm or ("frozen" if trained else "trained"),
            trainable_layers=(3 if trained else 5) if layers is None else layers,
            epochs=epochs,
            drops=drops_of(epochs) if self.drops is None else self.drops,
            lr=self.lr or self.batch_size * PER_IMAGE,
        )
