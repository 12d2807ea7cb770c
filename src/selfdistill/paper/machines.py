"""Measure parts of runs: in this process, several, or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from selfdistill.config import TrainConfig
from selfdistill.paper.kept import measure_part
from selfdistill.paper.scales import Setting
from selfdistill.paper.tables import Part
from selfdistill.runs.executor import Executor, Task
from selfdistill.runs.progress import job_progress


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
