"""The recipe of an object detector: one frozen dataclass that says everything about its training. No torch here."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from selfdistill.config.schedule import Schedule
from selfdistill.config.train_config import MAX_IMAGE_SIZE
from selfdistill.config.training import Log, TrainingConfig
from selfdistill.errors import ArgumentError

PER_IMAGE = 0.02 / 16
"""The usual learning rate, 0.02, is for 16 images per step; it is scaled in proportion."""

MILESTONES = (8 / 12, 11 / 12)
"""Those of the 1x schedule. For 7 epochs, the paper's 0.5x, they are after 5 and 6; the paper publishes none."""

COCO_STEPS = 7393
"""Steps of an epoch of COCO's 118,287 training images, 16 per step."""

_NAMES = {12: "1x", 7: "0.5x"}


@dataclass(frozen=True)
class DetectConfig(TrainingConfig):
    """Everything that decides the training of an object detector; the defaults are the usual 1x recipe on COCO.

    Attributes:
        data: folder of COCO's layout: train2017/, val2017/, annotations/instances_*.json
        images: use only the first training images, by id (default: all)
        eval_split: images to evaluate on: val2017, or the training images again
        eval_images: evaluate on only the first images, by id (default: all)
        image_size: shorter side of an image in pixels; the longer is at most 1333/800 of it
        flip: mirror half of the training images
        model: resnet18 ... resnet152, resnext... or wide_resnet... (default: that of `backbone`)
        backbone: a run's folder (or exported file), whose network becomes the backbone
        weights: of `model` without `backbone`: none (from scratch) or default (torchvision's pretrained)
        norm: BatchNorm of the backbone (default: frozen, or trained from scratch)
        trainable_layers: layers of the backbone that are trained, from the last (default: 3, or 5 from scratch)
        rois: proposals of each image that the loss of the box head is taken on
        epochs: passes over the training images; 12 is the 1x schedule, 7 is 0.5x
        batch_size: images of one optimiser step over all devices
        lr: learning rate (default: 0.02 per 16 images of `batch_size`)
        momentum: momentum of SGD
        nesterov: use Nesterov's momentum
        weight_decay: weight decay on all trained parameters
        schedule: "step" (times gamma at the milestones), "cosine" (to zero) or "one_cycle" (up and to zero)
        milestones: where the step schedule drops, as fractions of the epochs
        gamma: factor of each drop of the step schedule
        warmup_epochs: epochs over which the rate rises linearly from a thousandth (default: 500 steps of COCO)
        clip: largest norm of the gradient (default: no clipping)
        seed: seed of the initial weights, the sampled boxes, the order and the mirroring
        precision: floating-point precision; boxes are float32 in any case
        threads: CPU threads of this process (default: torch's choice)
        workers: image-decoding processes (default: by the number of processors)
        keep_epochs: also keep the weights after these epochs, as model@E.safetensors
        eval_every: evaluate every so many epochs (the last one always)
        log: tracker of experiments that gets what log.csv gets
        save_every: how often to save inside an epoch: a duration such as 10m, or such as "500 steps"

    Raises:
        ValueError: a value is of the wrong type or out of range; the message names the argument.

    Example:
        >>> recipe = DetectConfig(model="resnet50", weights="default", epochs=7, batch_size=8)
        >>> resolved = recipe.resolve("resnet50", trained=True)
        >>> resolved.schedule_name, resolved.lr, resolved.norm, resolved.trainable_layers
        ('0.5x (7 epochs)', 0.01, 'frozen', 3)
        >>> [round(resolved.rate(epoch), 6) for epoch in (0, 4, 5, 6)]
        [1e-05, 0.01, 0.001, 0.0001]
    """

    NON_SEMANTIC_FIELDS: ClassVar[tuple[str, ...]] = ("threads", "workers", "log", "save_every")
    WARMUP_START: ClassVar[float] = 1 / 1000  # as in MMDetection and Detectron2

    data: str = "data/coco"
    images: int | None = None
    eval_split: Literal["val", "train"] = "val"
    eval_images: int | None = None
    image_size: int = 800
    flip: bool = True
    model: str | None = None
    backbone: str | None = None
    weights: Literal["none", "default"] = "none"
    norm: Literal["frozen", "trained"] | None = None
    trainable_layers: int | None = None
    rois: int = 512
    epochs: int = 12
    batch_size: int = 16
    lr: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = MILESTONES
    gamma: float = 0.1
    warmup_epochs: float = 500 / COCO_STEPS
    clip: float | None = None
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int | None = None
    workers: int | None = None
    keep_epochs: tuple[int, ...] = ()
    eval_every: int = 1
    log: Log | None = None
    save_every: str = "30m"

    def __post_init__(self) -> None:
        """Convert numbers and lists to the fields' types and check every range."""
        self.convert_fields()
        self.check_training()
        self.check_ranges(
            images=(1, 10**9),
            eval_images=(1, 10**9),
            image_size=(1, MAX_IMAGE_SIZE),
            rois=(1, 10**5),
            trainable_layers=(0, 5),
        )

    @property
    def fabric_precision(self) -> Literal["32-true"]:
        """The detector casts its backbone itself, and nothing else."""
        return "32-true"

    @property
    def schedule_name(self) -> str:
        """``1x (12 epochs)``, or the epochs alone if the drops are not the usual ones."""
        counted = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        usual = self.epochs in _NAMES and (self.schedule, self.milestones) == ("step", MILESTONES)
        return f"{_NAMES[self.epochs]} ({counted})" if usual else counted

    @property
    def drop_epochs(self) -> tuple[int, ...]:
        """The epochs after which the step schedule drops."""
        drops = {round(milestone * self.epochs) for milestone in self.milestones} if self.schedule == "step" else set()
        return tuple(sorted(drops - {self.epochs}))

    def resolve(self, model: str, *, trained: bool) -> "DetectConfig":
        """Return the recipe with everything filled in that it leaves open.

        Args:
            model: the backbone's name, such as ``"resnet50"``.

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
        layers = self.trainable_layers
        return replace(
            self,
            model=model,
            norm=self.norm or ("frozen" if trained else "trained"),
            trainable_layers=(3 if trained else 5) if layers is None else layers,
            lr=self.lr or self.batch_size * PER_IMAGE,
        )
