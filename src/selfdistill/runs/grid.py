"""A grid of planned runs: one recipe for each method and seed, one folder per run; only missing runs are made."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError, blaming
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord
from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig, is_evaluated, train_and_evaluate
from selfdistill.runs.executor import Executor, InThisProcess, Task
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


def run_grid(
    runs: Sequence[PlannedRun],
    out: Path,
    *,
    data: ImageData,
    evaluation: EvaluationConfig = BASIC_EVALUATION,
    executor: Executor | None = None,
    on_update: Callable[[PlannedRun, Update], None] | None = None,
    on_record: Callable[[PlannedRun, RunRecord], None] | None = None,
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

    Raises:
        ValueError: what a run raises in this process.
        RuntimeError: a run failed elsewhere.
        Interrupted: SIGINT or SIGTERM came, and the runs in progress are saved.
    """
    records: dict[str, RunRecord] = {}
    by_folder = {out / run.name: run for run in runs}

    def add_record(folder: Path, record: RunRecord) -> None:
        run = by_folder[folder]
        records[run.name] = record
        if on_record is not None:
            on_record(run, record)

    def report(folder: Path, update: Update) -> None:
        if on_update is not None:
            on_update(by_folder[folder], update)

    tasks = [
        Task(folder, run.recipe, partial(train_and_evaluate, run.recipe, folder, evaluation))
        for folder, run in by_folder.items()
    ]
    finished = [task for task in tasks if is_finished(by_folder[task.folder], out, evaluation)]
    here = InThisProcess(data)
    for who, which in ((here, finished), (executor or here, [task for task in tasks if task not in finished])):
        hint = f"run the same command again to resume ({out})"
        who.execute(which, on_update=report, on_result=add_record, resume_hint=hint)
    return [records[run.name] for run in runs]
