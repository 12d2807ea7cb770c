"""What a table came to: its cells, collected from the records and the cached evaluations of its runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from selfdistill.files import refuse_link
from selfdistill.paper.regime import Regime, table_regimes
from selfdistill.paper.scales import PaperConfig, Training
from selfdistill.paper.tables import CellSpec, LogTarget, PaperTable, RunEvaluation, RunKey, printed_number
from selfdistill.records import EvaluationRecord, RunRecord, Statistic, statistic_of

EvaluationKey = tuple[Training, RunEvaluation | None, int]
"""A training, what measured its run (None: the training itself), and the seed."""

MissingReasons = dict[Training | RunEvaluation, str]
"""Why trainings are not made, or evaluations not run."""


@dataclass(frozen=True)
class TableCell:
    """One cell of a reproduced table.

    Attributes:
        row: heading of the row.
        column: heading of the column.
        unit: of the numbers.
        digits: decimal places.
        values: our numbers by seed; under the seed 0 if no network was needed.
        expected_n: how many seeds there should be.
        epochs: of the trainings; None without a network.
        images: how many test images the number was measured on; None without a number, or if it is of no test images.
        target: path of the printed number in ``targets.json``.
        printed: the printed number.
        missing_reason: why seeds are missing; empty if none is.
        log_target: the number in the logs of the published runs.
    """

    row: str
    column: str
    unit: str
    digits: int
    values: Mapping[int, float]
    expected_n: int
    epochs: int | None
    images: int | None
    target: str | None
    printed: float | None
    missing_reason: str
    log_target: LogTarget | None = None

    @property
    def statistic(self) -> Statistic | None:
        """Mean, sd and n over seeds; None without a number."""
        return statistic_of(self.values.values())

    @property
    def difference(self) -> float | None:
        """Our mean minus the printed number; None if either is missing."""
        found = self.statistic
        return None if found is None or self.printed is None else found.mean - self.printed

    @property
    def band(self) -> tuple[float, float] | None:
        """Between which numbers our mean agrees with the published logs; None without such."""
        found = self.statistic
        return None if self.log_target is None else self.log_target.band(found.sd if found else None)

    @property
    def side(self) -> Literal["below", "inside", "above"] | None:
        """Where our mean is relative to the band; None if either is missing."""
        found, band = self.statistic, self.band
        if found is None or band is None:
            return None
        return "below" if found.mean < band[0] else "above" if found.mean > band[1] else "inside"


@dataclass(frozen=True)
class TableResult:
    """A reproduced table.

    Attributes:
        table: its name.
        title: what it shows.
        scale: "smoke", "small", "medium" or "full".
        description: the scale in words.
        protocol: how its numbers are made.
        figure: how it is drawn, if it is.
        cells: its cells.
        runs: provenance of each run: name, recipe hash, date, commit, device, and the commits of its evaluations.
        reliability: for Fig. 2, by row and column, each seed's diagram as a dict.
        regimes: how the networks fit their training images, as far as that is known.
    """

    table: str
    title: str
    scale: str
    description: str
    protocol: tuple[str, ...]
    figure: str
    cells: tuple[TableCell, ...]
    runs: tuple[Mapping[str, Any], ...]
    reliability: Mapping[str, tuple[Mapping[str, Any], ...]]
    regimes: tuple[Regime, ...] = ()

    @property
    def has_numbers(self) -> bool:
        """Whether any cell has a number."""
        return any(cell.values for cell in self.cells)

    @property
    def in_papers_regime(self) -> bool:
        """Whether all its networks are in the paper's regime, so that its numbers can test the paper's findings."""
        return bool(self.regimes) and all(regime.is_papers for regime in self.regimes)

    @property
    def is_full_scale(self) -> bool:
        """Whether a difference from the published number means something."""
        return self.scale == "full"

    @property
    def has_log_targets(self) -> bool:
        """Whether its numbers are compared with the logs of the published runs."""
        return any(cell.log_target is not None for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, texts and lists, ready for JSON."""
        plain = asdict(self)
        for cell, values in zip(self.cells, plain["cells"], strict=True):
            found = cell.statistic
            values["mean"], values["sd"], values["n"] = (found.mean, found.sd, found.n) if found else (None, None, 0)
            values["difference"] = cell.difference if self.is_full_scale else None
            if cell.log_target is not None:
                values["band"], values["side"] = (cell.band, cell.side) if self.is_full_scale else (None, None)
            values["values"] = {str(seed): value for seed, value in cell.values.items()}
        return plain


def collect_result(table: PaperTable, config: PaperConfig, missing: MissingReasons | None = None) -> TableResult:
    """Return the cells of a table as far as they were measured; nothing is run.

    Args:
        table: which.
        config: where, and at what scale.
        missing: why trainings or evaluations may be missing, besides what the scale skips.

    Raises:
        ValueError: a record is damaged.
    """
    files = {key: config.runs / run.name / "result.json" for key, run in table.planned_runs(config).items()}
    records = {key: RunRecord.load(file) for key, file in files.items() if file.is_file()}
    cached = {
        (training, evaluation, seed): record
        for training, seed in records
        for evaluation in table.evaluations_of(training)
        if (record := load_cached_evaluation(files[training, seed].parent, evaluation, config)) is not None
    }
    numbers: dict[EvaluationKey, Mapping[str, Any]] = {
        (training, None, seed): record.evaluation | {"log": _log_columns(record)}
        for (training, seed), record in records.items()
    }
    numbers |= {key: record.evaluation for key, record in cached.items()}
    reasons = (missing or {}) | _skip_reasons(table, config)
    return TableResult(
        table=table.name,
        title=table.title,
        scale=config.scale,
        description=config.description,
        protocol=table.protocol + (table.full_scale_protocol if config.scale == "full" else ()),
        figure=table.figure,
        cells=tuple(_make_cell(spec, config, table.seeds(config), numbers, reasons) for spec in table.cells),
        runs=tuple(_run_provenance(key, record, cached) for key, record in records.items()),
        reliability=_reliability(table, records) if table.figure == "reliability" else {},
        regimes=table_regimes(table, config),
    )


def load_cached_evaluation(run: Path, evaluation: RunEvaluation, config: PaperConfig) -> EvaluationRecord | None:
    """Return what an evaluation measured of a finished run; None if it was not run, on another run, or differently."""
    file = evaluation_file(run, evaluation)
    if not file.is_file():
        return None
    record = EvaluationRecord.load(file)
    is_same = record.belongs_to(RunRecord.load(run / "result.json")) and record.config == evaluation.cache_key(config)
    return record if is_same else None


def evaluation_file(run: Path, evaluation: RunEvaluation) -> Path:
    """Return the file in a run's folder that caches an evaluation."""
    return refuse_link(run / "measured") / f"{evaluation.name}.json"


def _skip_reasons(table: PaperTable, config: PaperConfig) -> MissingReasons:
    reasons: dict[Training | RunEvaluation, str | None] = {}
    for training in table.trainings:
        reasons[training] = config.skip_reason(training)
        reasons |= {evaluation: evaluation.skip_reason(config) for evaluation in table.evaluations_of(training)}
    return {one: reason for one, reason in reasons.items() if reason is not None}


def _make_cell(
    spec: CellSpec,
    config: PaperConfig,
    seeds: Sequence[int],
    numbers: Mapping[EvaluationKey, Mapping[str, Any]],
    reasons: MissingReasons,
) -> TableCell:
    """Return a cell; a seed counts if everything that its number is made of was measured."""
    by_seed = _numbers_by_seed(spec, config, seeds, numbers)
    first, images = spec.metrics[0], None
    values: dict[int, float] = {}
    for seed, found in by_seed.items():
        parts = [metric.value(one) for metric, one in zip(spec.metrics, found, strict=False)]
        there = [part for part in parts if part is not None]
        if len(there) == len(spec.metrics):
            values[seed] = statistics.fmean(there)
            images = None if spec.training is None else first.n_images(found[0])
    return TableCell(
        row=spec.row,
        column=spec.column,
        unit=first.unit,
        digits=first.digits,
        values=values,
        expected_n=len(by_seed),
        epochs=None if spec.training is None else config.plan_run(spec.training, seeds[0]).recipe.epochs,
        images=images,
        target=spec.target,
        printed=None if spec.target is None else printed_number(spec.target),
        missing_reason=_missing_reason(spec, reasons, {s: found for s, found in by_seed.items() if s not in values}),
        log_target=spec.log_target,
    )


def _numbers_by_seed(
    spec: CellSpec,
    config: PaperConfig,
    seeds: Sequence[int],
    numbers: Mapping[EvaluationKey, Mapping[str, Any]],
) -> dict[int, list[Mapping[str, Any]]]:
    """Return what was measured for each metric of a cell; a number that needs no run stands under the seed 0."""
    if spec.training is None:
        assert spec.check is not None
        return {0: [spec.check.run(config)]}
    keys = {seed: [(spec.training, metric.evaluation, seed) for metric in spec.metrics] for seed in seeds}
    return {seed: [numbers[key] for key in of_seed if key in numbers] for seed, of_seed in keys.items()}


def _missing_reason(spec: CellSpec, reasons: MissingReasons, missing: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    """Return why seeds have no number, given what was measured of them; empty if none is missing."""
    if not missing:
        return ""
    seeds = f"seed{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    known = spec.metrics[0].missing_reason
    if known and all(missing.values()):
        return f"{known}: {seeds}"
    candidates = [spec.training, *(metric.evaluation for metric in spec.metrics)]
    return next((reasons[one] for one in candidates if one is not None and one in reasons), f"{seeds} not measured yet")


def _log_columns(record: RunRecord) -> dict[str, list[Any]]:
    """Return the columns of a run's log, each with one value per epoch."""
    names = dict.fromkeys(name for row in record.log for name in row)
    return {name: [row.get(name) for row in record.log] for name in names}


def _run_provenance(
    key: RunKey, record: RunRecord, cached: Mapping[tuple[Training, RunEvaluation, int], EvaluationRecord]
) -> dict[str, Any]:
    names = ("name", "method", "seed", "recipe_hash", "epochs", "date", "commit", "device", "seconds")
    commits = [one.commit for (training, _, seed), one in cached.items() if (training, seed) == key]
    return {name: getattr(record, name) for name in names} | {"measured_with": list(dict.fromkeys(commits))}


def _reliability(table: PaperTable, records: Mapping[RunKey, RunRecord]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    return {
        f"{cell.row}, {cell.column}": of_seeds
        for cell in table.cells
        if (of_seeds := tuple(record.evaluation for (one, _), record in records.items() if one == cell.training))
    }
