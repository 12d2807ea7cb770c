"""Reproduce a table: run what is missing, measure what is missing, and gather the cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.data.decode import cpu_count
from selfdistill.experiments.cluster import run_on_ray
from selfdistill.experiments.grid import Cell, run_grid, trained_in
from selfdistill.experiments.paper.entry import PaperTable, Part, Training
from selfdistill.experiments.paper.gather import Key, cells_of, gather, parts_of, run_of, trained
from selfdistill.experiments.paper.kept import kept, measure_part
from selfdistill.experiments.paper.line import Absent
from selfdistill.experiments.paper.result import Result
from selfdistill.experiments.paper.setting import Setting, check_run
from selfdistill.experiments.paper.sizes import Size, size_of
from selfdistill.experiments.paper.synthetic import write_images
from selfdistill.experiments.show import several_shown, shown
from selfdistill.experiments.workers import Task, run_in_processes
from selfdistill.train import Recipe
from selfdistill.train.progress import Callback
from selfdistill.train.run import load


@dataclass(frozen=True)
class Machines:
    """Who trains and measures.

    Attributes:
        jobs: trainings, and then measurings, at a time on this machine; more than 1 in processes of their own.
        ray: address of a Ray cluster that does them instead, as for `run_on_ray`.
        cpus: of a cluster without GPUs, processors for each.

    Raises:
        ValueError: a number below 1, or ``jobs`` beside ``ray``.
    """

    jobs: int = 1
    ray: str | None = None
    cpus: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("jobs", "cpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.jobs > 1 and self.ray is not None:
            raise ValueError("--jobs and --ray exclude each other: the cluster says how many run at a time")


def reproduce(table: PaperTable, setting: Setting, machines: Machines = Machines()) -> Result:
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
        _complete(table, setting, chosen, source, absent, machines)
    return gather(table, setting, absent)


def _complete(
    table: PaperTable, setting: Setting, cells: Mapping[Key, Cell], source: str, absent: Absent, machines: Machines
) -> None:
    """Run and measure what is missing of the trainings on one data set; say in ``absent`` what cannot be.

    What cannot be is known before hours of training: a training of which no cell can have a number is not made.
    """
    if all(trained_in(cell, setting.runs) for cell in cells.values()) and not any(_unmeasured(table, setting, cells)):
        return
    if setting.scale == "smoke":
        write_images(setting.images(source), source)
    try:
        data = load(next(iter(cells.values())).recipe)
        _require_size(data, size_of(source, setting.scale))
    except (ValueError, RuntimeError, OSError) as error:
        absent.update({training: f"no data: {error}" for training, _ in cells})
        return
    parts = dict.fromkeys(part for training, _ in cells for part in parts_of(table, training))
    there = _with_images([part for part in parts if part.refusal(setting) is None], setting, data, absent)
    missing = [
        cell
        for (training, _), cell in cells.items()
        if not trained_in(cell, setting.runs) and _has_a_number(table, training, there)
    ]
    if missing:
        if machines.ray is not None:  # where a cluster has no GPUs, as many threads as it has processors
            missing = [replace(cell, recipe=replace(cell.recipe, threads=machines.cpus)) for cell in missing]
        with shown(Console(stderr=True), len(missing)) as (running, finished):
            run_grid(
                missing,
                setting.runs,
                data=data,
                jobs=machines.jobs,
                ray=machines.ray,
                running=running,
                finished=finished,
            )
    todo = [(run, part) for run, part in _unmeasured(table, setting, cells) if part in there]
    _measure(todo, setting, data, machines)


def _has_a_number(table: PaperTable, training: Training, there: set[Part]) -> bool:
    """Whether some cell of a training needs no part but those whose images are there."""
    entries = [entry for entry in table.entries if entry.training == training]
    return any(all(measure.part is None or measure.part in there for measure in one.measures) for one in entries)


def _require_size(data: ImageData, size: Size) -> None:
    if (found := Size(len(data.train), len(data.test), len(data.classes))) != size:
        told, wanted = (f"{one.train:,} training and {one.test:,} test images" for one in (found, size))
        raise ValueError(f"{data.name} has {told} of {found.classes:,} classes, not {wanted} of {size.classes:,}")


def _measure(todo: Sequence[tuple[Path, Part]], setting: Setting, data: ImageData, machines: Machines) -> None:
    """Measure parts of runs here, in processes, or on a cluster."""
    if not todo:
        return
    shared = machines.jobs > 1 or machines.ray is not None
    threads = (machines.cpus if machines.ray is not None else max(1, cpu_count() // machines.jobs)) if shared else None
    tasks = {
        run / part.name: Task(
            run / part.name, Recipe.from_yaml(run / "recipe.yaml"), partial(measure_part, run, part, setting, threads)
        )
        for run, part in todo
    }
    with several_shown(Console(stderr=True), len(tasks), "measures") as (move, close):

        def running(folder: Path, update: Any) -> None:
            move(_named(folder), update)

        def finished(folder: Path, seconds: float) -> None:
            close(_named(folder), f"{_named(folder)}: measured in {seconds:.0f} s")

        how = f"give the same command again to go on ({setting.out})"
        if machines.ray is not None:
            works = {folder: partial(_load_and_do, task) for folder, task in tasks.items()}
            run_on_ray(
                works,
                address=machines.ray,
                cpus=machines.cpus,
                running=running,
                finished=finished,
                how_to_go_on=how,
            )
        elif machines.jobs > 1:
            run_in_processes(
                list(tasks.values()), jobs=machines.jobs, running=running, finished=finished, how_to_go_on=how
            )
        else:
            for folder, task in tasks.items():
                finished(folder, task.do(data=data, progress=partial(running, folder)))


def _load_and_do(task: Task, progress: Callback) -> Any:
    """Do a task on a machine of the cluster."""
    return task.do(data=load(task.recipe), progress=progress)


def _named(measured: Path) -> str:
    return f"{measured.parent.name}: {measured.name}"


def _unmeasured(table: PaperTable, setting: Setting, cells: Mapping[Key, Cell]) -> Iterable[tuple[Path, Part]]:
    """Yield the finished runs and the parts that are not measured of them; part by part, as some load images."""
    parts = dict.fromkeys(part for training, _ in cells for part in parts_of(table, training))
    for part in parts:
        if part.refusal(setting) is not None:
            continue
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
