"""Evaluate one network: that of a run on its own or other images, or an external model."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, load_data
from selfdistill.data.packed import ImageFile
from selfdistill.data.sources import absolute_source
from selfdistill.errors import ArgumentError, blaming, naming
from selfdistill.evaluation.predictions import with_grad_cam
from selfdistill.files import refuse_link
from selfdistill.models.function import is_function
from selfdistill.network import default_device
from selfdistill.progress import stage_bars
from selfdistill.records import Evaluation, Predictions, RunRecord
from selfdistill.runs.evaluation import EvaluationConfig, evaluate_run, measure
from selfdistill.runs.external import load_external
from selfdistill.runs.folders import name_of
from selfdistill.text import plain_name
from selfdistill.training import LoadedModel, load_run
from selfdistill.training.record import changes_since, provenance
from selfdistill.training.run import load


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
    skipped: Sequence[ImageFile]
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
    grad_cam: bool | str = False,
) -> Scored:
    """Measure the network of a run, as :func:`score_run`, or an external model.

    Args:
        run: a run's folder or an exported file; or None.
        model: a network's name instead, as for :func:`selfdistill.runs.external.load_external`; or None.
        data: the images; a run has its own.
        checkpoint: of ``model`` alone, as the rest; see :func:`selfdistill.runs.external.load_external`.
        grad_cam: of a run on its own images; see :func:`score_run`.

    Raises:
        ArgumentError: both or neither of ``run`` and ``model``; an argument that belongs to the other.
        ValueError: the network, its weights and the images do not fit each other.
        OSError: the weights cannot be read or downloaded.
    """
    of_model = {"checkpoint": checkpoint, "image_size": image_size, "mean": mean, "std": std, "width": width}
    elsewhere = {"model": model is not None, "data": data is not None, "quick=True": not config.measures}
    if grad_cam and (other := next((name for name, given in elsewhere.items() if given), None)):
        raise ArgumentError("grad_cam", f"is shown in the report of a run on its own images, and not with `{other}`")
    if run is not None and model is None:
        if given := next((name for name, value in of_model.items() if value is not None), None):
            raise ArgumentError(given, "belongs to `model`: a run knows its own")
        return score_run(run, data, config, grad_cam=grad_cam)
    if run is not None or model is None:
        raise ArgumentError("run", "or `model` must be given, and not both")
    if data is None:
        raise ArgumentError("data", "must be given with `model`: the images that it is evaluated on")
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
        max_pixels=config.max_pixels,
    )
    images = external.data
    loaded = LoadedModel(
        external.model, images.classes, images.image_size, images.mean, images.std, resizing=images.resizing
    )
    own = "its own weights" if is_function(model) else "the package's pretrained weights"
    weights = own if checkpoint is None else checkpoint.name
    return score_model(loaded, model, images, config, facts=(f"{model}, {weights}", external.prepared))


def score_model(
    loaded: LoadedModel,
    label: str,
    images: ImageData,
    config: EvaluationConfig,
    *,
    facts: tuple[str, str] | None = None,
) -> Scored:
    """Measure a model that is no run's.

    Args:
        facts: for a page: the model with its weights, and how the images were prepared.
    """
    with naming(label), stage_bars() as progress:
        has_training_images = images.test_split_description != "all images"
        evaluation = measure(loaded, images, config, train=has_training_images, progress=progress)
    _warn_of_unread(images)
    described, prepared = facts or (label, "")
    return Scored(
        f"{label} on {images.name} ({images.test_split_description})",
        label,
        Path("runs") / f"{label.replace(':', '-')}-on-{images.name}",
        evaluation,
        (*_facts(described, loaded, images), *([("preparation", prepared)] if prepared else [])),
        images.skipped,
    )


def score_run(
    run: Path,
    data: str | ImageData | None,
    config: EvaluationConfig,
    loaded: LoadedModel | None = None,
    grad_cam: bool | str = False,
) -> Scored:
    """Evaluate the network of a run; on its own images with more than accuracy, save the numbers beside its record.

    Args:
        data: other images than the run's own.
        grad_cam: keep with the run's pictures what the network looked at; a string names the layer.

    Raises:
        ValueError: no finished run, images that cannot be loaded, or other classes than the network's.
    """
    loaded = loaded or load_run(run)  # before its images are decoded: a wrong folder is refused at once
    record = None
    with naming(run), stage_bars() as progress:
        if data is not None:
            images = other_images(run, loaded, data, config)
            evaluation = measure(loaded, images, config, train=False, progress=progress)
        else:
            images = own_images(run, loaded)
            if grad_cam:
                _keep_grad_cam(run, loaded, images, grad_cam)
            if config.measures:
                record = evaluate_run(run, loaded, images, config, progress=progress)
                evaluation = msgspec.structs.replace(record.evaluation, measured=msgspec.UNSET)
            else:
                evaluation = measure(loaded, images, config, progress=progress)
    _warn_of_unread(images)
    return Scored(
        f"{run} on {images.name} ({images.test_split_description})",
        str(run),
        run if data is None else refuse_link(run / f"on-{name_of(data) if isinstance(data, str) else data.name}"),
        evaluation,
        _facts(str(run), loaded, images),
        images.skipped,
        record,
    )


def _warn_of_unread(images: ImageData) -> None:
    if images.notes:
        warnings.warn(f"{images.name}: {'; '.join(images.notes)}", stacklevel=3)


def _keep_grad_cam(run: Path, loaded: LoadedModel, images: ImageData, layer: bool | str) -> None:
    kept = Predictions.load(run, RunRecord.load(run / "result.json").evaluation.top1)
    if kept is None or not kept.shown:
        raise ArgumentError("grad_cam", f"needs the pictures that a training keeps, and {run} has none: train it again")
    device = default_device()
    with blaming("grad_cam"):
        name = None if isinstance(layer, bool) else layer
        with_grad_cam(kept, loaded.model.to(device), images, device=device, layer=name).save(run)


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


def own_images(run: Path, loaded: LoadedModel) -> ImageData:
    """Load the images that a run was trained and scored on, wherever the working directory is.

    Raises:
        ValueError: they are not known, cannot be found, or are others by now.
    """
    file = run / "recipe.yaml"
    if not file.is_file():
        raise ValueError(f"{run} is not the folder of a run, so its images are not known: name them with `data`")
    recipe = TrainConfig.from_yaml(file)
    if recipe.data_is_in_python:
        raise ArgumentError("data", f"must be given: the images of {run} were passed in Python")
    if recipe.data_path is not None and absolute_source(recipe.data_path):
        recipe = replace(recipe, data=recipe.data_path)
    if not (run / "result.json").is_file():
        raise ValueError(f"{run} has no record that says which images are its own: name them with `data`")
    record = RunRecord.load(run / "result.json")
    # Measuring decodes most files once: for that no cache is worth making.
    images = load(replace(recipe, cache=False), decode_once=False)
    prepared = _prepared_for(run, loaded, images)
    if changed := changes_since(record.data, images):
        raise ValueError(
            f"{recipe.data} is not what {run} was trained and scored on: {changed}; restore it, or name the images to "
            "score with `data`"
        )
    return prepared


def other_images(run: Path, loaded: LoadedModel, data: str | ImageData, config: EvaluationConfig) -> ImageData:
    """Load other images of a run's classes, prepared as its network was trained: its size, its mean and its sd.

    Args:
        data: the images; those without a test part, or with one part alone, are all scored.
        config: where named sets are, and which files are left out.

    Raises:
        ValueError: images that cannot be loaded, or other classes than the network's.
    """
    with blaming("data"):
        images = (
            data
            if isinstance(data, ImageData)
            else load_data(
                data,
                root=config.data_root,
                image_size=loaded.image_size,
                skip_unreadable=config.skip_unreadable,
                max_pixels=config.max_pixels,
                test_only=True,
                as_they_are=loaded.channels != 3,
            )
        )
        return _prepared_for(run, loaded, images)


def _prepared_for(run: Path, loaded: LoadedModel, images: ImageData) -> ImageData:
    """The images, normalised and resized as a run's network was trained, if the classes are its own."""
    if images.classes != tuple(map(plain_name, loaded.classes)):
        raise ValueError(
            f"{images.name} has other classes than {run}: {_first_difference(images.classes, loaded.classes)}"
        )
    if {images.channels, loaded.channels} - {1, 3} and images.channels != loaded.channels:
        raise ValueError(f"{images.name} has {images.channels} channels, and {run} takes {loaded.channels}")
    return replace(images, mean=loaded.mean, std=loaded.std, resizing=loaded.resizing)


def _first_difference(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    if len(here) != len(there):
        return f"{len(here)} instead of {len(there)}"
    at = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
    return f"class {at} is {here[at]!r} instead of {there[at]!r}"
