"""A grid of planned runs: one recipe for each method and seed, one folder per run; only missing runs are made."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord
from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig, is_evaluated, train_and_evaluate
from selfdistill.runs.executor import Executor, InThisProcess, Task
from selfdistill.runs.failures import FailedRunsError, Failure, note_failure, noted_failure
from selfdistill.train import Update


@dataclass(frozen=True)
class PlannedRun:
    """A training that is to be made: its folder's name and its recipe."""

    name: str
    recipe: TrainConfig


def plan_runs(recipe: TrainConfig, methods: Iterable[str], seeds: Iterable[int]) -> list[PlannedRun]:
    """Return a run for each method and seed, seed by seed, so that an interrupted grid has compared what it ran.

    Raises:
        ValueError: an unknown method, or the same method twice.

    Example:
        >>> [run.name for run in plan_runs(TrainConfig(), ["CrossEntropy()", "SDDropout(weight=0.1)"], range(1))]
        ['crossentropy-seed0', 'sddropout-weight-0.1-seed0']
    """
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


def run_grid(
    runs: Sequence[PlannedRun],
    out: Path,
    *,
    data: ImageData,
    evaluation: EvaluationConfig = BASIC_EVALUATION,
    executor: Executor | None = None,
    on_update: Callable[[PlannedRun, Update], None] | None = None,
    on_record: Callable[[PlannedRun, RunRecord], None] | None = None,
    on_failure: Callable[[PlannedRun, str], None] | None = None,
) -> list[RunRecord]:
    """Train and evaluate the runs that are missing under ``out``; return the records of all, in their order.

    Args:
        runs: planned runs, all on the same images.
        out: the grid's folder; a run's folder is ``out/<run.name>``.
        data: the images.
        evaluation: which evaluations to run beyond accuracy and calibration.
        executor: who does it; None works in this process.
        on_update: called with the progress of a run.
        on_record: called with each record.
        on_failure: called with each run that failed, and why; one that diverged before, and was not forgotten, fails
            without another try.

    Raises:
        FailedRunsError: runs failed; the others are done.
        Interrupted: SIGINT, SIGTERM or SIGHUP came, and the runs in progress are saved.
    """
    outcome = _Outcome({out / run.name: run for run in runs}, on_update, on_record, on_failure)
    finished, to_do = [], []
    for folder, run in outcome.runs.items():
        task = Task(folder, run.recipe, partial(train_and_evaluate, run.recipe, folder, evaluation))
        if is_finished(run, out, evaluation):
            finished.append(task)
        elif (failure := noted_failure(folder, run.recipe)) is not None:
            outcome.fail(folder, failure)
        else:
            to_do.append(task)
    here = InThisProcess(data)
    for who, which in ((here, finished), (executor or here, to_do)):
        hint = f"run the same command again to resume ({out})"
        who.execute(which, on_update=outcome.update, on_result=outcome.add, on_failure=outcome.fail, resume_hint=hint)
    records = [outcome.records[folder] for folder in outcome.runs if folder in outcome.records]
    if outcome.failures:
        raise FailedRunsError(outcome.failures, records)
    return records


@dataclass
class _Outcome:
    """What comes of a grid's runs, by folder, and who is told."""

    runs: Mapping[Path, PlannedRun]
    on_update: Callable[[PlannedRun, Update], None] | None
    on_record: Callable[[PlannedRun, RunRecord], None] | None
    on_failure: Callable[[PlannedRun, str], None] | None
    records: dict[Path, RunRecord] = field(default_factory=dict)
    failures: dict[Path, Failure] = field(default_factory=dict)

    def update(self, folder: Path, update: Update) -> None:
        if self.on_update is not None:
            self.on_update(self.runs[folder], update)

    def add(self, folder: Path, record: RunRecord) -> None:
        self.records[folder] = record
        if self.on_record is not None:
            self.on_record(self.runs[folder], record)

    def fail(self, folder: Path, failure: Failure) -> None:
        self.failures[folder] = failure
        if failure.diverged:
            note_failure(folder, self.runs[folder].recipe, failure)
        if self.on_failure is not None:
            self.on_failure(self.runs[folder], failure.reason)
