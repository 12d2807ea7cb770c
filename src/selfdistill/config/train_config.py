"""The config of a training, before and after what depends on the images is filled in. No torch here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from selfdistill.config.training import TrainingConfig

if TYPE_CHECKING:
    from selfdistill.data import ImageData

MAX_IMAGE_SIZE, MAX_WIDTH = 4096, 1024
"""More pixels a side, or channels of the first stage, are a slip of the finger: no machine trains them."""

SMALL = 64
"""Images up to this many pixels a side are "small": CIFAR networks and batches of 128."""

Augment = Literal["none", "crop", "crop_flip", "resized_crop_flip"]


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that decides a training; the defaults are the paper's.

    Attributes:
        data: a named dataset (cifar100, digits), a folder of images, or an .npz file of arrays
        data_root: folder of the named datasets; they are downloaded to it
        image_size: side of the square images in pixels (default: the dataset's own)
        classes: use only the first so many classes
        per_class: use only so many training images of each class
        test_per_class: use only so many test images of each class
        augment: augmentation of the training images (default: the dataset's own)
        resize: shorter side in pixels that files are resized to before the augmentation (default: not resized)
        skip_unreadable: skip image files that cannot be read instead of stopping
        max_pixels: refuse image files of more pixels (default: 89,478,485)
        method: the training method, such as "SDDropout(weight=0.1) + LabelSmoothing()"
        model: resnet18_cifar, torchvision:NAME or timm:NAME (default: by image size)
        width: channels of the first stage of a CIFAR network
        features: widen (or narrow) the features to so many by a 1x1 convolution
        head_layers: fully connected layers after the features, 1 or 2 (Table 13)
        weights: none (from scratch), default (the library's pretrained weights) or a file
        head: dotted name of the classifier, for networks in which it cannot be found
        stages: dotted names of the inner stages that BYOT branches off, the pooled map last (default: found)
        epochs: passes over the training set
        batch_size: images of one optimiser step over all devices (default: 128 up to 64 pixels, otherwise 32)
        accumulate: cut each optimiser step into so many passes over all devices, to save memory
        lr: learning rate (default: 0.1 from scratch, 0.01 when fine-tuning)
        momentum: momentum of SGD
        nesterov: use Nesterov's momentum
        weight_decay: weight decay on all parameters
        schedule: "step" multiplies the rate by gamma at the milestones, "cosine" takes it to zero
        milestones: where the step schedule drops, as fractions of the epochs
        gamma: factor of each drop of the step schedule
        warmup_epochs: epochs over which the rate rises linearly from zero
        clip: largest norm of the gradient (default: no clipping)
        seed: seed of the initial weights, the dropout masks, the order and the augmentation
        precision: floating-point precision
        channels_last: keep images and weights in channels-last order (faster convolutions on GPUs)
        compile: compile the training step with torch.compile
        threads: CPU threads of this process (default: torch's choice)
        workers: image-decoding processes (default: by the number of processors)
        cache: keep files decoded and resized (to `resize` or 256/224 of the size) in DATA_ROOT/cache: faster epochs
        keep_epochs: also keep the weights after these epochs, as model@E.safetensors
        eval_every: measure test accuracy every so many epochs (the last one always)
        data_path: where `data` was found; not set by hand

    Raises:
        ValueError: a value is of the wrong type or out of range; the message names the argument.

    Example:
        >>> recipe = TrainConfig(method="SDDropout(weight=0.1)", epochs=30)
        >>> recipe.epochs, recipe.weight_decay, recipe.batch_size
        (30, 0.0001, None)
        >>> recipe.to_yaml().splitlines()[18]
        'epochs: 30  # passes over the training set'
    """

    # ``threads`` changes the order of sums on a CPU, so bit-identical weights need the same value.
    NON_SEMANTIC_FIELDS: ClassVar[tuple[str, ...]] = (
        "data_root",
        "max_pixels",
        "threads",
        "workers",
        "cache",
        "data_path",
    )

    data: str = "cifar100"
    data_root: str = "data"
    image_size: int | None = None
    classes: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    augment: Augment | None = None
    resize: int | None = None
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
    epochs: int = 200
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: int = 0
    clip: float | None = None
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = False
    compile: bool = False
    threads: int | None = None
    workers: int | None = None
    cache: bool = False
    keep_epochs: tuple[int, ...] = ()
    eval_every: int = 1
    data_path: str | None = field(default=None, metadata={"option": False})

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
        )
        self._require_room_to_crop(self.image_size or 1)

    def passes_on(self, devices: int) -> int:
        """Return how many passes each of so many devices makes for an optimiser step, at least one.

        Example:
            >>> TrainConfig(accumulate=8).passes_on(1), TrainConfig(accumulate=8).passes_on(8)
            (8, 1)
        """
        return -(-self.accumulate // devices)

    def resolve(self, data: "ImageData") -> "ResolvedTrainConfig":
        """Return the recipe with everything that depends on the data filled in, and the method in its one spelling.

        Raises:
            ValueError: the method is unknown or has a wrong argument, or the data are not what the recipe asks for.
        """
        from selfdistill.data.files import margin  # torch is needed from here on
        from selfdistill.methods import parse_method

        for name, has in (("image_size", data.image_size), ("classes", len(data.classes))):
            self.require(getattr(self, name) in (None, has), name, f"{has}, as the data that were passed have")
        files = data.train.paths is not None
        self.require(self.resize is None or files, "resize", f"left out, for {data.name} is in memory")
        self._require_room_to_crop(data.image_size)
        small = data.image_size <= SMALL
        scratch = self.weights == "none"
        return ResolvedTrainConfig(
            **vars(self)
            | {
                "image_size": data.image_size,
                "classes": len(data.classes),
                "augment": self.augment or data.augment,
                "resize": self.resize or (margin(data.image_size) if self.cache and files else None),
                "method": repr(parse_method(self.method)),
                "model": self.model or ("resnet18_cifar" if small else "torchvision:resnet18"),
                "batch_size": self.batch_size or (128 if small else 32),
                "lr": self.lr or (0.1 if scratch else 0.01),
                "data_path": _path_of(self.data),
            }
        )

    def _require_room_to_crop(self, size: int) -> None:
        wanted = f"at least the images' {size} pixels"
        self.require(self.resize is None or self.resize >= size, "resize", wanted)


def _path_of(data: str) -> str | None:
    """Where images are, whatever the working directory will be; None for a named set."""
    from selfdistill.data import NAMED_SETS

    path = Path(data).expanduser()
    return str(path.absolute()) if data not in NAMED_SETS and path.exists() else None


@dataclass(frozen=True, kw_only=True)
class ResolvedTrainConfig(TrainConfig):
    """A config that leaves nothing open: what depends on the images is filled in. Its run folder holds it whole."""

    image_size: int
    classes: int
    augment: Augment
    model: str
    batch_size: int
    lr: float
