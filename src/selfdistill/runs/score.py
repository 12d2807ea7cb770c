"""Evaluate one network: that of a run on its own or other images, or an external model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, load_data
from selfdistill.errors import ArgumentError, naming
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.evaluate.suite import Progress
from selfdistill.files import refuse_link
from selfdistill.records import RunRecord
from selfdistill.runs.evaluation import EvaluationConfig, evaluate_run, measure
from selfdistill.runs.external import all_images, load_external
from selfdistill.runs.folders import name_of
from selfdistill.runs.progress import evaluation_progress
from selfdistill.train import LoadedModel, load_run
from selfdistill.train.record import provenance
from selfdistill.train.run import load


@dataclass(frozen=True)
class Scored:
    """What was measured of one network.

    Attributes:
        title: the network and the images.
        label: the network.
        folder: where its report belongs.
        evaluation: the numbers.
        facts: what a page says of the network, the images and the machine.
        skipped: unreadable files that were left out.
        record: the run's record with what was measured, where the whole suite was run on the run's own images.
    """

    title: str
    label: str
    folder: Path
    evaluation: Evaluation
    facts: tuple[tuple[str, str], ...]
    skipped: Sequence[Path]
    record: RunRecord | None = None


def score(
    run: Path | None,
    model: str | None,
    data: str | None,
    config: EvaluationConfig,
    *,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    width: int | None = None,
) -> Scored:
    """Measure the network of a run, as :func:`score_run`, or any other, as :func:`score_external`.

    Args:
        run: a run's folder or an exported file; or None.
        model: a network's name instead; or None.
        data: the images; a run has its own.
        config: which evaluations to run.
        checkpoint: of ``model`` alone, as the rest.
        image_size: as for :func:`score_external`.
        mean: as for :func:`score_external`.
        std: as for :func:`score_external`.
        width: as for :func:`score_external`.

    Raises:
        ArgumentError: both or neither of ``run`` and ``model``; an argument that belongs to the other.
        ValueError: what the two raise.
    """
    if (run is None) == (model is None):
        raise ArgumentError("run", "or `model` must be given, and not both")
    if model is not None:
        if data is None:
            raise ArgumentError("data", "must be given with `model`: the images that it is evaluated on")
        with naming(model):
            return score_external(
                model, checkpoint, data, config, image_size=image_size, mean=mean, std=std, width=width
            )
    assert run is not None
    of_model = {"checkpoint": checkpoint, "image_size": image_size, "mean": mean, "std": std, "width": width}
    for name, value in of_model.items():
        if value is not None:
            raise ArgumentError(name, "belongs to `model`: a run knows its own")
    with naming(run):
        return score_run(run, data, config)


def score_run(run: Path, data: str | None, config: EvaluationConfig) -> Scored:
    """Evaluate the network of a run; on its own images with more than accuracy, save the numbers beside its record.

    Args:
        run: the run's folder, or an exported file of weights.
        data: other images than the run's own.
        config: which evaluations to run.

    Raises:
        ValueError: no finished run, images that cannot be loaded, or other classes than the network's.
    """
    loaded = load_run(run)  # before its images are decoded: a wrong folder is refused at once
    record = None
    with evaluation_progress(Console(stderr=True)) as progress:
        if data is not None:
            images, evaluation = rescore(run, data, config=config, progress=progress)
        else:
            images = own_images(run)
            if config.measures:
                record = evaluate_run(run, images, config, progress=progress)
                evaluation = Evaluation.from_dict(
                    {name: record.evaluation[name] for name in Evaluation.__dataclass_fields__}
                )
            else:
                evaluation = measure(loaded, images, config, progress=progress)
    return Scored(
        f"{run} on {images.name} ({images.test_split_description})",
        str(run),
        run if data is None else refuse_link(run / f"on-{name_of(data)}"),
        evaluation,
        _facts(str(run), loaded, images),
        images.skipped,
        record,
    )


def score_external(
    model: str,
    checkpoint: Path | None,
    data: str,
    config: EvaluationConfig,
    *,
    image_size: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    width: int | None,
) -> Scored:
    """Evaluate an external model: torchvision's, timm's or one of our networks with the weights of a file.

    Args:
        model: its name.
        checkpoint: the file of its weights; None: the package's own.
        data: the images, with the classes that it was trained for.
        config: which evaluations to run.
        image_size: None: what the network was trained at.
        mean: None: that of the package's weights.
        std: likewise.
        width: of our own networks.

    Raises:
        ValueError: the network, its weights and the images do not fit each other.
        OSError: the weights cannot be read or downloaded.
    """
    external = load_external(
        model,
        checkpoint,
        data,
        data_root=config.data_root,
        image_size=image_size,
        mean=mean,
        std=std,
        width=width,
        skip_unreadable=config.skip_unreadable,
    )
    images = external.data
    loaded = LoadedModel(external.model, images.classes, images.image_size, images.mean, images.std)
    with evaluation_progress(Console(stderr=True)) as progress:
        evaluation = measure(
            loaded, images, config, train=images.test_split_description != "all images", progress=progress
        )
    weights = "the package's pretrained weights" if checkpoint is None else checkpoint.name
    facts = _facts(f"{model}, {weights}", loaded, images)
    return Scored(
        f"{model} on {images.name} ({images.test_split_description})",
        model,
        Path("runs") / f"{model.replace(':', '-')}-on-{name_of(data)}",
        evaluation,
        (*facts, ("preparation", external.prepared)),
        images.skipped,
    )


def _facts(network: str, loaded: LoadedModel, images: ImageData) -> tuple[tuple[str, str], ...]:
    where = provenance(next(loaded.model.parameters()).device)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    return (
        ("network", f"{network}; {parameters:,} parameters"),
        (
            "images",
            f"{images.name} ({images.test_split_description}), {len(images.classes)} classes, {images.image_size} px",
        ),
        ("device", f"{where['device']}, {where['threads']} threads"),
        *((package, number) for package, number in where["versions"].items()),
        ("commit", where["commit"] or "installed package"),
        ("date", where["date"]),
    )


def own_images(run: Path) -> ImageData:
    """Load the images that a run was trained and scored on; refuse them where their classes are others by now."""
    recipe = run / "recipe.yaml"
    if not recipe.is_file():
        raise ValueError(f"{run} is not the folder of a run, so its images are not known: name them with `data`")
    # Measuring decodes most files once: for that no cache is worth making.
    return _prepared_for(run, load_run(run), load(replace(TrainConfig.from_yaml(recipe), cache=False)))


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


def _prepared_for(run: Path, loaded: LoadedModel, images: ImageData) -> ImageData:
    """The images with the mean and the deviation that a run's network was trained with, if the classes are its own."""
    if images.classes != loaded.classes:
        raise ValueError(
            f"{images.name} has other classes than {run}: {_first_difference(images.classes, loaded.classes)}"
        )
    return replace(images, mean=loaded.mean, std=loaded.std)


def _first_difference(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    if len(here) != len(there):
        return f"{len(here)} instead of {len(there)}"
    at = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    return f"class {at} is {here[at]!r} instead of {there[at]!r}"
