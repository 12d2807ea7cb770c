"""Reproduce tables: train and evaluate what is missing, and collect the cells."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.paper.results import (
    Absent,
    Key,
    Result,
    cells_of,
    evaluation_file,
    gather,
    kept,
    parts_of,
    run_of,
    trained,
)
from selfdistill.paper.scales import Setting, Size, Training, check_run, size_of, write_images
from selfdistill.paper.tables import PaperTable, Part
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.records.evaluation import SCHEMA
from selfdistill.runs.executor import Executor, Task
from selfdistill.runs.executor_config import ExecutorConfig
from selfdistill.runs.grid import PlannedRun, is_trained, run_grid
from selfdistill.runs.progress import grid_progress, job_progress
from selfdistill.train.progress import Callback
from selfdistill.train.record import provenance
from selfdistill.train.run import load, machine


def reproduce(table: PaperTable, setting: Setting, machines: ExecutorConfig | None = None) -> Result:
    """Return a table's cells; a finished run is not run again, nor what was measured of it measured.

    Args:
        table: which.
        setting: where, and at what scale.
        machines: who does it.

    Raises:
        ValueError: a run's folder of another recipe, or what a training raises.
        RuntimeError: with several jobs, or on a cluster, that a run failed.
        Interrupted: SIGINT or SIGTERM came, and the runs at hand are saved.
    """
    absent: Absent = {}
    cells = cells_of(table, setting)
    for (training, _), cell in cells.items():
        check_run(run_of(setting, cell), cell.recipe, size_of(training.data, setting.scale))
    for source in dict.fromkeys(training.data for training in table.trainings):
        chosen = {
            (training, seed): cell
            for (training, seed), cell in cells.items()
            if training.data == source and setting.refusal(training) is None
        }
        _complete(table, setting, chosen, source, absent, machines or ExecutorConfig())
    return gather(table, setting, absent)


def _complete(
    table: PaperTable,
    setting: Setting,
    cells: Mapping[Key, PlannedRun],
    source: str,
    absent: Absent,
    machines: ExecutorConfig,
) -> None:
    """Run and measure what is missing of the trainings on one data set; say in ``absent`` what cannot be.

    What cannot be is known before hours of training: a training of which no cell can have a number is not made.
    """
    if all(is_trained(cell, setting.runs) for cell in cells.values()) and not any(_unmeasured(table, setting, cells)):
        return
    if setting.scale == "smoke":
        write_images(setting.images(source), source)
    try:
        data = load(next(iter(cells.values())).recipe)
        _require_size(data, size_of(source, setting.scale))
    except (ValueError, RuntimeError, OSError) as error:
        absent.update({training: f"no data: {error}" for training, _ in cells})
        return
    there = _with_images(_measured(table, setting, cells), setting, data, absent)
    missing = [
        cell
        for (training, _), cell in cells.items()
        if not is_trained(cell, setting.runs) and _has_a_number(table, training, there)
    ]
    executor = machines.make(data)
    if missing:
        with grid_progress(Console(stderr=True), len(missing)) as (running, finished):
            run_grid(
                missing,
                setting.runs,
                data=data,
                executor=executor,
                on_update=running,
                on_record=finished,
            )
    todo = [(run, part) for run, part in _unmeasured(table, setting, cells) if part in there]
    measure_parts(executor, todo, setting)


def _has_a_number(table: PaperTable, training: Training, there: set[Part]) -> bool:
    """Whether some cell of a training needs no part but those whose images are there."""
    entries = [entry for entry in table.entries if entry.training == training]
    return any(all(measure.part is None or measure.part in there for measure in one.measures) for one in entries)


def _require_size(data: ImageData, size: Size) -> None:
    if (found := Size(len(data.train), len(data.test), len(data.classes))) != size:
        told, wanted = (f"{one.train:,} training and {one.test:,} test images" for one in (found, size))
        raise ValueError(f"{data.name} has {told} of {found.classes:,} classes, not {wanted} of {size.classes:,}")


def _measured(table: PaperTable, setting: Setting, cells: Mapping[Key, PlannedRun]) -> list[Part]:
    """Return what this scale measures of the runs, each part once."""
    parts = dict.fromkeys(part for training, _ in cells for part in parts_of(table, training))
    return [part for part in parts if part.refusal(setting) is None]


def _unmeasured(table: PaperTable, setting: Setting, cells: Mapping[Key, PlannedRun]) -> Iterable[tuple[Path, Part]]:
    """Yield the finished runs and the parts that are not measured of them; part by part, as some load images."""
    for part in _measured(table, setting, cells):
        for (training, _), cell in trained(setting, cells):
            run = run_of(setting, cell)
            if part in parts_of(table, training) and kept(run, part, setting) is None:
                yield run, part


def _with_images(parts: Iterable[Part], setting: Setting, data: ImageData, absent: Absent) -> set[Part]:
    """Return the parts whose images are there; say in ``absent`` why others are not."""
    there = set()
    for part in parts:
        try:
            part.check(setting, data)
        except (ValueError, RuntimeError, OSError) as error:
            absent[part] = f"no data: {error}"
        else:
            there.add(part)
    return there


def measure_part(
    run: Path, part: Part, setting: Setting, *, data: ImageData, cpus: int | None = None, progress: Callback
) -> float:
    """Measure a part of a finished run, keep it in ``<run>/measured/``, atomically, and return the seconds it took.

    Args:
        run: its folder.
        part: what is measured.
        setting: at what scale.
        data: the run's images.
        cpus: threads of torch; None leaves them.
        progress: called while it goes.
    """
    started = time.perf_counter()
    with machine(cpus):
        evaluation = part.measure(run, data, setting, progress)
        seconds = time.perf_counter() - started
        record = RunRecord.load(run / "result.json")
        file = evaluation_file(run, part)
        file.parent.mkdir(exist_ok=True)
        EvaluationRecord(
            schema=SCHEMA,
            of={"recipe_hash": record.recipe_hash, "date": record.date},
            asked=part.asked(setting),
            evaluation=evaluation,
            seconds=seconds,
            **provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        ).save(file)
    return seconds


def measure_parts(executor: Executor, todo: Sequence[tuple[Path, Part]], setting: Setting) -> None:
    """Measure parts of runs, and keep what was measured.

    Args:
        executor: who does it.
        todo: runs and what is measured of them.
        setting: at what scale.

    Raises:
        RuntimeError: in a process or on a cluster, that it failed.
        Interrupted: SIGINT or SIGTERM came.
    """
    if not todo:
        return
    tasks = [
        Task(run / part.name, TrainConfig.from_yaml(run / "recipe.yaml"), partial(measure_part, run, part, setting))
        for run, part in todo
    ]
    with job_progress(Console(stderr=True), len(tasks), "measures") as (move, close):

        def report(folder: Path, update: Any) -> None:
            move(_named(folder), update)

        def finish(folder: Path, seconds: float) -> None:
            close(_named(folder), f"{_named(folder)}: measured in {seconds:.0f} s")

        hint = f"give the same command again to go on ({setting.out})"
        executor.execute(tasks, on_update=report, on_result=finish, resume_hint=hint)


def _named(measured: Path) -> str:
    return f"{measured.parent.name}: {measured.name}"
