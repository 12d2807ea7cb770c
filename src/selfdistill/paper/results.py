"""What a table came to: its cells, collected from the records and the cached evaluations of its runs.

And whether its networks are in the paper's regime: they fit their training images, and cross-entropy is over-confident.
Outside it every regulariser loses, and the numbers say nothing about the paper.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from selfdistill.files import refuse_link
from selfdistill.paper.scales import DATASETS, NETWORKS, PaperConfig, Training
from selfdistill.paper.tables import (
    SD_DROPOUT,
    CellSpec,
    LogTarget,
    PaperTable,
    RunEvaluation,
    RunKey,
    published_numbers,
)
from selfdistill.records import Evaluation, EvaluationRecord, RunRecord, Statistic, statistic_of
from selfdistill.records.record import to_struct
from selfdistill.training.record import optimiser_steps

MissingReasons = dict[Training | RunEvaluation, str]
"""Why trainings are not made, or evaluations not run."""

MIN_TRAIN_TOP1, MIN_GAP, MAX_TRAIN_CE = 0.99, 0.1, 0.5
"""The first two bound cross-entropy's networks, the last SD-Dropout's; the paper's have 1, 0.12 and 0.126."""


@dataclass(frozen=True)
class TableCell:
    """One cell of a reproduced table.

    Attributes:
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
    def name(self) -> str:
        """Row and column."""
        return f"{self.row}: {self.column}"

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


class Fit(NamedTuple):
    """How the networks of one method fit their training images, means over seeds.

    Attributes:
        train_top1: accuracy on the training images after the last epoch, in evaluation mode.
        train_ce: the cross-entropy of the clean logits over the steps of the last epoch, in training mode.
        gap: mean confidence minus accuracy on the test images.
    """

    train_top1: float
    train_ce: float
    gap: float


@dataclass(frozen=True)
class Regime:
    """How two methods fit one dataset with one network.

    Attributes:
        networks: dataset and network, such as "CIFAR-100, ResNet-18".
        steps: optimiser steps per run.
    """

    networks: str
    steps: int
    cross_entropy: Fit
    sd_dropout: Fit

    @property
    def is_papers(self) -> bool:
        """Whether the networks are in the paper's regime."""
        return (
            self.cross_entropy.train_top1 > MIN_TRAIN_TOP1
            and self.cross_entropy.gap > MIN_GAP
            and self.sd_dropout.train_ce < MAX_TRAIN_CE
        )


@dataclass(frozen=True)
class RunProvenance:
    """How a run came about: of its record, and the commits of its cached evaluations."""

    name: str
    method: str
    seed: int
    recipe_hash: str
    epochs: int
    date: str
    commit: str | None
    device: str
    seconds: float
    measured_with: tuple[str | None, ...]


@dataclass(frozen=True)
class TableResult:
    """A reproduced table.

    Attributes:
        scale: "smoke", "small", "medium" or "full".
        description: the scale in words.
        protocol: how its numbers are made.
        figure: how it is drawn, if it is.
        reliability: for Fig. 2, by row and column, the evaluation of each seed.
        regimes: how the networks fit their training images, as far as that is known.
    """

    table: str
    title: str
    scale: str
    description: str
    protocol: tuple[str, ...]
    figure: str
    cells: tuple[TableCell, ...]
    runs: tuple[RunProvenance, ...]
    reliability: Mapping[str, tuple[Evaluation, ...]]
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


class TrainedRun(NamedTuple):
    """What a training measured: at its end, and the columns of its log, each with one value per epoch."""

    evaluation: Evaluation
    log: Mapping[str, list[Any]]


class CachedEvaluation(NamedTuple):
    """The result of an evaluation of a finished run, and the commit that it was made with."""

    result: Any
    commit: str | None


ResultKey = tuple[Training, RunEvaluation | None, int]
"""A training, what measured its run (None: the training itself), and the seed."""


def collect_result(table: PaperTable, config: PaperConfig, missing: MissingReasons | None = None) -> TableResult:
    """Return the cells of a table as far as they were measured; nothing is run.

    Args:
        missing: why trainings or evaluations may be missing, besides what the scale skips.
    """
    files = {key: config.runs / run.name / "result.json" for key, run in table.planned_runs(config).items()}
    records = {key: RunRecord.load(file) for key, file in files.items() if file.is_file()}
    cached: dict[ResultKey, CachedEvaluation] = {
        (training, evaluation, seed): found
        for training, seed in records
        for evaluation in table.evaluations_of(training)
        if (found := load_cached_evaluation(files[training, seed].parent, evaluation, config)) is not None
    }
    results: dict[ResultKey, object] = {
        **{(training, None, seed): _read_training(record) for (training, seed), record in records.items()},
        **{key: found.result for key, found in cached.items()},
    }
    reasons = (missing or {}) | _skip_reasons(table, config)
    trainings = dict.fromkeys(replace(training, method=SD_DROPOUT) for training in table.trainings)
    by_training: dict[Training, tuple[Evaluation, ...]] = {}
    for (training, _), record in records.items():
        by_training[training] = (*by_training.get(training, ()), record.evaluation)
    regimes = (_regime(training, config, table.seeds(config)) for training in trainings)
    return TableResult(
        table=table.name,
        title=table.title,
        scale=config.scale,
        description=config.description,
        protocol=table.protocol(config.scale),
        figure=table.figure,
        cells=tuple(_make_cell(spec, config, table.seeds(config), results, reasons) for spec in table.cells),
        runs=tuple(_provenance(key, record, cached) for key, record in records.items()),
        reliability={
            f"{cell.row}, {cell.column}": by_training[cell.training]
            for cell in table.cells
            if table.figure == "reliability" and cell.training in by_training
        },
        regimes=tuple(regime for regime in regimes if regime is not None),
    )


def load_cached_evaluation(run: Path, evaluation: RunEvaluation, config: PaperConfig) -> CachedEvaluation | None:
    """Return what an evaluation measured of a finished run; None if it was not run, on another run, or differently."""
    file = evaluation_file(run, evaluation)
    if not file.is_file():
        return None
    record = EvaluationRecord.load(file)
    if not record.belongs_to(RunRecord.load(run / "result.json")) or record.config != evaluation.cache_key(config):
        return None
    problem = f"{file}: not the result of this evaluation"
    result = to_struct(record.evaluation, evaluation.result_type, problem, "delete it and evaluate the run again")
    return CachedEvaluation(result, record.commit)


def evaluation_file(run: Path, evaluation: RunEvaluation) -> Path:
    """Return the file in a run's folder that caches an evaluation."""
    return refuse_link(run / "measured") / f"{evaluation.name}.json"


def _read_training(record: RunRecord) -> TrainedRun:
    names = dict.fromkeys(name for row in record.rows for name in row)
    return TrainedRun(record.evaluation, {name: [row.get(name) for row in record.rows] for name in names})


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
    results: Mapping[ResultKey, object],
    reasons: MissingReasons,
) -> TableCell:
    """Return a cell; a seed counts if everything that its number is made of was measured."""
    if spec.training is None:
        assert spec.check is not None
        found: dict[int, list[object]] = {0: [spec.check(config)]}
    else:
        keys = {seed: [(spec.training, metric.evaluation, seed) for metric in spec.metrics] for seed in seeds}
        found = {seed: [results[key] for key in of_seed if key in results] for seed, of_seed in keys.items()}
    first, images = spec.metrics[0], None
    values: dict[int, float] = {}
    for seed, of_seed in found.items():
        parts = [metric.value(result) for metric, result in zip(spec.metrics, of_seed, strict=False)]
        there = [part for part in parts if part is not None]
        if len(there) == len(spec.metrics):
            values[seed] = statistics.fmean(there)
            images = None if spec.training is None else first.n_images(of_seed[0])
    return TableCell(
        row=spec.row,
        column=spec.column,
        unit=first.unit,
        digits=first.digits,
        values=values,
        expected_n=len(found),
        epochs=None if spec.training is None else config.plan_run(spec.training, seeds[0]).recipe.epochs,
        images=images,
        target=spec.target,
        printed=None if spec.target is None else published_numbers()[spec.target],
        missing_reason=_missing_reason(spec, reasons, {seed: of for seed, of in found.items() if seed not in values}),
        log_target=spec.log_target,
    )


def _missing_reason(spec: CellSpec, reasons: MissingReasons, missing: Mapping[int, Sequence[object]]) -> str:
    """Return why seeds have no number, given what was measured of them; empty if none is missing."""
    if not missing:
        return ""
    seeds = f"seed{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    known = spec.metrics[0].missing_reason
    if known and all(missing.values()):
        return f"{known}: {seeds}"
    candidates = [spec.training, *(metric.evaluation for metric in spec.metrics)]
    return next((reasons[one] for one in candidates if one is not None and one in reasons), f"{seeds} not measured yet")


def _provenance(key: RunKey, record: RunRecord, cached: Mapping[ResultKey, CachedEvaluation]) -> RunProvenance:
    commits = dict.fromkeys(found.commit for (training, _, seed), found in cached.items() if (training, seed) == key)
    names = [name for name in RunProvenance.__dataclass_fields__ if name != "measured_with"]
    return RunProvenance(**{name: getattr(record, name) for name in names}, measured_with=tuple(commits))


def _regime(training: Training, config: PaperConfig, seeds: Sequence[int]) -> Regime | None:
    """Return the regime of a dataset and a network; None unless both methods have a finished run."""
    plain = _load_records(replace(training, method="CrossEntropy()"), config, seeds)
    distilled = _load_records(training, config, seeds)
    if not plain or not distilled:
        return None
    layers = "" if training.head_layers == 1 else f" with {training.head_layers} fully connected layers"
    networks = f"{DATASETS[training.data]}, {NETWORKS[training.network]}{layers}"
    return Regime(networks, optimiser_steps(plain[0]), _fit(plain), _fit(distilled))


def _load_records(training: Training, config: PaperConfig, seeds: Sequence[int]) -> list[RunRecord]:
    files = (config.runs / config.plan_run(training, seed).name / "result.json" for seed in seeds)
    return [RunRecord.load(file) for file in files if file.is_file()]


def _fit(records: Sequence[RunRecord]) -> Fit:
    runs = [_read_training(record) for record in records]
    fits = [(run.evaluation.train_top1, run.log["ce"][-1], run.evaluation.gap) for run in runs]
    return Fit(*(statistics.fmean(column) for column in zip(*fits, strict=True)))
