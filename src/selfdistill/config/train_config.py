"""The config of a training, before and after what depends on the images is filled in. No torch here."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from selfdistill.config.schedule import Schedule
from selfdistill.config.training import Log, Precision, TrainingConfig
from selfdistill.errors import ArgumentError

if TYPE_CHECKING:
    from selfdistill.data import ImageData

MAX_IMAGE_SIZE, MAX_WIDTH = 4096, 1024
"""More pixels a side, or channels of the first stage, are a slip of the finger: no machine trains them."""

SMALL = 64
"""Images up to this many pixels a side are "small": CIFAR networks and batches of 128."""

IN_PYTHON = " (in Python)"
"""The end of the name of images that were passed in Python."""

COMPARED_METHODS = ("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()")
TUNED_METHODS = ("CrossEntropy()", "LabelSmoothing()", "SDDropout()")
"""The methods of a comparison that names none."""

FINE_TUNING_STEPS = 500
"""Optimiser steps that fine-tuning takes at least: self-distillation loses accuracy in much shorter schedules."""

Augment = Literal["none", "crop", "crop_flip", "resized_crop_flip"]


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that decides a training; the defaults are the paper's.

    Attributes:
        data: a named dataset (cifar100), a folder of images, an .npz or .csv file, wds:SHARDS or hf:NAME
        data_root: folder of the named datasets; they are downloaded to it
        image_size: side of the square images in pixels (default: the dataset's own)
        classes: use only the first so many classes
        per_class: use only so many training images of each class
        test_per_class: use only so many test images of each class
        val_fraction: share of the training images that are held out for validation (default: none, or the val folder)
        train_on_val: train on the images of the val folder too, once nothing is to be chosen by them
        augment: augmentation of the training images (default: the dataset's own)
        auto_augment: further augmentation after that, trivial (TrivialAugment) or rand (RandAugment)
        erasing: probability that a rectangle of an image is blackened
        resize: shorter side in pixels that files are resized to before the augmentation (default: not resized)
        interpolation: how image files are resized (default: as the pretrained weights say, otherwise bilinear)
        crop_pct: share of a file's shorter side that is tested (default: as the pretrained weights say, or 0.875)
        crop_mode: how a file becomes the tested square: center cuts out its middle, squash resizes both sides
            (default: as the pretrained weights say)
        skip_unreadable: skip image files that cannot be read instead of stopping
        max_pixels: refuse image files of more pixels (default: 89,478,485)
        method: the training method, such as "SDDropout(weight=0.1) + LabelSmoothing()"
        model: resnet18_cifar, torchvision:NAME, timm:NAME or package.module:function (default: by image size)
        width: channels of the first stage of a CIFAR network
        features: widen (or narrow) the features to so many by a 1x1 convolution
        head_layers: fully connected layers after the features, 1 or 2 (Table 13)
        weights: none (from scratch), default (the model's pretrained ones), hf-hub:NAME, local-dir:DIR, a file or a run
        head: dotted name of the classifier, for networks in which it cannot be found
        stages: dotted names of the inner stages that BYOT branches off, the pooled map last (default: found)
        linear_probe: fit the new head to the pretrained features before the training (default: on when fine-tuning)
        freeze: "backbone" trains the head alone, on features that are computed once and kept in DATA_ROOT/cache
        freeze_bn: keep the pretrained BatchNorm statistics (default: on when fine-tuning)
        epochs: passes over the training set (default: 200 from scratch; fine-tuning: enough for 500 steps, 20 to 100)
        batch_size: images of one optimiser step over all devices (default: 128 up to 64 pixels, otherwise 32)
        accumulate: cut each optimiser step into so many passes over all devices, to save memory
        optimizer: sgd, adamw or another of timm's optimisers (default: sgd from scratch, adamw when fine-tuning)
        lr: learning rate; when fine-tuning, that of the head (default: 0.1 from scratch, 1e-4 after a linear probe)
        backbone_lr: learning rate of the pretrained layers (default: 3e-5, with sgd `lr` / 10)
        layer_decay: factor of the rate from each pretrained layer to the one before it, such as 0.75 (default: 1)
        head_epochs: epochs at the start in which the head alone is trained
        momentum: momentum of SGD
        nesterov: use Nesterov's momentum
        weight_decay: weight decay (default: 1e-4 with sgd, otherwise 0.05)
        schedule: step drops the rate at the milestones, cosine takes it to zero, one_cycle up first
        milestones: where the step schedule drops, as fractions of the epochs
        gamma: factor of each drop of the step schedule
        warmup_epochs: epochs in which the rate rises from zero (default: 0 from scratch, else a tenth; one_cycle 30 %)
        clip: largest norm of the gradient (default: no clipping)
        mixup: alpha of mixup, such as 0.2: pairs of images and their labels are blended (default: none)
        cutmix: alpha of CutMix, such as 1: a rectangle of another image is pasted; beside mixup, each half of the times
        class_weights: balanced weighs a class in the label loss by the inverse of its number of training images
        balanced_sampling: draw all classes equally often; an epoch has as many images as before
        ema: decay of a moving average of the weights, such as 0.999, which is measured and kept instead (default: none)
        seed: seed of the initial weights, the dropout masks, the order and the augmentation
        precision: floating-point precision; 16-mixed is float16 with a scaled loss, for GPUs without bfloat16
        gradient_checkpointing: recompute activations in the backward pass to save memory; for models of timm that can
        sync_batchnorm: BatchNorm statistics over all GPUs
        channels_last: keep images and weights in channels-last order, often faster (default: on when fine-tuning); left
            out for networks whose training would corrupt memory on a CPU (strided 1x1 convolutions of few channels)
        compile: compile the training step with torch.compile
        threads: CPU threads of this process (default: torch's choice)
        workers: image-decoding processes (default: by the number of processors)
        cache: keep files decoded and resized (to `resize` or the size / `crop_pct`) in DATA_ROOT/cache: faster epochs
        keep_epochs: also keep the weights after these epochs, as model@E.safetensors
        eval_every: measure accuracy every so many epochs (the last one always)
        keep: keep the weights of the last epoch, or of the one that is best on the validation images
        patience: stop when so many epochs were no better on the validation images than the best one
        log: tracker of experiments that gets what log.csv gets
        save_every: how often to save inside an epoch: a duration such as 10m, or such as "500 steps"
        data_path: where `data` was found; not set by hand
        auto_weight: what weight="auto" found; not set by hand

    Raises:
        ValueError: a value is of the wrong type or out of range; the message names the argument.

    Example:
        >>> recipe = TrainConfig(method="SDDropout(weight=0.1)", epochs=30)
        >>> recipe.epochs, recipe.momentum, recipe.batch_size
        (30, 0.9, None)
        >>> recipe.to_yaml().splitlines()[1]
        'data_root: data  # folder of the named datasets; they are downloaded to it'
    """

    # ``threads`` changes the order of sums on a CPU, so bit-identical weights need the same value.
    NON_SEMANTIC_FIELDS: ClassVar[tuple[str, ...]] = (
        "data_root",
        "max_pixels",
        "threads",
        "workers",
        "cache",
        "data_path",
        "auto_weight",
        "log",
        "save_every",
    )

    data: str = "cifar100"
    data_root: str = "data"
    image_size: int | None = None
    classes: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    val_fraction: float = 0.0
    train_on_val: bool = False
    augment: Augment | None = None
    auto_augment: Literal["none", "trivial", "rand"] = "none"
    erasing: float = 0.0
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    crop_pct: float | None = None
    crop_mode: Literal["center", "squash"] | None = None
    skip_unreadable: bool = False
    max_pixels: int | None = None
    method: str = "SDDropout()"
    model: str | None = None
    width: int | None = None
    features: int | None = None
    head_layers: int = 1
    weights: str = "none"
    head: str | None = None
    stages: tuple[str, ...] = ()
    linear_probe: bool | None = None
    freeze: Literal["none", "backbone"] = "none"
    freeze_bn: bool | None = None
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    optimizer: str | None = None
    lr: float | None = None
    backbone_lr: float | None = None
    layer_decay: float | None = None
    head_epochs: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float | None = None
    schedule: Schedule | None = None
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: int | None = None
    clip: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    class_weights: Literal["none", "balanced"] = "none"
    balanced_sampling: bool = False
    ema: float | None = None
    seed: int = 0
    precision: Precision = "32-true"
    gradient_checkpointing: bool = False
    sync_batchnorm: bool = False
    channels_last: bool | None = None
    compile: bool = False
    threads: int | None = None
    workers: int | None = None
    cache: bool = False
    keep_epochs: tuple[int, ...] = ()
    eval_every: int = 1
    keep: Literal["last", "best"] = "last"
    patience: int | None = None
    log: Log | None = None
    save_every: str = "30m"
    data_path: str | None = field(default=None, metadata={"option": False})
    auto_weight: float | None = field(default=None, metadata={"option": False})

    def __post_init__(self) -> None:
        """Convert numbers and lists to the fields' types and check every range."""
        self.convert_fields()
        self.check_training()
        self.check_ranges(
            image_size=(1, MAX_IMAGE_SIZE),
            resize=(1, MAX_IMAGE_SIZE),
            classes=(2, 10**6),
            per_class=(1, 10**9),
            test_per_class=(1, 10**9),
            width=(1, MAX_WIDTH),
            features=(1, 10**5),
            head_layers=(1, 2),
            accumulate=(1, 10**6),
            max_pixels=(1, 10**12),
            erasing=(0, 1),
            crop_pct=(0.1, 1),
            val_fraction=(0, 0.9),
            patience=(1, 10**6),
        )
        self.require(not (self.train_on_val and self.val_fraction), "train_on_val", "left out beside `val_fraction`")
        self.require(self.ema is None or 0 < self.ema < 1, "ema", "above 0 and below 1")
        if self.balanced_sampling and self.class_weights != "none":
            raise ArgumentError("balanced_sampling", "would balance the classes twice: leave out `class_weights`")
        self._require_room_to_crop(self.image_size or 1)
        self._check_fine_tuning()

    def _check_fine_tuning(self) -> None:
        for name in ("backbone_lr", "layer_decay", "mixup", "cutmix"):
            self.require(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0")
        self.require(self.layer_decay is None or self.layer_decay <= 1, "layer_decay", "at most 1")
        self.require(0 <= self.head_epochs < (self.epochs or 200), "head_epochs", "at least 0 and below `epochs`")
        if not self.fine_tunes:
            for name in ("linear_probe", "freeze", "freeze_bn", "backbone_lr", "layer_decay", "head_epochs"):
                if getattr(self, name) not in (None, False, 0, "none"):
                    raise ArgumentError(name, "needs pretrained layers: give `weights` too")

    @property
    def balances_classes(self) -> bool:
        """Whether all classes are to count alike, however many images they have."""
        return self.balanced_sampling or self.class_weights == "balanced"

    def check_machine(self, kind: str, processes: int) -> None:
        """Refuse what so many processes on devices of a kind cannot do."""
        super().check_machine(kind, processes)
        if self.sync_batchnorm and (processes == 1 or kind != "cuda"):
            raise ArgumentError("sync_batchnorm", "needs several GPUs: leave it out, or give `devices` too")

    def passes_on(self, devices: int) -> int:
        """Return how many passes each of so many devices makes for an optimiser step, at least one.

        Example:
            >>> TrainConfig(accumulate=8).passes_on(1), TrainConfig(accumulate=8).passes_on(8)
            (8, 1)
        """
        return -(-self.accumulate // devices)

    @property
    def finds_weight(self) -> bool:
        """Whether the method has a weight that is found by a first training."""
        from selfdistill.methods import SDDropout, parse_method

        return any(isinstance(part, SDDropout) and part.auto is not None for part in parse_method(self.method).parts)

    @property
    def data_is_in_python(self) -> bool:
        """Whether the images were passed in Python, so that the name of ``data`` leads nowhere."""
        return self.data.endswith(IN_PYTHON)

    @property
    def fine_tunes(self) -> bool:
        """Whether the training starts from pretrained weights."""
        return self.weights != "none"

    def resolve(self, data: "ImageData") -> "ResolvedTrainConfig":
        """Return the recipe with everything that depends on the data filled in, and the method in its one spelling.

        Raises:
            ValueError: the method is unknown or has a wrong argument, or the data are not what the recipe asks for.
        """
        from selfdistill.data.sources import absolute_source  # torch is needed from here on
        from selfdistill.data.steps import steps_per_epoch
        from selfdistill.methods import parse_method

        for name, has in {"image_size": data.image_size, "classes": len(data.classes), **vars(data.resizing)}.items():
            self.require(getattr(self, name) in (None, has), name, f"{has}, as the data that were passed have")
        files = not data.train.is_small
        self.require(self.resize is None or files, "resize", f"left out, for {data.name} is in memory")
        self._require_room_to_crop(data.image_size)
        if data.val is None and (self.keep == "best" or self.patience is not None):
            name = "patience" if self.keep == "last" else "keep"
            raise ArgumentError(name, "needs validation images: make a val folder, or give `val_fraction`")
        small = data.image_size <= SMALL
        batch_size = self.batch_size or (32 if self.fine_tunes or not small else 128)
        filled = {
            "image_size": data.image_size,
            "classes": len(data.classes),
            "augment": self.augment or data.augment,
            "resize": self.resize or (data.resizing.margin(data.image_size) if self.cache and files else None),
            **vars(data.resizing),
            "method": repr(parse_method(self.method)),
            "model": self.model_for(data.image_size),
            "batch_size": batch_size,
            "data_path": absolute_source(self.data),
        }
        steps = steps_per_epoch(len(data.train), batch_size, shares=self.accumulate)
        return ResolvedTrainConfig(**vars(self) | filled | self._schedule(steps))

    def model_for(self, size: int) -> str:
        """Return the model's name, by default one for images of so many pixels; of weights that say it, theirs."""
        from selfdistill.models.pretrained import SOURCES, timm_config

        if not self.weights.startswith(SOURCES):
            return self.model or ("resnet18_cifar" if size <= SMALL else "torchvision:resnet18")
        _, name = timm_config(self.weights)
        self.require(self.model in (None, f"timm:{name}"), "model", f"timm:{name}, the model of `weights`")
        return f"timm:{name}"

    def _schedule(self, steps: int) -> dict[str, Any]:
        """Return the optimiser and its schedule, for so many steps per epoch: the paper's, or one for fine-tuning."""
        fine_tunes = self.fine_tunes
        optimizer = self.optimizer or ("adamw" if fine_tunes else "sgd")
        sgd = optimizer == "sgd"
        epochs = self.epochs or (min(max(-(-FINE_TUNING_STEPS // steps), 20), 100) if fine_tunes else 200)
        probed = fine_tunes and self.linear_probe is not False
        lr = self.lr or ((0.01 if fine_tunes else 0.1) if sgd else 1e-4 if probed else 0.001)
        rise = 3 if self.schedule == "one_cycle" else 1 if fine_tunes else 0  # tenths of the epochs
        default: dict[str, Any] = {
            "weight_decay": 1e-4 if sgd else 0.05,
            "schedule": "cosine" if fine_tunes else "step",
            "warmup_epochs": min(-(-rise * epochs // 10), epochs - 1),
            "linear_probe": fine_tunes,
            "freeze_bn": fine_tunes,
            "channels_last": fine_tunes,
        }
        given = {name: getattr(self, name) for name in default if getattr(self, name) is not None}
        backbone_lr = self.backbone_lr or ((lr / 10 if sgd else 3e-5) if fine_tunes else None)
        return default | given | {"optimizer": optimizer, "epochs": epochs, "lr": lr, "backbone_lr": backbone_lr}

    def _require_room_to_crop(self, size: int) -> None:
        wanted = f"at least the images' {size} pixels"
        self.require(self.resize is None or self.resize >= size, "resize", wanted)


@dataclass(frozen=True, kw_only=True)
class ResolvedTrainConfig(TrainConfig):
    """A config that leaves nothing open: what depends on the images is filled in. Its run folder holds it whole.

    ``backbone_lr`` and ``layer_decay`` are None where all layers have the same rate.
    """

    image_size: int
    classes: int
    augment: Augment
    model: str
    batch_size: int
    lr: float
    # What records of earlier versions leave out.
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_pct: float = 0.875
    crop_mode: Literal["center", "squash"] = "center"
    epochs: int = 200
    optimizer: str = "sgd"
    weight_decay: float = 1e-4
    schedule: Schedule = "step"
    warmup_epochs: int = 0
    linear_probe: bool = False
    freeze_bn: bool = False
    channels_last: bool = False
