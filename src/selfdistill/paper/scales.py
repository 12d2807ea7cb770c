"""At what scale a table is reproduced, and the recipe of each of its trainings there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from selfdistill.config import TrainConfig
from selfdistill.methods import parse_method
from selfdistill.paper.sizes import PER_CLASS, Size, recorded
from selfdistill.paper.tables import SETS, PaperTable, Training
from selfdistill.records import RunRecord
from selfdistill.runs.grid import PlannedRun, slug

Scale = Literal["smoke", "small", "medium", "full"]

SEEDS = (41, 42, 43)
"""Those of the published runs."""

IN_WORDS = {
    "smoke": "smoke: synthetic images and a tiny network; it shows that everything runs, its numbers mean nothing",
    "small": "small: CIFAR-100 with 15 training images of each class at 16 px, a quarter of the width, 200 epochs",
    "medium": "medium: CIFAR-100 with 30 training images of each class at 16 px, half of the width, 200 epochs",
    "full": "full: the paper's protocol",
}

FAST: dict[str, Any] = {"precision": "bf16-mixed", "channels_last": True, "compile": True}
"""What a GPU makes fastest; the paper trained in float32."""

_CIFAR = {"resnet18": "resnet18_cifar", "resnet34": "resnet34_cifar", "densenet121": "densenet121_cifar"}
_WIDTHS = {"small": 16, "medium": 32}  # of the first stage; 64 at the full scale
_PHOTOGRAPHS = {"resnet18": "torchvision:resnet18", "resnet152": "torchvision:resnet152"}
_TINY = {"resnet34": ("resnet10_cifar", 6), "densenet121": ("resnet10_cifar", 8), "resnet18_byot224": (None, 4)}
_KEPT = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Setting:
    """Where and at what scale tables are reproduced.

    Attributes:
        scale: "smoke", "small", "medium" or "full".
        out: the folder; runs are in ``out/runs``.
        data_root: where named sets are kept.
        seeds: in the place of the scale's own; empty: those.
        fast: train with `FAST`, a departure from the paper's float32 that the pages name.
    """

    scale: Scale
    out: Path
    data_root: Path = Path("data")
    seeds: tuple[int, ...] = ()
    fast: bool = False

    @property
    def said(self) -> str:
        """The scale in words."""
        return IN_WORDS[self.scale] + (", but in bfloat16, compiled, where it is float32" if self.fast else "")

    def seeds_of(self, table: PaperTable) -> tuple[int, ...]:
        """Return the seeds of a table's runs: 41, 42, 43, or 41 alone."""
        one = self.scale == "smoke" or table.one_seed
        return self.seeds or (SEEDS[:1] if one else SEEDS)

    def refusal(self, training: Training) -> str | None:
        """Why a training is not made at this scale; None: it is."""
        at = {"cifar100": ("small", "medium", "full"), "caltech101": ("medium",)}.get(training.data, ("full",))
        if self.scale != "smoke" and self.scale not in at:
            return f"{SETS[training.data]} is trained on at the scale {' or '.join(at)} alone"
        return None

    def cell(self, training: Training, seed: int) -> PlannedRun:
        """Return a training's run: the name of its folder below ``out/runs``, and its recipe."""
        layers = "" if training.head_layers == 1 else f"-{training.head_layers}fc"
        method = repr(parse_method(training.method))
        name = f"{training.data}-{training.network}{layers}-{slug(method)}-seed{seed}-{self.scale}"
        recipe = replace(full_recipe(training), method=method, seed=seed, data_root=str(self.data_root))
        if training.data == "caltech101":  # a folder of photographs, no named set
            recipe = replace(recipe, data=str(self.data_root / recipe.data))
        if self.scale in PER_CLASS and training.data == "cifar100":
            recipe = _few_images(recipe, training, self.scale)
        elif self.scale == "smoke":
            recipe = _smoke(recipe, training, self.images(training.data))
        if training == Training("SDDropout()"):  # Table 8 and Fig. 4 look at its networks on the way
            recipe = replace(recipe, keep_epochs=kept_epochs(recipe.epochs))
        return PlannedRun(name, replace(recipe, **FAST) if self.fast else recipe)

    def cells(self, trainings: Sequence[Training], seeds: Sequence[int]) -> list[PlannedRun]:
        """Return the runs of several trainings, seed by seed."""
        return [self.cell(training, seed) for seed in seeds for training in trainings]

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.out / "runs"

    def images(self, data: str) -> Path:
        """The folder of the synthetic images that stand for a data set at the scale "smoke"."""
        return self.out / "images" / data


def full_recipe(training: Training) -> TrainConfig:
    """Return the paper's recipe of a training (Sections 4.1.1 and 4.1.2), but for its seed.

    Of ImageNet the paper's batch of 32 is read as that of each of 8 GPUs, as in the authors' script: 256 images a step
    at the rate of 0.1, in 8 passes over all devices, so that BatchNorm sees 32 on one GPU too. Two fully connected
    layers are one head, so that the dropout stands before the first (Table 13).

    Example:
        >>> recipe = full_recipe(Training("SDDropout(weight=0.1)", "imagenet", "resnet152"))
        >>> recipe.model, recipe.epochs, recipe.batch_size, recipe.accumulate, recipe.lr
        ('torchvision:resnet152', 90, 256, 8, 0.1)
    """
    if training.data == "caltech101":
        return _few_photographs(training)
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
        lr=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        milestones=(0.5, 0.75),
        gamma=0.1,
    )
    if training.data == "imagenet":
        return replace(recipe, epochs=90, milestones=(1 / 3, 2 / 3), batch_size=256, accumulate=8)
    return recipe


def _few_photographs(training: Training) -> TrainConfig:
    """Caltech-101 below ``data_root``, from scratch; the paper has nothing like it but CUB-200-2011."""
    return TrainConfig(
        data="caltech101",
        method=training.method,
        image_size=64,
        augment="resized_crop_flip",
        model="torchvision:resnet18",
        epochs=100,
        batch_size=32,
        lr=0.1,
        precision="bf16-mixed",
        channels_last=True,
        cache=True,
        eval_every=25,
    )


def kept_epochs(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which SD-Dropout's weights are kept: the first, and each quarter.

    Example:
        >>> kept_epochs(200), kept_epochs(2)
        ((1, 50, 100, 150, 200), (1, 2))
    """
    return tuple(sorted({1, *(max(1, round(share * epochs)) for share in _KEPT)}))


def check_run(run: Path, recipe: TrainConfig, size: Size) -> None:
    """Refuse a run's folder that is of another recipe, or of other images than the scale has.

    Args:
        run: the folder; it need not be there.
        recipe: of a table's cell; its method is spelled as in a run's.
        size: of the images.

    Raises:
        ValueError: names the differing fields, or the images.
    """
    remedy = "choose another `out`, or delete it"
    if (run / "recipe.yaml").is_file():
        there = TrainConfig.from_yaml(run / "recipe.yaml")
        if differing := replace(recipe, classes=size.classes).differences(there):
            raise ValueError(f"{run} belongs to another recipe: {', '.join(differing)}; {remedy}")
    finished = (run / "result.json").is_file()
    if finished and (found := recorded(RunRecord.load(run / "result.json"))) != size:
        raise ValueError(f"{run} was trained on {found}, not on {size}; {remedy}")


def _few_images(recipe: TrainConfig, training: Training, scale: str) -> TrainConfig:
    """Few images of many classes, which the network fits: as the paper's CUB-200-2011, in minutes on a CPU."""
    width = _WIDTHS[scale] // (2 if training.network == "densenet121" else 1)  # its growth rate is 32 at the full scale
    return replace(
        recipe,
        per_class=PER_CLASS[scale],
        image_size=16,
        batch_size=32,
        width=width,
        features=512,
        precision="bf16-mixed",
        channels_last=True,
        eval_every=50,
    )


def _smoke(recipe: TrainConfig, training: Training, images: Path) -> TrainConfig:
    model, width = _TINY.get(training.network, ("resnet10_cifar", 4))
    return replace(
        recipe,
        data=str(images),
        image_size=32,
        augment="crop_flip",
        model=model or recipe.model,
        width=width,
        epochs=2,
        batch_size=16,
        lr=0.01,
        threads=1,
    )
