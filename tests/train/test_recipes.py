"""Every shipped recipe loads and takes a step with its real model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from selfdistill.data import ImageData, Split
from selfdistill.train import Recipe
from selfdistill.train.session import assemble, make_fabric

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def synthetic(recipe: Recipe, folder: Path, n: int) -> ImageData:
    """Noise at the recipe's size: in memory, or as files where the augmentation wants those."""
    size = recipe.image_size or 32
    labels = torch.arange(n) % (recipe.classes or 3)
    pixels = torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(labels, images=pixels)
    if recipe.augment == "resized_crop_flip":
        paths = tuple(folder / f"{i}.png" for i in range(n))
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        split = Split(labels, paths=paths)
    names = tuple(str(i) for i in range(recipe.classes or 3))
    return ImageData("noise", split, split, names, (0.5,) * 3, (0.25,) * 3, size, "none", "test folder")


def test_there_are_recipes() -> None:
    assert {"cifar100", "cifar100_sd_dropout", "digits", "folder_224", "fine_tune"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_whole_dump_with_the_comments_of_today(path: Path) -> None:
    assert path.read_text() == Recipe.from_yaml(path).to_yaml()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_takes_a_step(path: Path, tmp_path: Path) -> None:
    given = Recipe.from_yaml(path)
    # Two images in a step, so that it takes a second; pretrained weights are not downloaded here.
    recipe = replace(given, batch_size=2, weights="none", workers=0)
    data = synthetic(recipe, tmp_path, 2)
    resolved = recipe.resolve(data)
    assert replace(resolved, classes=given.classes) == replace(recipe, method=resolved.method)
    session = assemble(resolved, data, make_fabric(resolved, accelerator="cpu"))
    before = [parameter.detach().clone() for parameter in session.distiller.parameters()]
    middle = session.loader.steps * recipe.epochs // 2
    (output,) = session.step(next(session.loader.epoch(0)), middle)
    assert output.loss.isfinite()
    moved = [not torch.equal(a, b) for a, b in zip(before, session.distiller.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("name", ["cifar100", "cifar100_sd_dropout"])
def test_the_papers_settings(name: str) -> None:
    recipe = Recipe.from_yaml(Path(__file__).parents[2] / "recipes" / f"{name}.yaml")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum) == (200, 128, 0.1, 0.9)
    assert (recipe.nesterov, recipe.weight_decay, recipe.milestones) == (False, 1e-4, (0.5, 0.75))
    assert (recipe.model, recipe.width, recipe.augment, recipe.warmup_epochs) == (
        "resnet18_cifar",
        None,
        "crop_flip",
        0,
    )
