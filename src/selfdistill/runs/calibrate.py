"""``calibrate``: what a run's network needs to say how sure it is, to abstain and to know unknown images."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from selfdistill.config.train_config import SMALL
from selfdistill.data import ImageData
from selfdistill.data.decode import cpu_count
from selfdistill.data.files import explained_worker_losses
from selfdistill.errors import ArgumentError, naming
from selfdistill.evaluation.accuracy import negative_log_likelihood, softmax
from selfdistill.evaluation.calibration import expected_calibration_error
from selfdistill.evaluation.images import Images, Reading, read_features
from selfdistill.evaluation.ood.detectors import OF_FEATURES, Detectors, fit_detectors
from selfdistill.evaluation.predictions import outputs_to_keep
from selfdistill.evaluation.suite import MAX_TRAIN
from selfdistill.evaluation.temperature import fit_temperature, temperature_scaling
from selfdistill.network import default_device
from selfdistill.progress import Counter, OnProgress, stage_bars
from selfdistill.records import VALIDATION, RunRecord
from selfdistill.records.evaluation import Scaled
from selfdistill.runs.evaluation import EvaluationConfig
from selfdistill.runs.folders import check_writable
from selfdistill.runs.score import other_images, own_images
from selfdistill.text import join_names
from selfdistill.training.export import LoadedModel, description, load_run, save_description

_MOST_SHARED = 0.01  # of the images: a few that are in both sets by chance make no difference


@dataclass(frozen=True)
class Calibrated:
    """What was found.

    Attributes:
        images: what it was found on.
        temperature: fitted on them.
        before: their NLL and ECE at temperature 1.
        after: the same, each half at the temperature of the other.
        detectors: with the thresholds that 95 % of the images reach.
        missing: why the detectors of features are missing; empty where they are not.
    """

    images: str
    temperature: float
    before: tuple[float, float]
    after: Scaled
    detectors: Detectors
    missing: str


def calibrate_run(run: Path, data: str | None, config: EvaluationConfig) -> Calibrated:
    """Fit temperature and OOD detectors of a finished run on validation images, and keep both in its folder.

    The temperature goes into ``model.json``, the outputs on the images into ``validation.npz``, the detectors into
    ``detectors.npz``: those of features, fitted to at most 10,000 training images, energy and max softmax, and each
    one's threshold.

    Args:
        run: the run's folder.
        data: labelled images of the run's classes that it has not seen; None: the run's validation images.
        config: where named sets are, and which files are left out.

    Raises:
        ArgumentError: the run has no validation images, ``data`` are those that it was trained or tested on, or a
            setting would be ignored.
        ValueError: no finished run, fewer than two images, or images that cannot be loaded or are of other classes.
        OSError: nothing can be written there.
    """
    if run.is_file():
        raise ValueError(f"{run} is a file: calibrate the run's folder, then export it again")
    given = {"skip_unreadable": config.skip_unreadable, "max_pixels": config.max_pixels}
    if data is None and (ignored := next((name for name, value in given.items() if value), None)):
        raise ArgumentError(
            ignored, "would be ignored: it is of `data`, and the run's own images are prepared as before"
        )
    loaded = load_run(run)
    check_writable(run)
    own, missing = None, ""
    with naming(run), stage_bars() as progress, explained_worker_losses():
        if data is None:
            own = own_images(run, loaded)
            if own.val is None:
                raise ArgumentError("data", f"must name labelled images: {run} was trained without validation images")
            images = replace(own, test=own.val, test_split_description=own.val_split_description)
        else:
            images = other_images(run, loaded, data, config)
            try:
                own = own_images(run, loaded)
            except (ValueError, OSError) as error:
                missing = str(error)
            _refuse_seen(run, images, own)
        if len(images.test) < 2:
            raise ValueError(f"{images.name} has {len(images.test)} image: at least 2 are needed, better hundreds")
        reading = _read(loaded, images, progress, "reading validation images")
        training = None
        if own is not None:
            seen = replace(own, test=own.train.spaced(MAX_TRAIN))
            training = _read(loaded, seen, progress, "reading training images")
        detectors = fit_detectors(reading.logits, reading.features, training)
    logits, labels = reading.logits, reading.labels
    temperature = fit_temperature(logits, labels)
    detectors.save(run)
    outputs_to_keep(logits, labels, loaded.classes).save(run, VALIDATION)
    save_description(run, description(run) | {"temperature": temperature})
    return Calibrated(
        images=f"{len(labels):,} images of {images.name} ({images.test_split_description})",
        temperature=temperature,
        before=(negative_log_likelihood(logits, labels), expected_calibration_error(softmax(logits), labels)),
        after=temperature_scaling(logits, labels),
        detectors=detectors,
        missing=missing,
    )


def describe(calibrated: Calibrated) -> list[str]:
    """Return what was found, in lines."""
    nll, ece = calibrated.before
    after, thresholds = calibrated.after, calibrated.detectors.thresholds
    return [
        f"Calibrated on {calibrated.images}: temperature {calibrated.temperature:.3g}",
        f"ECE {ece:.1%} before, {after.ece:.1%} after; NLL {nll:.3f} before, {after.nll:.3f} after "
        "(each half at the temperature of the other)",
        "Unknown images: 95 % of these reach " + ", ".join(f"{name} {at:.4g}" for name, at in thresholds.items()),
        *(
            [f"Without {join_names(OF_FEATURES)}, which need the training images: {calibrated.missing}"]
            * bool(calibrated.missing)
        ),
    ]


def _refuse_seen(run: Path, images: ImageData, own: ImageData | None) -> None:
    """Refuse images that the run was trained or tested on: by its record, and where they are there, one by one."""
    known = None
    with suppress(OSError, ValueError):
        known = RunRecord.load(run / "result.json").data.fingerprint
    ids = images.test.identify()
    for part in ("test", "train"):
        shared = 0.0
        if known is not None and known[part] == images.fingerprint["test"]:
            shared = 1.0
        elif own is not None:
            there = set(map(tuple, getattr(own, part).identify().tolist()))
            shared = sum(tuple(one) in there for one in ids.tolist()) / len(ids)
        if shared > _MOST_SHARED:
            raise ArgumentError(
                "data", f"must be images that the run has not seen: {shared:.0%} of {images.name} are its {part} images"
            )


def _read(loaded: LoadedModel, data: ImageData, progress: OnProgress, stage: str) -> Reading:
    """Return the logits and the features of a set's test images."""
    device = default_device()
    size = 128 if loaded.image_size <= SMALL else 32
    workers = 0 if loaded.image_size <= SMALL else min(8, cpu_count())
    images = Images(data.test, data, device=device, batch_size=size, workers=workers)
    count = Counter(progress, stage, len(images))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in images.batches():
            yield x, y
            count(len(y))

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return read_features(loaded.model.to(device), batches())
