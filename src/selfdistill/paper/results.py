"""What a table came to: its cells, collected from what was measured of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from selfdistill.paper.regime import Regime, regimes_of
from selfdistill.paper.scales import Setting, Training
from selfdistill.paper.tables import Entry, PaperTable, Part
from selfdistill.paper.targets import Logged, printed
from selfdistill.records import EvaluationRecord, RunRecord, Statistic, statistic_of
from selfdistill.runs.grid import PlannedRun, is_trained


@dataclass(frozen=True)
class Line:
    """One cell.

    Attributes:
        row: what stands on the left.
        column: what stands above.
        unit: of the numbers.
        digits: after the point.
        values: our numbers by seed; under the seed 0 where no network was needed.
        wanted: how many seeds there should be.
        epochs: that the networks were trained; None without one.
        images: that a number was measured on; None where there is no number, or it is of no test images.
        target: path of the printed number in ``targets.json``.
        printed: the number.
        absent: why seeds are missing; empty where none is.
        logged: the number of the published runs' logs.
    """

    row: str
    column: str
    unit: str
    digits: int
    values: Mapping[int, float]
    wanted: int
    epochs: int | None
    images: int | None
    target: str | None
    printed: float | None
    absent: str
    logged: Logged | None = None

    @property
    def statistic(self) -> Statistic | None:
        """Mean, sd and n over seeds; None without a number."""
        return statistic_of(self.values.values())

    @property
    def difference(self) -> float | None:
        """Our mean minus the printed number; None where either is missing."""
        found = self.statistic
        return None if found is None or self.printed is None else found.mean - self.printed

    @property
    def band(self) -> tuple[float, float] | None:
        """Between which numbers our mean agrees with the published logs; None without such."""
        found = self.statistic
        return None if self.logged is None else self.logged.band(found.sd if found else None)

    @property
    def side(self) -> Literal["below", "inside", "above"] | None:
        """Where our mean is beside the band; None where either is missing."""
        found, band = self.statistic, self.band
        if found is None or band is None:
            return None
        return "below" if found.mean < band[0] else "above" if found.mean > band[1] else "inside"


@dataclass(frozen=True)
class Result:
    """A table as it was reproduced.

    Attributes:
        table: its name.
        title: what it shows.
        scale: "smoke", "small", "medium" or "full".
        said: the scale in words.
        protocol: how its numbers are made.
        figure: how it is drawn besides.
        lines: its cells.
        runs: of each run that it was made of: name, recipe hash, date, commit, device, and the commits that it was
            measured with.
        reliability: for Fig. 2, by row and column, each seed's diagram as a dict.
        regimes: how the networks fit their training images, as far as that is known.
    """

    table: str
    title: str
    scale: str
    said: str
    protocol: tuple[str, ...]
    figure: str
    lines: tuple[Line, ...]
    runs: tuple[Mapping[str, Any], ...]
    reliability: Mapping[str, tuple[Mapping[str, Any], ...]]
    regimes: tuple[Regime, ...] = ()

    @property
    def in_papers_regime(self) -> bool:
        """Whether its numbers can be held against the paper's findings: all its networks are in the paper's regime."""
        return bool(self.regimes) and all(regime.is_papers for regime in self.regimes)

    @property
    def compared(self) -> bool:
        """Whether a difference to the printed number means something: at the full scale alone."""
        return self.scale == "full"

    @property
    def beside_logs(self) -> bool:
        """Whether its numbers stand beside those of the published runs' logs."""
        return any(line.logged is not None for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, ready for JSON."""
        plain = asdict(self)
        for line, values in zip(self.lines, plain["lines"], strict=True):
            found = line.statistic
            values["mean"], values["sd"], values["n"] = (found.mean, found.sd, found.n) if found else (None, None, 0)
            values["difference"] = line.difference if self.compared else None
            if line.logged is not None:
                values["band"], values["side"] = (line.band, line.side) if self.compared else (None, None)
            values["values"] = {str(seed): value for seed, value in line.values.items()}
        return plain


Place = tuple[Training, Part | None, int]
"""Of a training's run with a seed: what the training measured (None), or a part."""

Absent = dict[Training | Part, str]
"""Why runs are not made, or parts not measured."""


def line_of(
    entry: Entry,
    setting: Setting,
    seeds: Sequence[int],
    found: Mapping[Place, Mapping[str, Any]],
    absent: Absent,
) -> Line:
    """Return a cell; a seed counts where all that the number is made of was measured.

    Args:
        entry: which cell.
        setting: at what scale.
        seeds: of the runs; a number that needs no run stands under the seed 0.
        found: evaluations as dicts.
        absent: why there may be none.
    """
    first, images = entry.measures[0], None
    values: dict[int, float] = {}
    by_seed: dict[int, list[Mapping[str, Any]]]
    if entry.training is None:
        assert entry.check is not None
        by_seed = {0: [entry.check.found(setting)]}
    else:
        places = {seed: [(entry.training, measure.part, seed) for measure in entry.measures] for seed in seeds}
        by_seed = {seed: [found[one] for one in wanted if one in found] for seed, wanted in places.items()}
    for seed, evaluations in by_seed.items():
        numbers = [measure.of(one) for measure, one in zip(entry.measures, evaluations, strict=False)]
        there = [number for number in numbers if number is not None]
        if len(there) == len(entry.measures):
            values[seed] = statistics.fmean(there)
            images = None if entry.training is None else first.images(evaluations[0])
    return Line(
        row=entry.row,
        column=entry.column,
        unit=first.unit,
        digits=first.digits,
        values=values,
        wanted=len(by_seed),
        epochs=None if entry.training is None else setting.cell(entry.training, seeds[0]).recipe.epochs,
        images=images,
        target=entry.target,
        printed=None if entry.target is None else printed(entry.target),
        absent=_why(entry, absent, {seed: found for seed, found in by_seed.items() if seed not in values}),
        logged=entry.logged,
    )


def _why(entry: Entry, absent: Absent, missing: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    """Return why seeds have no number, of which all that was measured is given; empty where none is missing."""
    if not missing:
        return ""
    seeds = f"seed{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    wrong = entry.measures[0].missing
    if wrong and all(missing.values()):
        return f"{wrong}: {seeds}"
    reasons = [entry.training, *(measure.part for measure in entry.measures)]
    return next((absent[one] for one in reasons if one is not None and one in absent), f"{seeds} not measured yet")


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
    seeds = table.seeds(setting)
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
    return {(one, seed): setting.cell(one, seed) for seed in table.seeds(setting) for one in table.trainings}


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


def kept(run: Path, part: Part, setting: Setting) -> EvaluationRecord | None:
    """Return what a part measured of a finished run; None where it has not, or not of this run, or not like this."""
    file = evaluation_file(run, part)
    if not file.is_file():
        return None
    there = EvaluationRecord.load(file)
    same = there.belongs_to(RunRecord.load(run / "result.json")) and there.asked == part.asked(setting)
    return there if same else None


def evaluation_file(run: Path, part: Part) -> Path:
    """The file of what a part measured of a run."""
    return run / "measured" / f"{part.name}.json"
