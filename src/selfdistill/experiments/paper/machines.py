"""Who trains and measures a table: this process, several, or a cluster; and the measuring there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import cuda

from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.experiments.cluster import run_on_ray
from selfdistill.experiments.grid import processors_each
from selfdistill.experiments.paper.entry import Part
from selfdistill.experiments.paper.kept import measure_part
from selfdistill.experiments.paper.setting import Setting
from selfdistill.experiments.show import several_shown
from selfdistill.experiments.workers import Task, run_in_processes
from selfdistill.train import Recipe
from selfdistill.train.progress import Callback
from selfdistill.train.run import load, machine


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
                raise ArgumentError(name, f"must be at least 1, not {getattr(self, name)}")
        if self.jobs > 1 and self.ray is not None:
            raise ArgumentError("jobs", "and `ray` exclude each other: the cluster says how many run at a time")


HERE = Machines()
"""This process does it all."""


def measure_on(machines: Machines, todo: Sequence[tuple[Path, Part]], setting: Setting, data: ImageData) -> None:
    """Measure parts of runs here, in processes, or on a cluster, and keep what was measured.

    Args:
        machines: who does it.
        todo: runs and what is measured of them.
        setting: at what scale.
        data: the images of all the runs.

    Raises:
        RuntimeError: in a process or on a cluster, that it failed.
        Interrupted: SIGINT or SIGTERM came.
    """
    if not todo:
        return
    threads = None if machines.jobs == 1 else processors_each(machines.jobs)
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
            works = {folder: partial(_load_and_do, task, machines.cpus) for folder, task in tasks.items()}
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


def _load_and_do(task: Task, cpus: int, progress: Callback) -> Any:
    """Do a task on a machine of the cluster: on its GPU, or on so many processors."""
    with machine(None if cuda.is_available() else cpus):
        return task.do(data=load(task.recipe), progress=progress)


def _named(measured: Path) -> str:
    return f"{measured.parent.name}: {measured.name}"
