"""Score a finished run again: on its own images, or on others of the same classes."""

from dataclasses import replace
from pathlib import Path

import torch

from selfdistill.data import ImageData, Split, load_data
from selfdistill.data.sets import HELD_OUT
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.evaluate.suite import Progress
from selfdistill.runs.evaluation import EvaluationConfig, measure
from selfdistill.train import LoadedModel, Recipe, load_run
from selfdistill.train.run import load


def own_images(run: Path) -> ImageData:
    """Load the images that a run was trained and scored on; refuse them where their classes are others by now."""
    recipe = run / "recipe.yaml"
    if not recipe.is_file():
        raise ValueError(f"{run} is no run's folder, so its images are not known: say which with `data`")
    # Measuring decodes most files once: for that no cache is worth making.
    return _prepared_for(run, load_run(run), load(replace(Recipe.from_yaml(recipe), cache=False)))


def rescore(
    run: Path,
    data: str,
    *,
    config: EvaluationConfig,
    progress: Progress | None = None,
) -> tuple[ImageData, Evaluation]:
    """Return other images of a run's classes and the evaluation of its network on them.

    Images are prepared as the network was trained: its size, its mean and its deviation.

    Args:
        run: the run's folder, or an exported file of weights.
        data: the images; those without a test part are all scored.
        config: which evaluations to run.
        progress: called while it goes.

    Raises:
        ValueError: no finished run, images that cannot be loaded, or other classes than the network's.
    """
    loaded = load_run(run)
    images = load_data(
        data, root=config.data_root, image_size=loaded.image_size, skip_unreadable=config.skip_unreadable
    )
    images = _prepared_for(run, loaded, all_images(images))
    return images, measure(loaded, images, config, train=False, progress=progress)


def all_images(images: ImageData) -> ImageData:
    """Return a set whose test part is everything where it had none of its own."""
    if images.test_split_description != HELD_OUT:
        return images
    return replace(images, test=_joined(images.train, images.test), test_split_description="all images")


def _prepared_for(run: Path, loaded: LoadedModel, images: ImageData) -> ImageData:
    """The images with the mean and the deviation that a run's network was trained with, if the classes are its own."""
    if images.classes != loaded.classes:
        raise ValueError(
            f"{images.name} has other classes than {run}: {_first_difference(images.classes, loaded.classes)}"
        )
    return replace(images, mean=loaded.mean, std=loaded.std)


def _joined(a: Split, b: Split) -> Split:
    labels = torch.cat((a.labels, b.labels))
    if a.images is not None and b.images is not None:
        return Split(labels, images=torch.cat((a.images, b.images)))
    assert a.paths is not None
    assert b.paths is not None
    boxes = None if a.boxes is None or b.boxes is None else torch.cat((a.boxes, b.boxes))
    return Split(labels, paths=a.paths + b.paths, boxes=boxes)


def _first_difference(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    if len(here) != len(there):
        return f"{len(here)} instead of {len(there)}"
    at = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    return f"class {at} is {here[at]!r} instead of {there[at]!r}"
