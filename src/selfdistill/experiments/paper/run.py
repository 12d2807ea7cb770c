"""Reproduce a table: run what is missing, measure what is missing, and gather the cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.experiments.grid import Cell, run_grid, trained_in
from selfdistill.experiments.paper.entry import PaperTable, Part, Training
from selfdistill.experiments.paper.kept import kept, measure_part
from selfdistill.experiments.paper.line import Absent, Place, line_of
from selfdistill.experiments.paper.result import Result
from selfdistill.experiments.paper.setting import IN_WORDS, Setting, check_recipe
from selfdistill.experiments.paper.synthetic import write_images
from selfdistill.experiments.show import counted, shown
from selfdistill.records import RunRecord
from selfdistill.train.run import load

Key = tuple[Training, int]


def reproduce(table: PaperTable, setting: Setting, *, jobs: int = 1) -> Result:
    """Return a table's cells; a finished run is not run again, nor what was measured of it measured.

    Args:
        table: which.
        setting: where, and at what scale.
        jobs: trainings at a time.

    Raises:
        ValueError: ``jobs`` below 1, a run's folder of another recipe, or what a training raises.
        RuntimeError: with several jobs, that a run failed.
        Interrupted: SIGINT or SIGTERM came, and the runs at hand are saved.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    seeds = setting.seeds_of(table)
    absent: Absent = {}
    for training in table.trainings:
        if (why := setting.refusal(training)) is not None:
            absent[training] = why
    cells = cells_of(table, setting)
    for cell in cells.values():
        check_recipe(cell, setting.runs / cell.name)
    for source in dict.fromkeys(training.data for training in table.trainings):
        chosen = {key: cell for key, cell in cells.items() if key[0].data == source and key[0] not in absent}
        _complete(table, setting, chosen, source, absent, jobs)
    records = {key: RunRecord.load(_run(setting, cell) / "result.json") for key, cell in _trained(setting, cells)}
    found = _found(table, setting, cells, records)
    lines = tuple(line_of(entry, setting, seeds, found, absent) for entry in table.entries)
    return Result(
        table=table.name,
        title=table.title,
        scale=setting.scale,
        said=IN_WORDS[setting.scale],
        protocol=table.protocol,
        figure=table.figure,
        lines=lines,
        runs=tuple(_told_of(record) for record in records.values()),
        reliability=_reliability(table, records) if table.figure == "reliability" else {},
    )


def cells_of(table: PaperTable, setting: Setting) -> dict[Key, Cell]:
    """Return the runs of a table, seed by seed, also those that this scale has not."""
    return {(one, seed): setting.cell(one, seed) for seed in setting.seeds_of(table) for one in table.trainings}


def parts_of(table: PaperTable, training: Training) -> tuple[Part, ...]:
    """Return what a table measures of a training's networks, each part once."""
    measures = (measure for entry in table.entries if entry.training == training for measure in entry.measures)
    return tuple(dict.fromkeys(measure.part for measure in measures if measure.part is not None))


def _complete(
    table: PaperTable,
    setting: Setting,
    cells: Mapping[Key, Cell],
    source: str,
    absent: Absent,
    jobs: int,
) -> None:
    """Run and measure what is missing of the trainings on one data set; say in ``absent`` what cannot be."""
    missing = [cell for cell in cells.values() if not trained_in(cell, setting.runs)]
    if not missing and not any(_unmeasured(table, setting, cells, absent)):
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
            run_grid(missing, setting.runs, data=data, jobs=jobs, running=running, finished=finished)
    todo = list(_unmeasured(table, setting, cells, absent))
    with counted(console, len(todo), f"{table.name}: measuring") as tell:
        for run, part in todo:
            tell(f"{part.name} of {run.name}")
            if _has_its_images(part, setting, data, absent):
                measure_part(run, part, data, setting)


def _unmeasured(
    table: PaperTable, setting: Setting, cells: Mapping[Key, Cell], absent: Absent
) -> Iterable[tuple[Path, Part]]:
    """Yield the finished runs and the parts that are not measured of them; part by part, as some load images."""
    parts = dict.fromkeys(part for training, _ in cells for part in parts_of(table, training))
    for part in parts:
        if (why := part.refusal(setting)) is not None:
            absent[part] = why
            continue
        for (training, _), cell in _trained(setting, cells):
            run = _run(setting, cell)
            if part in parts_of(table, training) and kept(run, part, setting) is None:
                yield run, part


def _has_its_images(part: Part, setting: Setting, data: ImageData, absent: Absent) -> bool:
    if part not in absent:
        try:
            part.check(setting, data)
        except (ValueError, RuntimeError, OSError) as error:
            absent[part] = f"no data: {error}"
    return part not in absent


def _trained(setting: Setting, cells: Mapping[Key, Cell]) -> list[tuple[Key, Cell]]:
    return [(key, cell) for key, cell in cells.items() if trained_in(cell, setting.runs)]


def _run(setting: Setting, cell: Cell) -> Path:
    return setting.runs / cell.name


def _found(
    table: PaperTable, setting: Setting, cells: Mapping[Key, Cell], records: Mapping[Key, RunRecord]
) -> dict[Place, Mapping[str, Any]]:
    """Return every evaluation that there is, each file read once."""
    found: dict[Place, Mapping[str, Any]] = {}
    for (training, seed), record in records.items():
        found[training, None, seed] = record.evaluation
        for part in parts_of(table, training):
            if (values := kept(_run(setting, cells[training, seed]), part, setting)) is not None:
                found[training, part, seed] = values
    return found


def _told_of(record: RunRecord) -> dict[str, Any]:
    kept_names = ("name", "method", "seed", "recipe_hash", "epochs", "date", "commit", "device", "seconds")
    return {name: getattr(record, name) for name in kept_names}


def _reliability(table: PaperTable, records: Mapping[Key, RunRecord]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    return {
        f"{entry.row}, {entry.column}": of_seeds
        for entry in table.entries
        if (of_seeds := tuple(record.evaluation for (one, _), record in records.items() if one == entry.training))
    }
