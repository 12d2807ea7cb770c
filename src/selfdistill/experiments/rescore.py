"""Score a finished run again: on its own images, or on others of the same classes."""

from dataclasses import replace
from pathlib import Path

import torch

from selfdistill.data import ImageData, load_data
from selfdistill.evaluate.suite import Evaluation, evaluate
from selfdistill.train import Recipe, load_run
from selfdistill.train.run import load


def rescore(run: Path, *, data: str | None = None, data_root: Path = Path("data")) -> tuple[ImageData, Evaluation]:
    """Return the images and the evaluation of a run's network on them.

    Images are prepared as the network was trained: its size, its mean and its deviation.

    Args:
        run: the run's folder.
        data: other images than the run's own.
        data_root: where named sets are kept, for such other images.

    Raises:
        ValueError: no finished run, images that cannot be loaded, or other classes than the network's.
    """
    loaded = load_run(run)
    recipe = Recipe.from_yaml(run / "recipe.yaml")
    images = load(recipe) if data is None else load_data(data, root=data_root, image_size=loaded.image_size)
    if images.classes != loaded.classes:
        raise ValueError(
            f"{images.name} has other classes than {run}: {_first_difference(images.classes, loaded.classes)}"
        )
    images = replace(images, mean=loaded.mean, std=loaded.std)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return images, evaluate(loaded.model.to(device), images, device=device, train=data is None)


def _first_difference(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    if len(here) != len(there):
        return f"{len(here)} instead of {len(there)}"
    at = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    return f"class {at} is {here[at]!r} instead of {there[at]!r}"
