"""Score a finished run again: on its own images, or on others of the same classes."""

from dataclasses import replace
from pathlib import Path

import torch

from selfdistill.data import ImageData, Split, load_data
from selfdistill.data.decode import cpu_count
from selfdistill.data.sets import HELD_OUT
from selfdistill.evaluate.suite import Evaluation, evaluate
from selfdistill.train import Recipe, load_run
from selfdistill.train.recipe import SMALL
from selfdistill.train.run import load


def rescore(
    run: Path, *, data: str | None = None, data_root: Path = Path("data"), skip_unreadable: bool = False
) -> tuple[ImageData, Evaluation]:
    """Return the images and the evaluation of a run's network on them.

    Images are prepared as the network was trained: its size, its mean and its deviation.

    Args:
        run: the run's folder.
        data: other images than the run's own; those without a test part are all scored.
        data_root: where named sets are kept, for such other images.
        skip_unreadable: leave unreadable files of such other images out.

    Raises:
        ValueError: no finished run, images that cannot be loaded, or other classes than the network's.
    """
    loaded = load_run(run)
    if data is None:
        images = load(Recipe.from_yaml(run / "recipe.yaml"))
    else:
        images = load_data(data, root=data_root, image_size=loaded.image_size, skip_unreadable=skip_unreadable)
    if images.classes != loaded.classes:
        raise ValueError(
            f"{images.name} has other classes than {run}: {_first_difference(images.classes, loaded.classes)}"
        )
    if data is not None and images.test_is == HELD_OUT:
        images = replace(images, test=_joined(images.train, images.test), test_is="all images")
    images = replace(images, mean=loaded.mean, std=loaded.std)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = loaded.image_size <= SMALL
    evaluation = evaluate(
        loaded.model.to(device),
        images,
        device=device,
        batch_size=512 if small else 64,
        workers=min(8, cpu_count()),
        train=data is None,
    )
    return images, evaluation


def _joined(a: Split, b: Split) -> Split:
    labels = torch.cat((a.labels, b.labels))
    if a.images is not None and b.images is not None:
        return Split(labels, images=torch.cat((a.images, b.images)))
    assert a.paths is not None
    assert b.paths is not None
    return Split(labels, paths=a.paths + b.paths)


def _first_difference(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    if len(here) != len(there):
        return f"{len(here)} instead of {len(there)}"
    at = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    return f"class {at} is {here[at]!r} instead of {there[at]!r}"
