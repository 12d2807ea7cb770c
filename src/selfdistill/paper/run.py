"""Reproduce a table: run what is missing, measure what is missing, and gather the cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.paper.gather import Key, cells_of, gather, parts_of, run_of, trained
from selfdistill.paper.kept import kept
from selfdistill.paper.line import Absent
from selfdistill.paper.machines import measure_parts
from selfdistill.paper.results import Result
from selfdistill.paper.scales import Setting, check_run
from selfdistill.paper.sizes import Size, size_of
from selfdistill.paper.synthetic import write_images
from selfdistill.paper.tables import PaperTable, Part, Training
from selfdistill.runs.executor_config import ExecutorConfig
from selfdistill.runs.grid import PlannedRun, is_trained, run_grid
from selfdistill.runs.progress import grid_progress
from selfdistill.train.run import load


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
