"""The scales at which the paper is reproduced: what is trained, on how many images, by which recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from selfdistill.config import ResolvedTrainConfig, TrainConfig
from selfdistill.data.sets import BILINEAR
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord
from selfdistill.runs.grid import PlannedRun, slug

Scale = Literal["smoke", "small", "medium", "full"]

SCALE_DESCRIPTIONS = {
    "smoke": "smoke: synthetic images and a tiny network; it shows that everything runs, its numbers mean nothing",
    "small": "small: CIFAR-100 with 15 training images of each class at 16 px, a quarter of the width",
    "medium": "medium: CIFAR-100 with 30 training images of each class at 16 px, half of the width",
    "full": "full: the paper's protocol",
}

SEEDS = (41, 42, 43)
"""Seeds of the published runs."""

FAST: dict[str, Any] = {"precision": "bf16-mixed", "channels_last": True, "compile": True}
"""TrainConfig fields that make a GPU fastest; the paper trained in float32."""

DATASETS = {
    "cifar100": "CIFAR-100",
    "cub200": "CUB-200-2011",
    "dogs": "Stanford Dogs",
    "imagenet": "ImageNet",
    "caltech101": "Caltech-101",
}
"""The paper's training sets by the names it prints; and Caltech-101, a dataset of few photographs per class."""

Network = Literal["resnet18", "resnet34", "densenet121", "resnet18_byot224", "resnet152"]

NETWORKS: dict[Network, str] = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "densenet121": "DenseNet-121",
    "resnet18_byot224": "ResNet-18 with BYOT's stem",
    "resnet152": "ResNet-152",
}
"""The paper's networks by the names it prints."""

_CIFAR = {"resnet18": "resnet18_cifar", "resnet34": "resnet34_cifar", "densenet121": "densenet121_cifar"}
_PHOTOGRAPHS = {"resnet18": "torchvision:resnet18", "resnet152": "torchvision:resnet152"}
_TINY = {"resnet34": ("resnet10_cifar", 6), "densenet121": ("resnet10_cifar", 8), "resnet18_byot224": (None, 4)}
_WIDTHS = {"small": 16, "medium": 32}  # of the first stage; 64 at the full scale
_IMAGES_PER_CLASS = {"small": 15, "medium": 30}  # for training, of CIFAR-100; all test images are scored

_few_images = partial(
    replace, image_size=16, batch_size=32, features=512, eval_every=50, precision="bf16-mixed", channels_last=True
)
"""Few images of many classes, which the network fits, as in CUB-200-2011; minutes on a CPU."""

_tiny_run = partial(replace, image_size=32, augment="crop_flip", epochs=2, batch_size=16, lr=0.01, threads=1)


@dataclass(frozen=True)
class Training:
    """What is trained, whatever the scale and the seed; tables that name the same training share its runs.

    Attributes:
        method: the method's repr.
        data: key of `DATASETS`.
        network: key of `NETWORKS`; its stem fits the image size.
        head_layers: fully connected layers (Table 13).
    """

    method: str
    data: str = "cifar100"
    network: Network = "resnet18"
    head_layers: int = 1


class DatasetSize(NamedTuple):
    """How many images and classes a dataset has."""

    train: int
    test: int
    classes: int

    def __str__(self) -> str:
        """``50,000 images and scored on 10,000, of 100 classes``."""
        return f"{self.train:,} images and scored on {self.test:,}, of {self.classes:,} classes"


PUBLISHED_SIZES = {
    "cifar100": DatasetSize(50_000, 10_000, 100),
    "cub200": DatasetSize(5_994, 5_794, 200),
    "dogs": DatasetSize(12_000, 8_580, 120),
    "imagenet": DatasetSize(1_281_167, 50_000, 1000),
    "caltech101": DatasetSize(3_030, 2_945, 101),
}
"""ImageNet is tested on its validation images; Caltech-101 has 30 training photographs per class."""

_SYNTHETIC_PER_CLASS = {"train": 8, "test": 4}
_SYNTHETIC_CLASSES = 8
_SYNTHETIC_PIXELS = 32


def dataset_size(data: str, scale: str) -> DatasetSize:
    """Return how much of a dataset a scale uses.

    Example:
        >>> dataset_size("cifar100", "small"), dataset_size("dogs", "full").test
        (DatasetSize(train=1500, test=10000, classes=100), 8580)
    """
    if scale == "smoke":
        train, test = (per_class * _SYNTHETIC_CLASSES for per_class in _SYNTHETIC_PER_CLASS.values())
        return DatasetSize(train, test, _SYNTHETIC_CLASSES)
    size = PUBLISHED_SIZES[data]
    if data == "cifar100" and scale in _IMAGES_PER_CLASS:
        return size._replace(train=_IMAGES_PER_CLASS[scale] * size.classes)
    return size


def recorded_size(record: RunRecord) -> DatasetSize:
    """Return what a run was trained and scored on."""
    return DatasetSize(record.data.train_n, record.data.test_n, record.data.classes)


@dataclass(frozen=True)
class PaperConfig:
    """Where and at what scale tables are reproduced.

    Attributes:
        scale: "smoke", "small", "medium" or "full".
        out: output folder; the runs are in ``out/runs``.
        data_root: folder of the named datasets.
        seeds: seeds of the runs; empty: those of the table and the scale.
        fast: train with `FAST`, a departure from the paper's float32 that the pages name.
        save_every: how often runs save inside an epoch, such as ``"10m"`` or ``"500 steps"``.
    """

    scale: Scale
    out: Path
    data_root: Path = Path("data")
    seeds: tuple[int, ...] = ()
    fast: bool = False
    save_every: str = "30m"

    @property
    def description(self) -> str:
        """The scale in words."""
        departure = ", but in bfloat16, compiled, where it is float32" if self.fast else ""
        return SCALE_DESCRIPTIONS[self.scale] + departure

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.out / "runs"

    def images_folder(self, data: str) -> Path:
        """The folder of the synthetic images that replace a dataset at the scale "smoke"."""
        return self.out / "images" / data

    def skip_reason(self, training: Training) -> str | None:
        """Why a training is not part of this scale; None if it is."""
        at = {"cifar100": ("small", "medium", "full"), "caltech101": ("medium",)}.get(training.data, ("full",))
        if self.scale != "smoke" and self.scale not in at:
            return f"{DATASETS[training.data]} is only trained on at scale {' or '.join(at)}"
        return None

    def plan_run(self, training: Training, seed: int) -> PlannedRun:
        """Return a training's run: its folder below ``out/runs``, and its recipe."""
        layers = "" if training.head_layers == 1 else f"-{training.head_layers}fc"
        method = repr(parse_method(training.method))
        name = f"{training.data}-{training.network}{layers}-{slug(method)}-seed{seed}-{self.scale}"
        recipe = replace(full_recipe(training), method=method, seed=seed, data_root=str(self.data_root))
        recipe = replace(recipe, save_every=self.save_every)
        if training.data == "caltech101":  # a folder of photographs, not a named dataset
            recipe = replace(recipe, data=str(self.data_root / recipe.data))
        if self.scale in _IMAGES_PER_CLASS and training.data == "cifar100":
            width = _WIDTHS[self.scale] // (2 if training.network == "densenet121" else 1)  # its growth rate is half
            recipe = _few_images(recipe, per_class=_IMAGES_PER_CLASS[self.scale], width=width)
        elif self.scale == "smoke":
            model, width = _TINY.get(training.network, ("resnet10_cifar", 4))
            images = str(self.images_folder(training.data))
            recipe = _tiny_run(recipe, data=images, model=model or recipe.model, width=width)
        if training == Training("SDDropout()"):  # Table 8 and Fig. 4 analyse its weights during the training
            assert recipe.epochs is not None
            quarters = (max(1, round(share * recipe.epochs)) for share in (0.25, 0.5, 0.75, 1.0))
            recipe = replace(recipe, keep_epochs=tuple(sorted({1, *quarters})))
        return PlannedRun(name, replace(recipe, **FAST) if self.fast else recipe)


def full_recipe(training: Training) -> TrainConfig:
    """Return the paper's recipe of a training (Sections 4.1.1 and 4.1.2), except its seed.

    On ImageNet the paper's batch of 32 is read as that of each of 8 GPUs, as in the authors' script: 256 images per
    step at the learning rate 0.1, in 8 micro-batches over all devices, so that BatchNorm sees 32 images on one GPU too.
    Two fully connected layers are one head, so that the dropout stands before the first (Table 13).

    Example:
        >>> recipe = full_recipe(Training("SDDropout(weight=0.1)", "imagenet", "resnet152"))
        >>> recipe.model, recipe.epochs, recipe.batch_size, recipe.accumulate, recipe.lr
        ('torchvision:resnet152', 90, 256, 8, 0.1)
    """
    small_images = training.data == "cifar100"
    models = _CIFAR if small_images else _PHOTOGRAPHS
    recipe = TrainConfig(
        data=training.data,
        method=training.method,
        image_size=32 if small_images else 224,
        augment="crop_flip" if small_images else "resized_crop_flip",
        model=models.get(training.network, training.network),
        head_layers=training.head_layers,
        head="fc" if training.head_layers == 2 else None,
        epochs=200,
        batch_size=128 if small_images else 32,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        schedule="step",
        warmup_epochs=0,
        linear_probe=False,
        freeze_bn=False,
        channels_last=False,
        **vars(BILINEAR),
        milestones=(0.5, 0.75),
        gamma=0.1,
    )
    if training.data == "imagenet":
        return replace(recipe, epochs=90, milestones=(1 / 3, 2 / 3), batch_size=256, accumulate=8)
    if training.data == "caltech101":  # not the paper's: few photographs per class, as in CUB-200-2011
        return replace(
            recipe,
            image_size=64,
            epochs=100,
            precision="bf16-mixed",
            channels_last=True,
            eval_every=25,
        )
    return recipe


def check_run(run: Path, recipe: TrainConfig, size: DatasetSize) -> None:
    """Refuse a run's folder that belongs to another recipe, or to other images than the scale uses.

    Args:
        run: the folder; it may be missing.
        recipe: of the planned run; its method is spelled as in a run's.
    """
    remedy = "choose another `out`, or delete it"
    if (run / "recipe.yaml").is_file():
        there = ResolvedTrainConfig.from_yaml(run / "recipe.yaml")
        if differing := replace(recipe, classes=size.classes).differences(there):
            raise ValueError(f"{run} belongs to another recipe: {', '.join(differing)}; {remedy}")
    is_finished = (run / "result.json").is_file()
    if is_finished and (found := recorded_size(RunRecord.load(run / "result.json"))) != size:
        raise ValueError(f"{run} was trained on {found}, not on {size}; {remedy}")


def write_synthetic_images(folder: Path, data: str) -> None:
    """Write ``train.npz`` and ``test.npz``, one colour per class plus noise; a file that exists is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(DATASETS).index(data))
    colours = generator.integers(60, 196, (_SYNTHETIC_CLASSES, 1, 1, 3))
    for name, per_class in _SYNTHETIC_PER_CLASS.items():
        labels = np.repeat(np.arange(_SYNTHETIC_CLASSES), per_class)
        noise = generator.normal(0, 40, (len(labels), _SYNTHETIC_PIXELS, _SYNTHETIC_PIXELS, 3))
        images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
        if not (folder / f"{name}.npz").is_file():
            np.savez_compressed(folder / f"{name}.npz", images=images, labels=labels)
