"""The cells of a table from what was measured of its runs; nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfdistill.paper.kept import kept
from selfdistill.paper.line import Absent, Place, line_of
from selfdistill.paper.regime import regimes_of
from selfdistill.paper.results import Result
from selfdistill.paper.scales import Setting
from selfdistill.paper.tables import PaperTable, Part, Training
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.runs.grid import PlannedRun, is_trained

Key = tuple[Training, int]


def gather(table: PaperTable, setting: Setting, absent: Absent | None = None) -> Result:
    """Return a table's cells as far as they are there; nothing is run.

    Args:
        table: which.
        setting: where, and at what scale.
        absent: why runs or measures may be missing, besides what the scale leaves out.

    Raises:
        ValueError: a record is damaged.
    """
    cells = cells_of(table, setting)
    why = {} if absent is None else dict(absent)
    for training in table.trainings:
        refusals: dict[Training | Part, str | None] = {training: setting.refusal(training)}
        refusals |= {part: part.refusal(setting) for part in parts_of(table, training)}
        why |= {one: refusal for one, refusal in refusals.items() if refusal is not None}
    records = {key: RunRecord.load(run_of(setting, cell) / "result.json") for key, cell in trained(setting, cells)}
    measured = _measured(table, setting, cells, records)
    found: dict[Place, Mapping[str, Any]] = {
        (one, None, seed): run.evaluation | {"log": _columns(run)} for (one, seed), run in records.items()
    }
    found |= {place: record.evaluation for place, record in measured.items()}
    seeds = setting.seeds_of(table)
    return Result(
        table=table.name,
        title=table.title,
        scale=setting.scale,
        said=setting.said,
        protocol=table.protocol + (table.at_full if setting.scale == "full" else ()),
        figure=table.figure,
        lines=tuple(line_of(entry, setting, seeds, found, why) for entry in table.entries),
        runs=tuple(_told_of(key, record, measured) for key, record in records.items()),
        reliability=_reliability(table, records) if table.figure == "reliability" else {},
        regimes=regimes_of(table, setting),
    )


def cells_of(table: PaperTable, setting: Setting) -> dict[Key, PlannedRun]:
    """Return the runs of a table, seed by seed, also those that this scale has not."""
    return {(one, seed): setting.cell(one, seed) for seed in setting.seeds_of(table) for one in table.trainings}


def parts_of(table: PaperTable, training: Training) -> tuple[Part, ...]:
    """Return what a table measures of a training's networks, each part once."""
    measures = (measure for entry in table.entries if entry.training == training for measure in entry.measures)
    return tuple(dict.fromkeys(measure.part for measure in measures if measure.part is not None))


def trained(setting: Setting, cells: Mapping[Key, PlannedRun]) -> list[tuple[Key, PlannedRun]]:
    """Return the runs that are finished."""
    return [(key, cell) for key, cell in cells.items() if is_trained(cell, setting.runs)]


def run_of(setting: Setting, cell: PlannedRun) -> Path:
    """The folder of a run."""
    return setting.runs / cell.name


def _measured(
    table: PaperTable, setting: Setting, cells: Mapping[Key, PlannedRun], records: Mapping[Key, RunRecord]
) -> dict[Place, EvaluationRecord]:
    """Return what was measured of each run beyond its training, each file read once."""
    found = {
        (training, part, seed): kept(run_of(setting, cells[training, seed]), part, setting)
        for training, seed in records
        for part in parts_of(table, training)
    }
    return {place: record for place, record in found.items() if record is not None}


def _columns(record: RunRecord) -> dict[str, list[Any]]:
    """Return the columns of a run's log, each with a value for each epoch."""
    return {
        name: [row.get(name) for row in record.log] for name in dict.fromkeys(key for row in record.log for key in row)
    }


def _told_of(key: Key, record: RunRecord, measured: Mapping[Place, EvaluationRecord]) -> dict[str, Any]:
    names = ("name", "method", "seed", "recipe_hash", "epochs", "date", "commit", "device", "seconds")
    of_run = [one.commit for (training, _, seed), one in measured.items() if (training, seed) == key]
    return {name: getattr(record, name) for name in names} | {"measured_with": list(dict.fromkeys(of_run))}


def _reliability(table: PaperTable, records: Mapping[Key, RunRecord]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    return {
        f"{entry.row}, {entry.column}": of_seeds
        for entry in table.entries
        if (of_seeds := tuple(record.evaluation for (one, _), record in records.items() if one == entry.training))
    }
