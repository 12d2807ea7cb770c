"""The recipes of each scale, dataset sizes, and synthetic images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfdistill.config import TrainConfig
from selfdistill.config.schedule import learning_rate
from selfdistill.data import ImageData, load_data
from selfdistill.methods import parse_method
from selfdistill.paper import (
    TABLES,
    PaperConfig,
    Scale,
    find_tables,
    reproduce_table,
)
from selfdistill.paper.listing import write_commands
from selfdistill.paper.scales import (
    Training,
    check_run,
    dataset_size,
    write_synthetic_images,
)

TRAININGS = list(
    dict.fromkeys(training for name, table in TABLES.items() if name != "caltech101" for training in table.trainings)
)


def test_caltech101_is_trained_from_scratch_at_64_px(tmp_path: Path) -> None:
    config = PaperConfig("medium", tmp_path, tmp_path / "data")
    training = Training("SDDropout()", "caltech101")
    recipe = config.plan_run(training, 41).recipe
    assert (recipe.data, recipe.model, recipe.weights) == (
        str(tmp_path / "data" / "caltech101"),
        "torchvision:resnet18",
        "none",
    )
    assert (recipe.image_size, recipe.batch_size, recipe.epochs, recipe.lr) == (64, 32, 100, 0.1)
    assert (recipe.width, recipe.features, recipe.per_class) == (None, None, None)
    assert config.skip_reason(training) is None
    assert {PaperConfig(scale, tmp_path).skip_reason(training) for scale in ("small", "full")} == {
        "Caltech-101 is only trained on at scale medium"
    }


@pytest.mark.parametrize("training", TRAININGS, ids=lambda one: f"{one.data}-{one.network}-{one.method}")
def test_a_full_recipe_is_the_papers(training: Training, tmp_path: Path) -> None:
    recipe = PaperConfig("full", tmp_path).plan_run(training, 42).recipe
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert TrainConfig.from_yaml(tmp_path / "recipe.yaml") == recipe
    assert (recipe.seed, recipe.momentum, recipe.weight_decay, recipe.gamma) == (42, 0.9, 1e-4, 0.1)
    assert (recipe.nesterov, recipe.warmup_epochs, recipe.weights, recipe.schedule) == (False, 0, "none", "step")
    assert (recipe.precision, recipe.width, recipe.classes, recipe.per_class) == ("32-true", None, None, None)
    assert recipe.lr is not None
    imagenet = training.data == "imagenet"
    assert (recipe.epochs, recipe.lr) == ((90, 0.1) if imagenet else (200, 0.1))
    assert recipe.batch_size == {"cifar100": 128, "imagenet": 256}.get(training.data, 32)
    assert recipe.batch_size // recipe.accumulate == (128 if training.data == "cifar100" else 32)  # what BatchNorm sees
    assert recipe.image_size == (32 if training.data == "cifar100" else 224)
    drops = [30, 60] if imagenet else [100, 150]
    for times, epoch in enumerate(drops, start=1):
        before, after = (
            learning_rate(at, epochs=recipe.epochs, lr=recipe.lr, milestones=recipe.milestones)
            for at in (epoch - 0.01, epoch)
        )
        assert before == pytest.approx(recipe.lr * 0.1 ** (times - 1))
        assert after == pytest.approx(recipe.lr * 0.1**times)
    assert repr(parse_method(recipe.method)) == recipe.method


@pytest.mark.parametrize(("scale", "per_class", "width"), [("small", 15, 16), ("medium", 30, 32)])
def test_small_and_medium_scale_recipes(tmp_path: Path, scale: Scale, per_class: int, width: int) -> None:
    config = PaperConfig(scale, tmp_path)
    recipe = config.plan_run(Training("SDDropout()", network="densenet121"), 43).recipe
    assert (recipe.classes, recipe.per_class, recipe.image_size) == (None, per_class, 16)
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.milestones) == (200, 32, 0.1, (0.5, 0.75))
    assert (recipe.width, recipe.features) == (width // 2, 512)
    assert (recipe.precision, recipe.channels_last) == ("bf16-mixed", True)
    assert config.plan_run(Training("CrossEntropy()"), 41).recipe.width == width
    assert dataset_size("cifar100", scale) == (100 * per_class, 10_000, 100)
    assert TABLES["table1"].seeds(config) == (41, 42, 43)
    assert TABLES["table14"].seeds(config) == (41,)
    for table in TABLES.values():
        expected = (41,) if table.name in ("table3", "table4", "table14") else (41, 42, 43)
        assert table.seeds(PaperConfig("full", tmp_path)) == expected
    assert TABLES["table14"].seeds(PaperConfig(scale, tmp_path, seeds=(1, 2))) == (1, 2)
    result = reproduce_table(find_tables("table3")[0], config)
    assert {cell.missing_reason for cell in result.cells} == {"ImageNet is only trained on at scale full"}
    assert list(tmp_path.iterdir()) == []


def test_sd_dropout_keeps_the_weights_that_table_8_needs(tmp_path: Path) -> None:
    config = PaperConfig("full", tmp_path)
    assert config.plan_run(Training("SDDropout()"), 41).recipe.keep_epochs == (1, 50, 100, 150, 200)
    assert config.plan_run(Training("CrossEntropy()"), 41).recipe.keep_epochs == ()


@pytest.mark.parametrize(
    ("changed", "differing"),
    [
        ({"per_class": 100}, r"per_class \(100 there, None here\)"),
        ({"test_per_class": 5}, r"test_per_class \(5 there, None here\)"),
        ({"classes": 20}, r"classes \(20 there, 100 here\)"),
        ({"width": 16}, r"width \(16 there, None here\)"),
        ({"features": 8, "clip": 1.0}, r"features \(8 there, None here\), clip \(1.0 there, None here\)"),
    ],
)
def test_a_run_of_another_recipe_is_refused(changed: dict[str, Any], differing: str, tmp_path: Path) -> None:
    """A printed command with an option added leaves such a run."""
    config = PaperConfig("full", tmp_path)
    planned = config.plan_run(Training("CrossEntropy()"), 41)
    run = config.runs / planned.name
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(replace(planned.recipe, **({"classes": 100, "threads": 4} | changed)).to_yaml())
    with pytest.raises(ValueError, match=differing):
        write_commands([TABLES["table12"]], config)
    (run / "recipe.yaml").write_text(replace(planned.recipe, classes=100, threads=4, workers=8).to_yaml())
    check_run(run, planned.recipe, dataset_size("cifar100", "full"))


def test_a_run_of_an_earlier_version_is_not_refused(tmp_path: Path) -> None:
    """Its recipe leaves out fields that came later, and belongs to them as it was trained."""
    planned = PaperConfig("small", tmp_path).plan_run(Training("CrossEntropy()"), 41)
    resolved = replace(planned.recipe, linear_probe=False, freeze_bn=False, optimizer="sgd", backbone_lr=None)
    lines = replace(resolved, classes=100).to_yaml().splitlines()
    later = ("linear_probe", "freeze_bn", "optimizer")
    (tmp_path / "recipe.yaml").write_text("\n".join(line for line in lines if not line.startswith(later)))
    check_run(tmp_path, resolved, dataset_size("cifar100", "small"))


def test_synthetic_images_differ_by_dataset(tmp_path: Path) -> None:
    for name in ("cifar100", "cub200"):
        write_synthetic_images(tmp_path / name, name)
    sets: list[ImageData] = [load_data(str(tmp_path / name)) for name in ("cifar100", "cub200")]
    assert [(len(one.train), len(one.test), len(one.classes)) for one in sets] == [(64, 32, 8)] * 2
    assert not np.array_equal(sets[0].train.images, sets[1].train.images)
    before = (tmp_path / "cifar100" / "train.npz").stat().st_mtime_ns
    write_synthetic_images(tmp_path / "cifar100", "cifar100")
    assert (tmp_path / "cifar100" / "train.npz").stat().st_mtime_ns == before
