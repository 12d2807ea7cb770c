"""Every shipped recipe loads, says what it must, and takes a step with its real model."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from selfdistill.cli.options import RECIPES
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, Split
from selfdistill.training.classification import assemble
from selfdistill.training.meters import Meters
from selfdistill.training.session import make_fabric

FILES = sorted(RECIPES.glob("*.yaml"))


def synthetic(recipe: TrainConfig, folder: Path, n: int) -> ImageData:
    """Noise at the recipe's size: in memory, or as files where the recipe is for photographs."""
    size, classes = recipe.image_size or 32, 3
    labels = torch.arange(n) % classes
    pixels = torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split, augment = Split(labels, images=pixels), "crop_flip"
    if recipe.data == "photos":
        paths = tuple(folder / f"{i}.png" for i in range(n))
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        split, augment = Split(labels, paths=paths), "resized_crop_flip"
    names = tuple(str(i) for i in range(classes))
    return ImageData("noise", split, split, names, (0.5,) * 3, (0.25,) * 3, size, augment, "test folder")


def test_there_are_recipes() -> None:
    assert {"cifar100", "cifar100_sd_dropout", "digits", "folder_224", "fine_tune"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_holds_what_differs_from_the_defaults(path: Path) -> None:
    written = yaml.safe_load(path.read_text())
    assert path.read_text().startswith("# "), "it says what it is for"
    assert {"data", "method"} <= written.keys(), "it says what is trained on, and how"
    recipe, default = TrainConfig.from_yaml(path), TrainConfig()
    for name in written.keys() - {"data", "method"}:
        assert getattr(recipe, name) != getattr(default, name), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_takes_a_step(path: Path, tmp_path: Path) -> None:
    # Two images in a step, so that it takes a second; pretrained weights are not downloaded here.
    recipe = replace(TrainConfig.from_yaml(path), batch_size=2, weights="none", workers=0)
    data = synthetic(recipe, tmp_path, 2)
    resolved = recipe.resolve(data)
    session = assemble(resolved, data, make_fabric(resolved, accelerator="cpu"))
    distiller, meters = session.task.distiller, Meters(session.device, session.task.counts)
    before = [parameter.detach().clone() for parameter in distiller.parameters()]
    session.step(next(session.task.loader.epoch(0)), session.steps * resolved.epochs // 2, meters)
    assert math.isfinite(meters.means().loss)
    moved = [not torch.equal(a, b) for a, b in zip(before, distiller.parameters(), strict=True)]
    assert all(moved)


# What the recipes say and leave out, with the images that they are for.
@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("cifar100", {"method": "CrossEntropy()", "model": "resnet18_cifar", "batch_size": 128, "lr": 0.1}),
        ("cifar100_sd_dropout", {"method": "SDDropout()", "model": "resnet18_cifar", "batch_size": 128, "lr": 0.1}),
        ("digits", {"method": "SDDropout(weight=0.1)", "model": "resnet10_cifar", "batch_size": 32, "lr": 0.05}),
        ("folder_224", {"model": "torchvision:resnet18", "batch_size": 32, "lr": 0.1, "augment": "resized_crop_flip"}),
        ("fine_tune", {"model": "torchvision:resnet18", "batch_size": 32, "lr": 1e-4, "augment": "resized_crop_flip"}),
    ],
)
def test_the_resolved_recipe_has_the_rest(name: str, resolved: dict[str, object], tmp_path: Path) -> None:
    recipe = TrainConfig.from_yaml(RECIPES / f"{name}.yaml")
    whole = recipe.resolve(synthetic(recipe, tmp_path, 2))
    assert {field: getattr(whole, field) for field in resolved} == resolved
    assert (whole.momentum, whole.nesterov, whole.weight_decay) == (0.9, False, 0.05 if recipe.fine_tunes else 1e-4)


@pytest.mark.parametrize("name", ["cifar100", "cifar100_sd_dropout"])
def test_the_papers_settings(name: str, tmp_path: Path) -> None:
    recipe = TrainConfig.from_yaml(RECIPES / f"{name}.yaml")
    recipe = recipe.resolve(synthetic(recipe, tmp_path, 2))
    assert (recipe.optimizer, recipe.epochs, recipe.schedule, recipe.milestones, recipe.gamma) == (
        "sgd",
        200,
        "step",
        (0.5, 0.75),
        0.1,
    )
    assert (recipe.width, recipe.warmup_epochs, recipe.clip) == (None, 0, None)
