"""Reproduce tables: train and evaluate what is missing, and write the pages."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.data.files import explained_worker_losses
from selfdistill.files import make_folder, remove_leftovers
from selfdistill.network import default_device
from selfdistill.paper.figures import write_figure1
from selfdistill.paper.pages import write_page
from selfdistill.paper.results import (
    MissingReasons,
    TableResult,
    collect_result,
    evaluation_file,
    load_cached_evaluation,
)
from selfdistill.paper.scales import DatasetSize, PaperConfig, check_run, dataset_size, write_synthetic_images
from selfdistill.paper.tables import PaperTable, RunEvaluation, RunKey
from selfdistill.progress import Display, OnProgress
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.runs.executor import Executor, Listener, Task
from selfdistill.runs.failures import FailedRunsError, Failure, forget_failures
from selfdistill.runs.grid import ExecutorConfig, PlannedRun, is_trained, run_grid
from selfdistill.training.export import load_weights
from selfdistill.training.record import provenance
from selfdistill.training.run import load, machine


def reproduce_tables(
    tables: Iterable[PaperTable], config: PaperConfig, executor: ExecutorConfig, *, retry_failed: bool = False
) -> Iterator[tuple[TableResult | None, Path]]:
    """Reproduce tables one by one, and write the page of each.

    Yields:
        Each result, and its page; None for Fig. 1, which has no numbers.

    Raises:
        ValueError: at the end, if no cell of any table has a number; and what `reproduce_table` raises.
        FailedRunsError: at the end, if trainings or evaluations failed.
    """
    tables = list(tables)
    if retry_failed:
        forget_failures(config.runs / run.name for table in tables for run in table.planned_runs(config).values())
    failures: dict[Path, Failure] = {}
    missing_reasons: list[str] = []
    has_numbers = False
    for table in tables:
        if table.figure == "diagrams":
            yield None, write_figure1(config.out)
            continue
        result = reproduce_table(table, config, executor, failures=failures)
        has_numbers = has_numbers or result.has_numbers
        missing_reasons += [cell.missing_reason for cell in result.cells]
        yield result, write_page(result, config.out)
    if failures:
        raise FailedRunsError(failures)
    if missing_reasons and not has_numbers:
        raise ValueError(f"no cell has a number: {missing_reasons[0]}")


def reproduce_table(
    table: PaperTable,
    config: PaperConfig,
    executor: ExecutorConfig | None = None,
    *,
    failures: dict[Path, Failure] | None = None,
) -> TableResult:
    """Return a table's cells; a finished run is not repeated, nor an evaluation that is cached.

    Where a training or an evaluation fails, the others go on; its cells say why they lack a number.

    Args:
        executor: where trainings and evaluations run (default: in this process).

    Raises:
        ValueError: a run's folder belongs to another recipe.
        RuntimeError: the executor cannot work.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the runs in progress are saved.
    """
    missing: MissingReasons = {}
    failures = {} if failures is None else failures
    runs = table.planned_runs(config)
    for (training, _), run in runs.items():
        check_run(config.runs / run.name, run.recipe, dataset_size(training.data, config.scale))
    for dataset in dict.fromkeys(training.data for training in table.trainings):
        of_dataset = {
            (training, seed): run
            for (training, seed), run in runs.items()
            if training.data == dataset and config.skip_reason(training) is None
        }
        failures |= _complete_runs(table, config, of_dataset, missing, executor or ExecutorConfig())
    return collect_result(table, config, missing)


def _complete_runs(
    table: PaperTable,
    config: PaperConfig,
    runs: Mapping[RunKey, PlannedRun],
    missing: MissingReasons,
    executor_config: ExecutorConfig,
) -> dict[Path, Failure]:
    """Train and evaluate what is missing of the runs on one dataset; note in ``missing`` what cannot be done.

    Returns the failures, which are in ``missing`` too.

    Missing images are found before hours of training: a training is skipped if none of its cells could have a number.
    """
    lack = {run for run, _ in _missing_evaluations(table, config, runs)}
    if not lack and all(is_trained(run, config.runs) for run in runs.values()):
        return {}
    try:
        data = _load_images(runs, config)
    except (ValueError, RuntimeError, OSError) as error:
        missing.update({training: f"no data: {error}" for training, _ in runs})
        return {}
    possible = _possible_evaluations(_evaluations(table, config, runs), config, data, missing)
    trainable = {
        cell.training
        for cell in table.cells
        if all(metric.evaluation is None or metric.evaluation in possible for metric in cell.metrics)
    }
    to_train = [
        run for (training, _), run in runs.items() if training in trainable and _must_be_trained(run, config.runs, lack)
    ]
    executor = executor_config.make(data)
    failures = _train_runs(executor, to_train, config, data)
    for (training, _), run in runs.items():
        if failure := failures.get(config.runs / run.name):
            missing[training] = f"{run.name} failed: {failure.reason}"
    to_evaluate = [(run, one) for run, one in _missing_evaluations(table, config, runs) if one in possible]
    return failures | _evaluate_runs(executor, to_evaluate, config, missing)


def _must_be_trained(run: PlannedRun, out: Path, lack: set[Path]) -> bool:
    """Whether a run is not finished, or lacks both an evaluation and the weights for it."""
    if not is_trained(run, out):
        return True
    if out / run.name not in lack:
        return False
    try:
        load_weights(out / run.name)
    except ValueError:
        return True
    return False


def _train_runs(
    executor: Executor, runs: Sequence[PlannedRun], config: PaperConfig, data: ImageData
) -> dict[Path, Failure]:
    """Train runs; return why some failed."""
    if not runs:
        return {}
    try:
        with Display(jobs=len(runs), every=30.0) as display:
            run_grid(runs, config.runs, data=data, executor=executor, display=display)
    except FailedRunsError as failed:
        return failed.failures
    return {}


def _load_images(runs: Mapping[RunKey, PlannedRun], config: PaperConfig) -> ImageData:
    """Load the images of runs on one dataset.

    Raises:
        ValueError: they are not as many as the scale uses; or what loading raises.
    """
    (training, _), run = next(iter(runs.items()))
    if config.scale == "smoke":
        write_synthetic_images(config.images_folder(training.data), training.data)
    data, size = load(run.recipe), dataset_size(training.data, config.scale)
    found = DatasetSize(len(data.train), len(data.test), len(data.classes))
    if found != size:
        has, needs = (f"{one.train:,} training and {one.test:,} test images" for one in (found, size))
        raise ValueError(f"{data.name} has {has} of {found.classes:,} classes, not {needs} of {size.classes:,}")
    return data


def _evaluations(table: PaperTable, config: PaperConfig, runs: Mapping[RunKey, PlannedRun]) -> list[RunEvaluation]:
    """Return the evaluations of the runs at this scale, each once."""
    return list(dict.fromkeys(one for training, _ in runs for one in table.planned_evaluations(training, config)))


def _missing_evaluations(
    table: PaperTable, config: PaperConfig, runs: Mapping[RunKey, PlannedRun]
) -> Iterator[tuple[Path, RunEvaluation]]:
    """Yield finished runs and the evaluations that they lack; grouped by evaluation, because some load images."""
    for evaluation in _evaluations(table, config, runs):
        for (training, _), planned in runs.items():
            run = config.runs / planned.name
            if (
                is_trained(planned, config.runs)
                and evaluation in table.evaluations_of(training)
                and load_cached_evaluation(run, evaluation, config) is None
            ):
                yield run, evaluation


def _possible_evaluations(
    evaluations: Iterable[RunEvaluation], config: PaperConfig, data: ImageData, missing: MissingReasons
) -> set[RunEvaluation]:
    """Return the evaluations whose images are there; note in ``missing`` why the others are impossible."""
    possible = set()
    for evaluation in evaluations:
        try:
            evaluation.check_data(config, data)
        except (ValueError, RuntimeError, OSError) as error:
            missing[evaluation] = f"no data: {error}"
        else:
            possible.add(evaluation)
    return possible


def _evaluate_runs(
    executor: Executor, todo: Sequence[tuple[Path, RunEvaluation]], config: PaperConfig, missing: MissingReasons
) -> dict[Path, Failure]:
    """Run evaluations of finished runs, and cache them; return, and note in ``missing``, why some failed."""
    failures: dict[Path, Failure] = {}
    if not todo:
        return failures
    evaluations = {run / one.name: one for run, one in todo}
    tasks = [
        Task(run / one.name, TrainConfig.from_yaml(run / "recipe.yaml"), partial(evaluate_run, run, one, config))
        for run, one in todo
    ]

    def label(folder: Path) -> str:
        return f"{folder.parent.name}: {folder.name}"

    def finish(folder: Path, seconds: float) -> None:
        display.finish(label(folder), f"{label(folder)}: measured in {seconds:.0f} s")

    def fail(folder: Path, failure: Failure) -> None:
        failures[folder] = failure
        reason = missing[evaluations[folder]] = f"{label(folder)} failed: {failure.reason}"
        display.finish(label(folder), reason)

    with Display(jobs=len(tasks), things="evaluations", every=30.0) as display:
        listener = Listener(lambda folder, event: display.update(label(folder), event), finish, fail)
        executor.execute(tasks, listener, f"run the same command again to resume ({config.out})")
    return failures


def evaluate_run(
    run: Path,
    evaluation: RunEvaluation,
    config: PaperConfig,
    *,
    data: ImageData,
    cpus: int | None = None,
    progress: OnProgress,
) -> float:
    """Run an evaluation of a finished run, cache it in ``<run>/measured/``, atomically, and return its seconds.

    Args:
        cpus: threads of torch; None leaves their number as it is.
    """
    started = time.perf_counter()
    with machine(cpus), explained_worker_losses():
        result = evaluation.evaluate(run, data, config, progress)
        seconds = time.perf_counter() - started
        record = RunRecord.load(run / "result.json")
        file = evaluation_file(run, evaluation)
        make_folder(file.parent)
        remove_leftovers(file.parent)
        EvaluationRecord(
            of={"recipe_hash": record.recipe_hash, "date": record.date},
            config=evaluation.cache_key(config),
            evaluation=msgspec.to_builtins(result),
            seconds=seconds,
            **provenance(default_device()),
        ).save(file)
    return seconds
