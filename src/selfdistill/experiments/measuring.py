"""The whole suite on a network: what is asked for, the measuring, and the record beside a run's own."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selfdistill.data import ImageData, load_unlabelled
from selfdistill.data.decode import cpu_count
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.evaluate.ood import tuning_size
from selfdistill.evaluate.shift import open_published
from selfdistill.evaluate.suite import MEASURES, Progress, evaluate
from selfdistill.records import EvaluationRecord, RunRecord, load_run_record
from selfdistill.records.evaluation import SCHEMA
from selfdistill.train import LoadedModel, Recipe, Update, load_run, train
from selfdistill.train.progress import Callback
from selfdistill.train.recipe import SMALL
from selfdistill.train.record import provenance
from selfdistill.train.run import machine


@dataclass(frozen=True)
class Asked:
    """What of the suite is wanted.

    Attributes:
        measures: some of `selfdistill.evaluate.suite.MEASURES`; none: accuracy and calibration alone.
        ood: out-of-distribution sets, as for `selfdistill.data.load_unlabelled`.
        corruptions: a folder of the published CIFAR-10-C or CIFAR-100-C; None: own corruptions of the test images.
        max_images: PGD and own corruptions see at most so many test images.
        most_outside: use at most so many images of an out-of-distribution set, evenly spaced; None: all.
        data_root: where named sets are kept.
        skip_unreadable: leave unreadable image files out.
    """

    measures: tuple[str, ...] = MEASURES
    ood: tuple[str, ...] = ("photographs",)
    corruptions: Path | None = None
    max_images: int = 1000
    most_outside: int | None = None
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


NOTHING_MORE = Asked(measures=())
"""Accuracy and calibration, which every training measures at its end."""


def measure(
    loaded: LoadedModel, data: ImageData, asked: Asked, *, train: bool = True, progress: Progress | None = None
) -> Evaluation:
    """Score a network on images that are prepared as it was trained: its size, its mean and its deviation.

    Args:
        loaded: the network and how it is fed.
        data: the images, with the network's classes.
        asked: what is measured.
        train: score the training images too.
        progress: called while it goes.

    Raises:
        ValueError: a set of images cannot be loaded or does not fit the network.
        RuntimeError: a named set cannot be downloaded.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    published = None
    if asked.corruptions is not None and "shift" in asked.measures:
        published = open_published(asked.corruptions, classes=len(data.classes))
    # Measured on a CPU: 512 images take twice as long an image as 128, and channels_last halves a backward pass.
    batch_size = 512 if device == "cuda" else 128
    # On a GPU too, a gradient's sign and a score at T = 1000 need all of float32, and a second run the same bits.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return evaluate(
            loaded.model.to(device).to(memory_format=torch.channels_last),
            data,
            device=device,
            measures=asked.measures,
            outside=outside(asked, loaded.image_size),
            published=published,
            max_images=asked.max_images,
            batch_size=batch_size if loaded.image_size <= SMALL else batch_size // 8,
            workers=min(8, cpu_count()),
            train=train,
            progress=progress,
        )


def outside(asked: Asked, image_size: int) -> list[Unlabelled]:
    """Return the out-of-distribution sets at a network's size; none where they are not measured."""
    if "ood" not in asked.measures:
        return []
    sets = [
        load_unlabelled(source, image_size=image_size, root=asked.data_root, skip_unreadable=asked.skip_unreadable)
        for source in asked.ood
    ]
    if asked.most_outside is None:
        return sets
    return [replace(one, split=one.split.spaced(asked.most_outside)) for one in sets]


def passes(asked: Asked, test_n: int, outside_n: int) -> float:
    """About how many forward passes of one image the suite takes beyond accuracy and calibration.

    A backward pass counts as a forward pass, a corruption as half of one; PGD ends early for most images.
    """
    few = min(test_n, asked.max_images)
    tuning = tuning_size(test_n) + tuning_size(outside_n)
    of = {
        "robustness": 10 * test_n + 60 * few,
        "shift": 1.5 * 75 * (10_000 if asked.corruptions else few),
        "ood": 7 * (test_n + outside_n) + 23 * tuning if outside_n else 0,
    }
    return sum(of[measure] for measure in asked.measures)


def fitted(asked: Asked, test_n: int, outside_n: int, most: float) -> Asked:
    """Return what is asked for on as many images as take at most ``most`` passes, or nothing where 100 are too many.

    Example:
        >>> fitted(Asked(), test_n=2000, outside_n=500, most=2e5).max_images
        300
        >>> fitted(Asked(), test_n=2000, outside_n=500, most=1e4).measures
        ()
    """
    for most_images in (1000, 300, 100):
        smaller = replace(asked, max_images=min(asked.max_images, most_images))
        if passes(smaller, test_n, outside_n) <= most:
            return smaller
    return replace(asked, measures=())


def measure_run(
    run: Path, data: ImageData, asked: Asked, *, threads: int | None = None, progress: Progress | None = None
) -> RunRecord:
    """Measure a finished run on its own images, write ``evaluation.json`` beside its record, and return the two as one.

    Args:
        run: the run's folder.
        data: the run's images.
        asked: what is measured.
        threads: of torch; None leaves them.
        progress: called while it goes.
    """
    loaded = load_run(run)
    started = time.perf_counter()
    with machine(threads):
        evaluation = measure(loaded, data, asked, progress=progress)
        record = RunRecord.load(run / "result.json")
        EvaluationRecord(
            schema=SCHEMA,
            of={"recipe_hash": record.recipe_hash, "date": record.date},
            asked=asked.to_dict(),
            evaluation=evaluation.to_dict(),
            seconds=time.perf_counter() - started,
            **provenance(next(loaded.model.parameters()).device),
        ).save(run / "evaluation.json")
    return load_run_record(run)


def train_and_measure(recipe: Recipe, out: Path, asked: Asked, *, data: ImageData, progress: Callback) -> RunRecord:
    """Train by a recipe into a run folder and measure what is asked for; what is done already is not done again.

    Args:
        recipe: what to do.
        out: the run's folder.
        asked: what is measured afterwards.
        data: the images.
        progress: called with the training's updates, and then with the measuring's.
    """
    record = train(recipe, out, data=data, progress=progress)
    if measured_in(out, asked):
        return load_run_record(out)

    return measure_run(out, data, asked, threads=recipe.threads, progress=as_updates(record, progress))


def as_updates(record: RunRecord, progress: Callback) -> Progress:
    """Return what tells of the measuring of a finished run by updates, as its training told.

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
                accuracy=last["train_accuracy"],
                test_accuracy=record.evaluation["top1"],
                images_per_second=record.images_per_second,
                seconds_left=0.0,
                measuring=what,
            )
        )

    return tell


def measured_in(run: Path, asked: Asked) -> bool:
    """Whether a finished run's folder holds what is asked for."""
    path = run / "evaluation.json"
    if not asked.measures:
        return True
    if not path.is_file():
        return False
    there = EvaluationRecord.load(path)
    return there.belongs_to(RunRecord.load(run / "result.json")) and there.asked == asked.to_dict()
