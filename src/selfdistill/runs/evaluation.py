"""Evaluate a network: which evaluations to run, running them, and the record beside a run's own."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selfdistill.config import TrainConfig
from selfdistill.config.train_config import SMALL
from selfdistill.data import ImageData, load_unlabelled
from selfdistill.data.decode import cpu_count
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.data.workers import explained_worker_losses
from selfdistill.evaluate.corruptions import open_published
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.evaluate.ood.scores import tuning_size
from selfdistill.evaluate.suite import MEASURES, Progress, evaluate
from selfdistill.network import default_device
from selfdistill.records import EvaluationRecord, RunRecord, load_run_record
from selfdistill.records.evaluation import SCHEMA
from selfdistill.runs.executor import with_cpus
from selfdistill.train import LoadedModel, Update, load_run, train
from selfdistill.train.progress import Callback
from selfdistill.train.record import provenance
from selfdistill.train.run import machine


@dataclass(frozen=True)
class EvaluationConfig:
    """Which evaluations to run.

    Attributes:
        measures: some of `selfdistill.evaluate.suite.MEASURES`; none: accuracy and calibration alone.
        ood: out-of-distribution sets, as for `selfdistill.data.load_unlabelled`.
        corruptions: a folder of the published CIFAR-10-C or CIFAR-100-C; None: own corruptions of the test images.
        max_images: PGD and own corruptions see at most so many test images.
        max_ood_images: use at most so many images of an out-of-distribution set, evenly spaced; None: all.
        data_root: where named sets are kept.
        skip_unreadable: leave unreadable image files out.
    """

    measures: tuple[str, ...] = MEASURES
    ood: tuple[str, ...] = ("photographs",)
    corruptions: Path | None = None
    max_images: int = 1000
    max_ood_images: int | None = None
    data_root: Path = Path("data")
    skip_unreadable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What decides the numbers, ready for JSON."""
        place = {"data_root", "skip_unreadable"}
        plain = {name: value for name, value in asdict(self).items() if name not in place}
        return plain | {
            "measures": list(self.measures),
            "ood": list(self.ood),
            "corruptions": None if self.corruptions is None else str(self.corruptions),
        }


BASIC_EVALUATION = EvaluationConfig(measures=())
"""Accuracy and calibration, which every training measures at its end."""


def measure(
    loaded: LoadedModel,
    data: ImageData,
    config: EvaluationConfig,
    *,
    train: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on images that are prepared as it was trained: its size, its mean and its deviation.

    Args:
        loaded: the network and how it is fed.
        data: the images, with the network's classes.
        config: which evaluations to run.
        train: score the training images too.
        progress: called while it goes.

    Raises:
        ValueError: a set of images cannot be loaded or does not fit the network.
        RuntimeError: a named set cannot be downloaded.
    """
    device = default_device()
    published = None
    if config.corruptions is not None and "shift" in config.measures:
        published = open_published(config.corruptions, classes=len(data.classes))
    # Measured on a CPU: 512 images take twice as long an image as 128, and channels_last halves a backward pass.
    batch_size = 512 if device.type == "cuda" else 128
    # On a GPU too, a gradient's sign and a score at T = 1000 need all of float32, and a second run the same bits.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with exact, explained_worker_losses():
        return evaluate(
            loaded.model.to(device).to(memory_format=torch.channels_last),
            data,
            device=device,
            measures=config.measures,
            ood_sets=load_ood_sets(config, loaded.image_size),
            published=published,
            max_images=config.max_images,
            batch_size=batch_size if loaded.image_size <= SMALL else batch_size // 8,
            workers=min(8, cpu_count()),
            train=train,
            progress=progress,
        )


def load_ood_sets(config: EvaluationConfig, image_size: int) -> list[Unlabelled]:
    """Return the out-of-distribution sets at a network's size; none where they are not measured."""
    if "ood" not in config.measures:
        return []
    sets = [
        load_unlabelled(source, image_size=image_size, root=config.data_root, skip_unreadable=config.skip_unreadable)
        for source in config.ood
    ]
    if config.max_ood_images is None:
        return sets
    return [replace(one, split=one.split.spaced(config.max_ood_images)) for one in sets]


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
        smaller = replace(config, max_images=min(config.max_images, max_images))
        if count_forwards(smaller, test_n, ood_n) <= max_forwards:
            return smaller
    return replace(config, measures=())


def evaluate_run(
    run: Path,
    data: ImageData,
    config: EvaluationConfig,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Measure a finished run on its own images, write ``evaluation.json`` beside its record, and return the two as one.

    Args:
        run: the run's folder.
        data: the run's images.
        config: which evaluations to run.
        threads: of torch; None leaves them.
        progress: called while it goes.
    """
    loaded = load_run(run)
    started = time.perf_counter()
    with machine(threads):
        evaluation = measure(loaded, data, config, progress=progress)
        record = RunRecord.load(run / "result.json")
        EvaluationRecord(
            schema=SCHEMA,
            of={"recipe_hash": record.recipe_hash, "date": record.date},
            config=config.to_dict(),
            evaluation=evaluation.to_dict(),
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
    progress: Callback,
) -> RunRecord:
    """Train by a recipe into a run folder and evaluate it; what is done already is not done again.

    Args:
        recipe: what to do.
        out: the run's folder.
        config: what is measured afterwards.
        data: the images.
        cpus: of this run; None: what the recipe says.
        progress: called with the training's updates, and then with the evaluation's.
    """
    recipe = with_cpus(recipe, cpus)
    record = train(recipe, out, data=data, progress=progress)
    if is_evaluated(out, config):
        return load_run_record(out)

    return evaluate_run(out, data, config, threads=recipe.threads, progress=as_updates(record, progress))


def as_updates(record: RunRecord, progress: Callback) -> Progress:
    """Return a callback that reports the evaluation of a finished run as its training reported its own progress.

    Args:
        record: of the run.
        progress: what takes the updates.
    """

    def tell(what: str, done: int, total: int) -> None:
        last = record.log[-1]
        progress(
            Update(
                kind="evaluate",
                epoch=record.epochs,
                epochs=record.epochs,
                step=done,
                steps=total,
                loss=last["loss"],
                terms={},
                metrics={"train": last["train_accuracy"], "test": record.evaluation["top1"]},
                images_per_second=record.images_per_second,
                seconds_left=0.0,
                measuring=what,
            )
        )

    return tell


def is_evaluated(run: Path, config: EvaluationConfig) -> bool:
    """Whether a finished run's folder holds these evaluations."""
    path = run / "evaluation.json"
    if not config.measures:
        return True
    if not path.is_file():
        return False
    there = EvaluationRecord.load(path)
    return there.belongs_to(RunRecord.load(run / "result.json")) and there.config == config.to_dict()
