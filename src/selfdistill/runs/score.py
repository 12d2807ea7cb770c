"""Measure one network: a run's on its own images or on others, or anybody's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.records import RunRecord
from selfdistill.runs.evaluation import EvaluationConfig, evaluate_run, measure
from selfdistill.runs.external import load_external
from selfdistill.runs.folders import name_of
from selfdistill.runs.images import own_images, rescore
from selfdistill.runs.progress import evaluation_progress
from selfdistill.train import LoadedModel, load_run
from selfdistill.train.record import provenance


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
        return score_external(model, checkpoint, data, config, image_size=image_size, mean=mean, std=std, width=width)
    assert run is not None
    of_model = {"checkpoint": checkpoint, "image_size": image_size, "mean": mean, "std": std, "width": width}
    for name, value in of_model.items():
        if value is not None:
            raise ArgumentError(name, "belongs to `model`: a run knows its own")
    return score_run(run, data, config)


def score_run(run: Path, data: str | None, config: EvaluationConfig) -> Scored:
    """Measure a run's network; on its own images with more than accuracy, the numbers are kept beside its record.

    Args:
        run: the run's folder, or an exported file of weights.
        data: other images than the run's own.
        config: which evaluations to run.

    Raises:
        ValueError: no finished run, images that cannot be loaded, or other classes than the network's.
    """
    loaded = load_run(run)  # before its images are decoded: a wrong folder is told at once
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
        run if data is None else run / f"on-{name_of(data)}",
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
    """Measure a network of torchvision, timm or our own that is no run of ours.

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
    foreign = load_external(
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
    images = foreign.data
    loaded = LoadedModel(foreign.model, images.classes, images.image_size, images.mean, images.std)
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
        (*facts, ("preparation", foreign.prepared)),
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
