"""`evaluate`, `evaluate_logits` and `predict`."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from selfdistill.api.images import name_of_images, read_labelled, read_pixels
from selfdistill.api.results import EvaluationResult, PredictionResult, WithNetwork
from selfdistill.api.training import Data
from selfdistill.data import ImageData, Split, load_data
from selfdistill.errors import ArgumentError, blaming
from selfdistill.evaluation.suite import score
from selfdistill.network import check_classifier, default_device
from selfdistill.records.evaluation import SuiteConfig
from selfdistill.report import write_evaluation_report
from selfdistill.runs.evaluation import EvaluationConfig, evaluation_config
from selfdistill.runs.predict import predict_files, predict_split
from selfdistill.runs.score import Scored, score_model, score_run
from selfdistill.training import LoadedModel, load_run

Network = nn.Module | WithNetwork | str | Path
"""A model, what `train` or `tune` returned, or a run's folder or exported file."""


def evaluate(
    model: Network,
    data: Data | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    ood: Sequence[str] = SuiteConfig().ood,
    corruptions: str | Path | None = None,
    max_images: int | None = None,
    quick: bool = False,
    out: str | Path | None = None,
    data_root: str = "data",
    skip_unreadable: bool = False,
    max_pixels: int | None = None,
) -> EvaluationResult:
    """Evaluate a network: accuracy, calibration, robustness, OOD detection, as ``selfdistill evaluate`` does.

    Args:
        model: an ``nn.Module``, which is copied and stays as it is; what :func:`train` or :func:`tune` returned; or a
            run's folder.
        data: the images: a map-style dataset of (image, label), a pair of images and labels, or a path or a named set,
            of which the test part is used, if it has one. None: those of the run.
        mean: of an ``nn.Module``: what its training subtracts of pixels / 255, one value per channel; zeros if nothing.
        std: of an ``nn.Module``: what it divides by after that; ones if it does not.
        ood: out-of-distribution sets.
        corruptions: folder of the published CIFAR-10-C or CIFAR-100-C (default: synthetic corruptions).
        max_images: most test images for PGD and synthetic corruptions (default: 1000).
        quick: measure accuracy and calibration only.
        out: folder of a report; None: none is written.
        data_root: folder of the named sets.
        skip_unreadable: leave unreadable image files out.
        max_pixels: image files of more pixels are unreadable.

    Raises:
        ValueError: what does not fit; one line that names the argument.

    Example:
        >>> import selfdistill
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> images, labels = torch.randint(256, (40, 8, 8), dtype=torch.uint8), torch.arange(40) % 2
        >>> selfdistill.evaluate(model, (images, labels), mean=[0.5], std=[0.25], quick=True).evaluation.n
        40
    """
    config = evaluation_config(
        ood,
        None if corruptions is None else Path(corruptions),
        max_images,
        quick,
        data_root,
        skip_unreadable,
        max_pixels,
    )
    if isinstance(model, nn.Module):
        scored = _score_module(model, data, _constants(mean, std), config)
    else:
        _refuse_for_run(mean=mean, std=std)
        run, loaded = _run_and_model(model)
        if data is not None and not isinstance(data, str | Path | ImageData):
            data = _test_images(data, loaded.image_size, loaded.mean, loaded.std, loaded.classes)
        scored = score_run(run, str(data) if isinstance(data, str | Path) else data, config, loaded)
    page = None
    if out is not None:
        page = write_evaluation_report(
            scored.label, scored.evaluation, Path(out), title=scored.title, facts=scored.facts
        )
    return EvaluationResult(scored.evaluation, scored.title, page)


def evaluate_logits(logits: ArrayLike, labels: ArrayLike, *, bins: int = 10, title: str = "Logits") -> EvaluationResult:
    """Evaluate logits of any origin: accuracy, calibration with its sign, temperature, selective prediction.

    Args:
        logits: array or tensor ``(N, C)``; log-probabilities do as well.
        labels: class indices ``(N,)``.
        bins: of the calibration errors, at least 1.
        title: above the numbers.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or a label is not a class.

    Example:
        >>> import selfdistill
        >>> found = selfdistill.evaluate_logits([[2.0, 0.0], [0.0, 2.0]], [0, 0])
        >>> found.evaluation.top1, round(found.evaluation.gap, 3)
        (0.5, 0.381)
    """
    return EvaluationResult(score(torch.as_tensor(logits).cpu(), torch.as_tensor(labels).cpu(), bins=bins), title)


def predict(
    model: Network,
    images: Any,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    max_pixels: int | None = None,
) -> PredictionResult:
    """Classify images with a trained network, as ``selfdistill predict`` does.

    Args:
        model: an ``nn.Module``, which is copied and stays as it is; what :func:`train` or :func:`tune` returned; or a
            run's folder.
        images: image files and folders; images uint8 ``(N, H, W, C)``, ``(N, C, H, W)`` or ``(N, H, W)``; or a
            map-style dataset of (image, label).
        classes: of an ``nn.Module``: names of the classes (default: their numbers).
        mean: of an ``nn.Module``, as for :func:`evaluate`.
        std: of an ``nn.Module``, likewise.
        image_size: of an ``nn.Module``: side of the square images in pixels (default: that of images in memory).
        skip_unreadable: leave unreadable image files out.
        max_pixels: image files of more pixels are unreadable.

    Raises:
        ValueError: what does not fit; one line that names the argument.
    """
    files, split = _paths(images), None
    if isinstance(model, nn.Module):
        mean, std = _constants(mean, std)
        if files is None:
            split = _unlabelled(images, image_size)
            image_size = split.images.shape[-1] if split.images is not None else None
        if image_size is None:
            raise ArgumentError("image_size", "must be given: files have no size of their own")
        wanted = None if classes is None else len(classes)
        count = check_classifier(model, type(model).__name__, (len(mean), image_size, image_size), wanted)
        names = tuple(classes or map(str, range(count)))
        loaded = LoadedModel(copy.deepcopy(model).eval(), names, image_size, mean, std)
    else:
        _refuse_for_run(classes=classes, mean=mean, std=std, image_size=image_size)
        _, loaded = _run_and_model(model)
        if files is None:
            split = _unlabelled(images, loaded.image_size)
    device = default_device()
    if split is not None:
        return PredictionResult(predict_split(loaded, split, device=device), loaded.classes)
    assert files is not None
    found, skipped = predict_files(loaded, files, skip_unreadable=skip_unreadable, max_pixels=max_pixels, device=device)
    probabilities = np.array([one.probabilities for one in found])
    return PredictionResult(probabilities, loaded.classes, tuple(one.path for one in found), tuple(skipped))


def _run_and_model(model: WithNetwork | str | Path) -> tuple[Path, LoadedModel]:
    if isinstance(model, WithNetwork):
        return model.network, model.load()
    return Path(model), load_run(model)


def _refuse_for_run(**arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ArgumentError(name, "belongs to an nn.Module: a run knows its own")


def _constants(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return how images are normalised for a model that does not say it."""
    for name, values, least in (("mean", mean, 0), ("std", std, 1 / 255)):
        if values is None or not len(values) or not all(least <= value <= 1 for value in values):
            what = "zeros" if name == "mean" else "ones"
            problem = (
                f"must be one value per channel, in [{least:.3g}, 1], of pixels / 255: {what} if the model takes these"
            )
            raise ArgumentError(name, problem)
    assert mean is not None
    assert std is not None
    if len(mean) != len(std):
        raise ArgumentError("std", f"must have as many values as `mean`, {len(mean)}, not {len(std)}")
    return tuple(mean), tuple(std)


def _score_module(
    model: nn.Module,
    data: Data | None,
    constants: tuple[tuple[float, ...], tuple[float, ...]],
    config: EvaluationConfig,
) -> Scored:
    mean, std = constants
    name = type(model).__name__
    if data is None:
        raise ArgumentError("data", "must be given with a model: the images that it is evaluated on")
    if isinstance(data, str | Path):
        with blaming("data"):
            data = load_data(
                data,
                root=config.data_root,
                skip_unreadable=config.skip_unreadable,
                max_pixels=config.max_pixels,
                test_only=True,
                as_they_are=len(mean) != 3,
            )
    images = replace(data, mean=mean, std=std) if isinstance(data, ImageData) else _test_images(data, None, mean, std)
    shape = (len(mean), images.image_size, images.image_size)
    count = check_classifier(model, name, shape, len(images.classes) or None)
    images = replace(images, classes=images.classes or tuple(map(str, range(count))))
    return score_model(
        LoadedModel(copy.deepcopy(model).eval(), images.classes, shape[1], mean, std), name, images, config
    )


def _test_images(
    data: Any, size: int | None, mean: tuple[float, ...], std: tuple[float, ...], classes: tuple[str, ...] = ()
) -> ImageData:
    """Return images given in Python, all of which are scored; classes without names are those of the network."""
    split, names = read_labelled("data", data, size, as_they_are=True)
    assert split.images is not None
    return ImageData(
        name_of_images(data), split, split, names or classes, mean, std, split.images.shape[-1], "none", "all images"
    )


def _paths(images: Any) -> list[Path] | None:
    """Return image files and folders; None for images in memory."""
    several = [images] if isinstance(images, str | Path) else images
    if isinstance(several, list | tuple) and several and all(isinstance(one, str | Path) for one in several):
        return [Path(one).expanduser() for one in several]
    return None


def _unlabelled(images: Any, size: int | None) -> Split:
    """Return images in memory; of a dataset the labels are not looked at."""
    if isinstance(images, np.ndarray | torch.Tensor):
        return read_pixels(images, size)
    return read_labelled("images", images, size, as_they_are=True)[0]
