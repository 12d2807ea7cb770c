"""A grid of planned runs: one recipe for each method and seed, one folder per run; only missing runs are made.

`ExecutorConfig` says who does them.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from selfdistill.config import ResolvedTrainConfig, TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError, blaming, check_range
from selfdistill.methods import parse_method
from selfdistill.models.function import ModelFunction
from selfdistill.models.pretrained import pretrained
from selfdistill.progress import Display, Progress
from selfdistill.records import RunRecord
from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig, is_evaluated, train_and_evaluate
from selfdistill.runs.executor import Executor, InThisProcess, Listener, Task
from selfdistill.runs.failures import FailedRunsError, Failure, note_failure, noted_failure
from selfdistill.runs.processes import Processes
from selfdistill.runs.ray_cluster import RayCluster
from selfdistill.text import count_of, quote
from selfdistill.training.trackers import check_tracker

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedRun:
    """A training that is to be made: its folder's name and its recipe."""

    name: str
    recipe: TrainConfig


def plan_runs(recipe: TrainConfig, methods: Iterable[str], seeds: Iterable[int]) -> list[PlannedRun]:
    """Return a run for each method and seed, seed by seed, so that an interrupted grid has compared what it ran.

    Raises:
        ValueError: an unknown method, the same method twice, or a tracker that is not installed.

    Example:
        >>> [run.name for run in plan_runs(TrainConfig(), ["CrossEntropy()", "SDDropout(weight=0.1)"], range(1))]
        ['crossentropy-seed0', 'sddropout-weight-0.1-seed0']
    """
    check_tracker(recipe.log)
    with blaming("methods"):
        spelled = [repr(parse_method(method)) for method in methods]
    for method in spelled:
        if spelled.count(method) > 1:
            raise ArgumentError("methods", f"must be different: {method} is given twice")
    return [
        PlannedRun(f"{slug(method)}-seed{seed}", replace(recipe, method=method, seed=seed))
        for seed in seeds
        for method in spelled
    ]


def slug(method: str) -> str:
    """Return a method as a folder's name.

    Example:
        >>> slug("LabelSmoothing() + SDDropout(at='layer3', weight=0.1)")
        'labelsmoothing-sddropout-at-layer3-weight-0.1'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", method).strip("-").lower()


def is_trained(run: PlannedRun, out: Path) -> bool:
    """Whether a run of the grid in ``out`` is trained."""
    return (out / run.name / "result.json").is_file()


def is_finished(run: PlannedRun, out: Path, evaluation: EvaluationConfig) -> bool:
    """Whether a run of the grid in ``out`` is trained and evaluated."""
    return is_trained(run, out) and is_evaluated(out / run.name, evaluation)


@dataclass(frozen=True)
class ExecutorConfig:
    """Which executor does the work.

    Attributes:
        jobs: parallel processes on this machine; 1 works in this process.
        ray: address of a Ray cluster that does it instead, as for `RayCluster`.
        cpus: CPUs of each task on a cluster without GPUs.

    Raises:
        ArgumentError: a number out of range, ``jobs`` beside ``ray``, ``cpus`` without it, or not an address.
    """

    jobs: int = 1
    ray: str | None = None
    cpus: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_range("jobs", self.jobs, 1, 1024)
        check_range("cpus", self.cpus, 1, 1024)
        if self.ray is None and self.cpus > 1:
            raise ArgumentError("cpus", "belongs to `ray`, which is not given")
        if self.ray is not None and not re.fullmatch(r"auto|(ray://)?[^\s:/]+:[0-9]{1,5}", self.ray):
            raise ArgumentError("ray", f"must be auto, HOST:PORT or ray://HOST:PORT, not {quote(self.ray)}")
        if self.jobs > 1 and self.ray is not None:
            raise ArgumentError("jobs", "and `ray` exclude each other: the cluster says how many run at a time")

    def make(self, data: ImageData) -> Executor:
        """Return the executor; ``data`` are the images of all tasks."""
        if self.ray is not None:
            return RayCluster(self.ray, self.cpus)
        if self.jobs > 1:
            return Processes(self.jobs)
        return InThisProcess(data)


def check_other_processes(recipe: TrainConfig, data: ImageData | None, jobs: int) -> None:
    """Refuse what processes of their own cannot load by its name."""
    what = None if data is None else f"{data.name}, images that are here alone"
    if isinstance(recipe.model, ModelFunction) and not recipe.model.is_importable:
        what = f"{recipe.model}, a model that cannot be imported by its name"
    if what is not None and jobs > 1:
        raise ArgumentError("jobs", f"must be 1 for {what}")


def run_grid(
    runs: Sequence[PlannedRun],
    out: Path,
    *,
    data: ImageData,
    evaluation: EvaluationConfig = BASIC_EVALUATION,
    executor: Executor | None = None,
    display: Display | None = None,
) -> list[RunRecord]:
    """Train and evaluate the runs that are missing under ``out``; return the records of all, in their order.

    Args:
        out: the grid's folder; a run's folder is ``out/<run.name>``.
        executor: who does it; None works in this process.
        display: shows each run by its name, and which failed; one that diverged before, and was not forgotten, fails
            without another try.

    Raises:
        FailedRunsError: runs failed; the others are done.
        Interrupted: SIGINT, SIGTERM or SIGHUP came, and the runs in progress are saved.
    """
    outcome = _Outcome({out / run.name: run for run in runs}, data, display)
    finished, to_do = [], []
    for folder, run in outcome.runs.items():
        task = Task(folder, run.recipe, partial(train_and_evaluate, run.recipe, folder, evaluation))
        if is_finished(run, out, evaluation):
            finished.append(task)
        elif (failure := noted_failure(folder, run.recipe, data.fingerprint)) is not None:
            outcome.fail(folder, failure)
        else:
            to_do.append(task)
    here, listener = InThisProcess(data), Listener(outcome.update, outcome.add, outcome.fail)
    for who, which in ((here, finished), (executor or here, to_do)):
        who.execute(which, listener, f"run the same command again to resume ({out})")
    records = [outcome.records[folder] for folder in outcome.runs if folder in outcome.records]
    if outcome.failures:
        raise FailedRunsError(outcome.failures, records)
    return records


@dataclass
class _Outcome:
    """What comes of a grid's runs, by folder; shown as it comes."""

    runs: Mapping[Path, PlannedRun]
    data: ImageData
    display: Display | None
    records: dict[Path, RunRecord] = field(default_factory=dict)
    failures: dict[Path, Failure] = field(default_factory=dict)

    def update(self, folder: Path, event: Progress) -> None:
        if self.display is not None:
            self.display.update(self.runs[folder].name, event)

    def add(self, folder: Path, record: RunRecord) -> None:
        self.records[folder] = record
        self._finish(folder, describe_record(record))

    def fail(self, folder: Path, failure: Failure) -> None:
        self.failures[folder] = failure
        _LOGGER.debug(failure.traceback)
        if failure.diverged:
            note_failure(folder, self.runs[folder].recipe, self.data.fingerprint, failure)
        self._finish(folder, f"{self.runs[folder].name} failed: {failure.reason}".replace("`", ""))

    def _finish(self, folder: Path, line: str) -> None:
        if self.display is not None:
            self.display.finish(self.runs[folder].name, line)


def describe_plan(recipe: TrainConfig, data: ImageData) -> str:
    """Return a line on the images and the network of some runs."""
    resolved = recipe.resolve(data)
    skipped = f", {count_of(len(data.skipped), 'unreadable file')} left out" if data.skipped else ""
    trained_on = f" ({data.train_split_description})" if data.train_split_description else ""
    validation = f", {len(data.val):,} validation images ({data.val_split_description})" if data.val else ""
    notes = "".join(f"; {note}" for note in data.notes)
    first = ", ".join([*data.classes[:3], *["..."][: len(data.classes) - 3]])
    cache = data.train.cache
    cached = "" if cache is None else f", decoded into {cache.file} (delete it when you like)"
    known = pretrained(resolved.model, resolved.weights) if resolved.fine_tunes else None
    trained_at = f" (weights: {known.size})" if known is not None and known.size != data.image_size else ""
    return (
        f"{data.name}: {len(data.train):,} training images{trained_on}, {len(data.test):,} test images "
        f"({data.test_split_description}){validation}, {len(data.classes)} classes ({first}), {data.image_size} px"
        f"{trained_at}{skipped}{cached}{notes}; "
        f"{resolved.model}, weights: {resolved.weights}, batches of {resolved.batch_size}, {describe_rates(resolved)}"
    )


def describe_rates(recipe: ResolvedTrainConfig) -> str:
    """Return which optimiser, rates and schedule are used, how the head starts, and what stays as it was pretrained."""
    backbone = (
        "" if recipe.backbone_lr is None or recipe.freeze == "backbone" else f" (backbone {recipe.backbone_lr:g})"
    )
    schedule = f"{recipe.schedule} over {count_of(recipe.epochs, 'epoch')}"
    rates = f"{recipe.optimizer}, lr {recipe.lr:g}{backbone}, {schedule}"
    rates += ", a new head starts from a linear probe" if recipe.linear_probe else ""
    if recipe.freeze == "backbone":
        return f"{rates}, backbone frozen"
    return rates + (", BatchNorm statistics frozen" if recipe.freeze_bn else "")


def describe_record(record: RunRecord) -> str:
    """Return a line on a finished run."""
    e, weight = record.evaluation, record.recipe.auto_weight
    found = "" if weight is None else f", weight {weight:.3g} found"
    return (
        f"{record.method} seed {record.seed}{found}: test {e.top1:.1%}, ECE {e.ece:.3f} (gap {e.gap:+.3f}), "
        f"{record.seconds:.0f} s"
    )
