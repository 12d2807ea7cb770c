"""Evaluate a network: which evaluations to run, running them, and the record beside a run's own."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from selfdistill.config import TrainConfig
from selfdistill.config.train_config import SMALL
from selfdistill.data import ImageData, load_unlabelled
from selfdistill.data.decode import cpu_count, pixel_limit
from selfdistill.data.files import explained_worker_losses
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.errors import ArgumentError, blaming, check_folder, check_range
from selfdistill.evaluation.corruptions import PublishedCorruptions, open_published
from selfdistill.evaluation.ood.scores import tuning_size
from selfdistill.evaluation.suite import evaluate
from selfdistill.network import default_device, put_channels_last
from selfdistill.progress import OnProgress, no_progress
from selfdistill.records import Evaluation, RunRecord, SuiteRecord, load_run_record
from selfdistill.records.evaluation import MEASURES, SuiteConfig
from selfdistill.runs.executor import with_cpus
from selfdistill.training import LoadedModel, load_run, train
from selfdistill.training.record import provenance
from selfdistill.training.run import machine


class EvaluationConfig(SuiteConfig, frozen=True, kw_only=True):
    """Which evaluations to run, and where their images are.

    Attributes:
        data_root: where named sets are kept.
        skip_unreadable: leave unreadable image files out.
        max_pixels: image files of more pixels are unreadable.
    """

    data_root: Path = Path("data")
    skip_unreadable: bool = False
    max_pixels: int | None = None

    @property
    def suite(self) -> SuiteConfig:
        """What decides the numbers."""
        return msgspec.convert(self, SuiteConfig, from_attributes=True)


BASIC_EVALUATION = EvaluationConfig(measures=())
"""Accuracy and calibration, which every training measures at its end."""


def evaluation_config(
    ood: Sequence[str],
    corruptions: Path | None,
    max_images: int | None,
    quick: bool,
    data_root: str,
    skip_unreadable: bool,
    max_pixels: int | None,
) -> EvaluationConfig:
    """Return which evaluations to run.

    Raises:
        ArgumentError: ``max_images`` or ``max_pixels`` is out of range, or what ``quick`` leaves out is given.
    """
    check_folder("data_root", Path(data_root))
    check_range("max_images", max_images, 1, 10**9)
    pixel_limit(max_pixels)
    given = {"ood": tuple(ood) != SuiteConfig().ood, "corruptions": corruptions, "max_images": max_images}
    if quick and (ignored := next((name for name, value in given.items() if value), None)):
        raise ArgumentError(ignored, "would be ignored: `quick=True` measures accuracy and calibration only")
    return EvaluationConfig(
        measures=() if quick else MEASURES,
        ood=tuple(ood),
        corruptions=None if corruptions is None else str(corruptions),
        max_images=1000 if max_images is None else max_images,
        data_root=Path(data_root),
        skip_unreadable=skip_unreadable,
        max_pixels=max_pixels,
    )


def measure(
    loaded: LoadedModel,
    data: ImageData,
    config: EvaluationConfig,
    *,
    train: bool = True,
    progress: OnProgress = no_progress,
) -> Evaluation:
    """Score a network on images that are prepared as it was trained: its size, its mean and its deviation.

    Args:
        train: score the training images too.

    Raises:
        ValueError: a set of images cannot be loaded or does not fit the network.
        RuntimeError: a named set cannot be downloaded.
    """
    device = default_device()
    published = open_corruptions(config, data)
    model = loaded.model.to(device)
    put_channels_last(model, device)  # which halves a backward pass on a CPU
    # Measured on a CPU: 512 images take twice as long an image as 128.
    batch_size = 128 if device.type == "cpu" else 512
    # On a GPU too, a gradient's sign and a score at T = 1000 need all of float32, and a second run the same bits.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with exact, explained_worker_losses():
        return evaluate(
            model,
            data,
            device=device,
            measures=config.measures,
            ood_sets=load_ood_sets(config, data),
            published=published,
            max_images=config.max_images,
            batch_size=batch_size if loaded.image_size <= SMALL else batch_size // 8,
            workers=min(8, cpu_count()),
            train=train,
            progress=progress,
        )


def open_corruptions(config: EvaluationConfig, data: ImageData) -> PublishedCorruptions | None:
    """Return the published corruptions, checked; None where they are not measured.

    Raises:
        ValueError: they are not there, or of other classes or another size than the images.
    """
    if config.corruptions is None or "shift" not in config.measures:
        return None
    with blaming("corruptions"):
        published = open_published(Path(config.corruptions), classes=len(data.classes))
        published.check_size(data.image_size)
        if data.channels not in (1, 3):
            raise ArgumentError("corruptions", f"are in colour, and {data.name} has {data.channels} channels")
    return published


def load_ood_sets(config: EvaluationConfig, data: ImageData) -> list[Unlabelled]:
    """Return the out-of-distribution sets, resized as a network's own images; none where they are not measured.

    They are in colour, and become grey for a network of one channel; for other networks there are none.

    Raises:
        ValueError: a set is wanted for such a network, cannot be loaded, or has a single image: one half chooses
            ODIN's eps, one is scored.
    """
    if "ood" not in config.measures:
        return []
    if data.channels not in (1, 3):
        if config.ood not in ((), SuiteConfig().ood):
            raise ArgumentError(
                "ood", f"is of images in colour, and the network takes {data.channels} channels: leave it out"
            )
        return []
    with blaming("ood"):
        sets = [
            load_unlabelled(
                source,
                image_size=data.image_size,
                resizing=data.resizing,
                root=config.data_root,
                skip_unreadable=config.skip_unreadable,
                max_pixels=config.max_pixels,
            )
            for source in config.ood
        ]
    names = [one.name for one in sets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ArgumentError("ood", f"has {twice} twice")
    if config.max_ood_images is not None:
        sets = [replace(one, split=one.split.spaced(config.max_ood_images)) for one in sets]
    for one in sets:
        if len(one.split) < 2:
            raise ArgumentError("ood", f"needs at least 2 images of each set, and {one.name} has {len(one.split)}")
    return sets


def count_forwards(config: EvaluationConfig, test_n: int, ood_n: int) -> float:
    """About how many forward passes of one image the suite takes beyond accuracy and calibration.

    A backward pass counts as a forward pass, a corruption as half of one; PGD ends early for most images.
    """
    few = min(test_n, config.max_images)
    tuning = tuning_size(test_n) + tuning_size(ood_n)
    of = {
        "robustness": 10 * test_n + 60 * few,
        "shift": 1.5 * 75 * (10_000 if config.corruptions else few),
        "ood": 7 * (test_n + ood_n) + 23 * tuning if ood_n else 0,
    }
    return sum(of[measure] for measure in config.measures)


def fit_to_budget(config: EvaluationConfig, test_n: int, ood_n: int, max_forwards: float) -> EvaluationConfig:
    """Return the config with as many images as take at most ``max_forwards`` forward passes; basic if 100 are too many.

    Example:
        >>> fit_to_budget(EvaluationConfig(), test_n=2000, ood_n=500, max_forwards=2e5).max_images
        300
        >>> fit_to_budget(EvaluationConfig(), test_n=2000, ood_n=500, max_forwards=1e4).measures
        ()
    """
    for max_images in (1000, 300, 100):
        smaller = msgspec.structs.replace(config, max_images=min(config.max_images, max_images))
        if count_forwards(smaller, test_n, ood_n) <= max_forwards:
            return smaller
    return msgspec.structs.replace(config, measures=())


def evaluate_run(
    run: Path,
    loaded: LoadedModel,
    data: ImageData,
    config: EvaluationConfig,
    *,
    threads: int | None = None,
    progress: OnProgress = no_progress,
) -> RunRecord:
    """Measure a finished run on its own images, write ``evaluation.json`` beside its record, and return the two as one.

    Args:
        threads: of torch; None leaves them.
    """
    started = time.perf_counter()
    with machine(threads):
        evaluation = measure(loaded, data, config, progress=progress)
        record = RunRecord.load(run / "result.json")
        SuiteRecord(
            of={"recipe_hash": record.recipe_hash, "date": record.date},
            config=config.suite,
            evaluation=evaluation,
            seconds=time.perf_counter() - started,
            **provenance(next(loaded.model.parameters()).device),
        ).save(run / "evaluation.json")
    return load_run_record(run)


def train_and_evaluate(
    recipe: TrainConfig,
    out: Path,
    config: EvaluationConfig,
    *,
    data: ImageData,
    cpus: int | None = None,
    progress: OnProgress,
) -> RunRecord:
    """Train by a recipe into a run folder and evaluate it; what is done already is not done again.

    Args:
        cpus: of this run; None: what the recipe says.
        progress: called with the training's events, and then with the evaluation's.
    """
    recipe = with_cpus(recipe, cpus)
    train(recipe, out, data=data, progress=progress)
    if is_evaluated(out, config):
        return load_run_record(out)
    return evaluate_run(out, load_run(out, recipe.model), data, config, threads=recipe.threads, progress=progress)


def is_evaluated(run: Path, config: EvaluationConfig) -> bool:
    """Whether a finished run's folder holds these evaluations."""
    path = run / "evaluation.json"
    if not config.measures:
        return True
    if not path.is_file():
        return False
    there = SuiteRecord.load(path)
    return there.belongs_to(RunRecord.load(run / "result.json")) and there.config == config.suite
