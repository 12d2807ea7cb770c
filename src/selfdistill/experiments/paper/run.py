"""Reproduce a table: run what is missing, measure what is missing, and gather the cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.experiments.cluster import run_on_ray
from selfdistill.experiments.grid import Cell, run_grid, trained_in
from selfdistill.experiments.paper.entry import PaperTable, Part
from selfdistill.experiments.paper.gather import Key, cells_of, gather, parts_of, run_of, trained
from selfdistill.experiments.paper.kept import kept, measure_part
from selfdistill.experiments.paper.line import Absent
from selfdistill.experiments.paper.result import Result
from selfdistill.experiments.paper.setting import Setting, check_recipe
from selfdistill.experiments.paper.synthetic import write_images
from selfdistill.experiments.show import counted, shown
from selfdistill.train import Recipe
from selfdistill.train.progress import Callback
from selfdistill.train.run import load


def reproduce(table: PaperTable, setting: Setting, *, jobs: int = 1, ray: str | None = None) -> Result:
    """Return a table's cells; a finished run is not run again, nor what was measured of it measured.

    Args:
        table: which.
        setting: where, and at what scale.
        jobs: trainings at a time.
        ray: address of a Ray cluster that trains and measures instead, as for `run_on_ray`.

    Raises:
        ValueError: ``jobs`` below 1 or beside ``ray``, a run's folder of another recipe, or what a training raises.
        RuntimeError: with several jobs, or on a cluster, that a run failed.
        Interrupted: SIGINT or SIGTERM came, and the runs at hand are saved.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    if jobs > 1 and ray is not None:
        raise ValueError("--jobs and --ray exclude each other: the cluster says how many run at a time")
    absent: Absent = {}
    cells = cells_of(table, setting)
    for cell in cells.values():
        check_recipe(cell, setting.runs / cell.name)
    for source in dict.fromkeys(training.data for training in table.trainings):
        chosen = {
            (training, seed): cell
            for (training, seed), cell in cells.items()
            if training.data == source and setting.refusal(training) is None
        }
        _complete(table, setting, chosen, source, absent, jobs, ray)
    return gather(table, setting, absent)


def _complete(
    table: PaperTable,
    setting: Setting,
    cells: Mapping[Key, Cell],
    source: str,
    absent: Absent,
    jobs: int,
    ray: str | None,
) -> None:
    """Run and measure what is missing of the trainings on one data set; say in ``absent`` what cannot be."""
    missing = [cell for cell in cells.values() if not trained_in(cell, setting.runs)]
    if not missing and not any(_unmeasured(table, setting, cells)):
        return
    if setting.scale == "smoke":
        write_images(setting.images(source), source)
    try:
        data = load(next(iter(cells.values())).recipe)
    except (ValueError, RuntimeError, OSError) as error:
        absent.update({training: f"no data: {error}" for training, _ in cells})
        return
    console = Console(stderr=True)
    if missing:
        with shown(console, len(missing)) as (running, finished):
            run_grid(missing, setting.runs, data=data, jobs=jobs, ray=ray, running=running, finished=finished)
    todo = list(_unmeasured(table, setting, cells))
    with counted(console, len(todo), f"{table.name}: measuring") as tell:
        there = [(run, part) for run, part in todo if _has_its_images(part, setting, data, absent)]
        if there and ray is not None:
            works = {run / part.name: partial(_load_and_measure, run, part, setting) for run, part in there}
            run_on_ray(
                works,
                address=ray,
                cpus=1,
                running=lambda *_: None,
                finished=lambda folder, _: tell(f"{folder.name} of {folder.parent.name}"),
                how_to_go_on=f"give the same command again to go on ({setting.out})",
            )
            return
        for run, part in there:
            tell(f"{part.name} of {run.name}")
            measure_part(run, part, data, setting)


def _load_and_measure(run: Path, part: Part, setting: Setting, progress: Callback) -> None:
    """Measure on a machine of the cluster."""
    measure_part(run, part, load(Recipe.from_yaml(run / "recipe.yaml")), setting)


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


def _has_its_images(part: Part, setting: Setting, data: ImageData, absent: Absent) -> bool:
    if part not in absent:
        try:
            part.check(setting, data)
        except (ValueError, RuntimeError, OSError) as error:
            absent[part] = f"no data: {error}"
    return part not in absent
