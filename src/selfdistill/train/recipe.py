"""The recipe: one frozen dataclass that says everything about a training, and its YAML. No torch here."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from selfdistill.train import recipe_file

if TYPE_CHECKING:
    from selfdistill.data import ImageData

SMALL = 64
"""Images up to this many pixels a side are "small": CIFAR networks and batches of 128."""

Augment = Literal["none", "crop", "crop_flip", "resized_crop_flip"]

PLACE = ("data_root", "threads", "workers")
"""Fields that say where and how fast a run goes, not what it computes: another value does not make another run.

(``threads`` changes the order of sums on a CPU, so bit-identical weights need the same value.)
"""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training; the defaults are the paper's.

    Attributes:
        data: a named set (cifar100, digits), a folder of images, or an .npz file of arrays
        data_root: folder where named sets are looked for and downloaded to
        image_size: side of the square images in pixels; the set's own size where not given
        classes: use only the first so many classes
        per_class: use only so many training images of each class
        test_per_class: use only so many test images of each class
        augment: none, crop, crop_flip or resized_crop_flip; the set's own where not given
        skip_unreadable: leave out image files that cannot be read instead of stopping
        method: the training method, such as "SDDropout(weight=0.1) + LabelSmoothing()"
        model: resnet18_cifar, torchvision:NAME or timm:NAME; chosen by image size where not given
        width: channels of the first stage of a CIFAR network
        features: widen (or narrow) the features to so many by a 1x1 convolution
        head_layers: fully connected layers after the features, 1 or 2 (Table 13)
        weights: none (from scratch), default (the library's pretrained weights) or a file
        head: dotted name of the classifier, for networks in which it cannot be found
        stages: dotted names of the inner stages that BYOT branches off, the pooled map last; found where not given
        epochs: passes over the training set
        batch_size: images of one optimiser step over all devices; 128 up to 64 pixels, otherwise 32
        accumulate: cut each optimiser step into so many passes, to save memory
        lr: learning rate; 0.1 from scratch, 0.01 when fine-tuning
        momentum: momentum of SGD
        nesterov: use Nesterov's momentum
        weight_decay: weight decay on all parameters
        schedule: "step" multiplies the rate by gamma at the milestones, "cosine" takes it to zero
        milestones: where the step schedule drops, as fractions of the epochs
        gamma: factor of each drop of the step schedule
        warmup_epochs: epochs over which the rate rises linearly from zero
        clip: largest norm of the gradient; no clipping where not given
        seed: seed of the initial weights, the dropout masks, the order and the augmentation
        precision: "32-true" or "bf16-mixed"
        channels_last: keep images and weights in channels-last order (faster convolutions on GPUs)
        compile: compile the training step with torch.compile
        threads: CPU threads of this process; torch's choice where not given
        workers: image-decoding processes; chosen by the machine where not given
        keep_epochs: also keep the weights after these epochs, as model@E.safetensors
        eval_every: measure test accuracy every so many epochs (the last one always)

    Raises:
        ValueError: a value is of the wrong type or out of range; the message names the argument.

    Example:
        >>> recipe = Recipe(method="SDDropout(weight=0.1)", epochs=30)
        >>> recipe.epochs, recipe.weight_decay, recipe.batch_size
        (30, 0.0001, None)
    """

    data: str = "cifar100"
    data_root: str = "data"
    image_size: int | None = None
    classes: int | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    augment: Augment | None = None
    skip_unreadable: bool = False
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
    keep_epochs: tuple[int, ...] = ()
    eval_every: int = 1

    def __post_init__(self) -> None:
        """Convert numbers and lists to the fields' types and check every range."""
        for name, hint in recipe_file.hints(type(self)).items():
            object.__setattr__(self, name, recipe_file.convert(name, getattr(self, name), hint))
        positive = "image_size classes per_class test_per_class width features epochs batch_size accumulate threads"
        for name in [*positive.split(), "head_layers", "eval_every"]:
            _require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1", self)
        _require(self.classes is None or self.classes >= 2, "classes", "at least 2", self)
        _require(self.head_layers in (1, 2), "head_layers", "1 or 2", self)
        for name in ("momentum", "gamma"):
            _require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", self)
        for name in ("weight_decay", "seed", "warmup_epochs"):
            _require(getattr(self, name) >= 0, name, "at least 0", self)
        _require(self.workers is None or self.workers >= 0, "workers", "at least 0", self)
        for name in ("lr", "clip"):
            _require(getattr(self, name) is None or getattr(self, name) > 0, name, "above 0", self)
        _require(not self.nesterov or self.momentum > 0, "nesterov", "off where --momentum is 0", self)
        ordered = list(self.milestones) == sorted(self.milestones)
        inside = all(0 < milestone < 1 for milestone in self.milestones)
        _require(ordered and inside, "milestones", "rising fractions of the epochs in (0, 1)", self)
        _require(self.warmup_epochs < self.epochs, "warmup_epochs", f"below --epochs ({self.epochs})", self)
        kept = all(1 <= epoch <= self.epochs for epoch in self.keep_epochs)
        _require(kept, "keep_epochs", f"between 1 and --epochs ({self.epochs})", self)
        for name in ("data", "data_root", "method", "weights"):
            _require(bool(getattr(self, name).strip()), name, "not empty", self)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Recipe":
        """Read a recipe from a YAML file.

        Raises:
            ValueError: an unknown key (the nearest right one is named), a wrong value, or no YAML at all.
            OSError: the file cannot be read.
        """
        path = Path(path)
        values = recipe_file.read(path, [field.name for field in fields(cls)])
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_yaml(self) -> str:
        """Return the recipe as YAML, one line a field with its comment.

        Example:
            >>> print(Recipe(epochs=30).to_yaml().splitlines()[16])
            epochs: 30  # passes over the training set
        """
        return recipe_file.dump(self)

    def resolve(self, data: "ImageData") -> "Recipe":
        """Return the recipe with everything that depends on the data filled in, and the method in its one spelling.

        Raises:
            ValueError: the method is unknown or has a wrong argument, or the data are not what the recipe asks for.
        """
        from selfdistill.methods import parse_method  # torch is needed from here on

        for name, has in (("image_size", data.image_size), ("classes", len(data.classes))):
            _require(getattr(self, name) in (None, has), name, f"{has}, as the data that were passed have", self)
        small = data.image_size <= SMALL
        scratch = self.weights == "none"
        return replace(
            self,
            image_size=data.image_size,
            classes=len(data.classes),
            augment=cast(Augment, self.augment or data.augment),
            method=repr(parse_method(self.method)),
            model=self.model or ("resnet18_cifar" if small else "torchvision:resnet18"),
            batch_size=self.batch_size or (128 if small else 32),
            lr=self.lr or (0.1 if scratch else 0.01),
        )

    def differences(self, other: "Recipe") -> list[str]:
        """Return ``"name: this, other: that"`` for each field that makes the two different runs."""
        names = [field.name for field in fields(self) if field.name not in PLACE]
        return [
            f"{name} ({getattr(other, name)!r} there, {getattr(self, name)!r} here)"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]


def _require(holds: bool, name: str, wanted: str, recipe: Recipe) -> None:
    if not holds:
        raise ValueError(f"{recipe_file.option(name)} must be {wanted}, not {getattr(recipe, name)!r}")
