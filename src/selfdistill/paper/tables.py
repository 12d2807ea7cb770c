"""What a table of the paper is: its cells, what each is measured by, and the published numbers.

The published numbers, in the paper or in the logs of its runs, are in ``targets.json`` and nowhere else; the words of
the pages are in ``tables.yaml``.
"""

from __future__ import annotations

import json
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfdistill.data import ImageData
from selfdistill.paper.scales import SEEDS, PaperConfig, Training
from selfdistill.progress import OnProgress
from selfdistill.runs.grid import PlannedRun

SD_DROPOUT = "SDDropout()"
"""lambda_SDD = 1 alone (Appendix A.1), and, a guess, with label smoothing."""

_IN_SUMS = "SDDropout(weight=0.1)"

METHODS = {
    "cross_entropy": ("Cross-entropy", "CrossEntropy()", SD_DROPOUT),
    "cs_kd": ("CS-KD", "CSKD()", f"CSKD() + {_IN_SUMS}"),
    "ddgsd": ("DDGSD", "DDGSD()", f"DDGSD() + {_IN_SUMS}"),
    "byot": ("BYOT", "BYOT()", f"BYOT() + {_IN_SUMS}"),
    "dml": ("DML", "DML()", f"DML() + {_IN_SUMS}"),
    "label_smoothing": ("Label smoothing", "LabelSmoothing()", f"LabelSmoothing() + {SD_DROPOUT}"),
}
"""By key of ``targets.json``: the printed name, the method alone, and the method with SD-Dropout."""

BASE, WITH_SD_DROPOUT = "Base", "+ SD-Dropout"
"""Headings of the two columns that most tables have."""


class RunEvaluation(ABC):
    """An evaluation of a finished run beyond what its training measures; its result is cached in the run's folder."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the cache file, without its suffix."""

    @property
    @abstractmethod
    def result_type(self) -> type[Any]:
        """What `evaluate` returns: a type that msgspec reads and writes."""

    @abstractmethod
    def cache_key(self, config: PaperConfig) -> dict[str, Any]:
        """Return what determines the numbers, ready for JSON; a cached result with another key is not used."""

    def skip_reason(self, config: PaperConfig) -> str | None:
        """Return why this evaluation is not part of a scale; None if it is."""
        return None

    def check_data(self, config: PaperConfig, data: ImageData) -> None:
        """Raise a ValueError, a RuntimeError or an OSError if images that it needs besides the run's are missing."""
        return

    @abstractmethod
    def evaluate(self, run: Path, data: ImageData, config: PaperConfig, progress: OnProgress) -> object:
        """Evaluate the network of a run, report the progress, and return the numbers."""


Keys = tuple[str | int, ...]
"""Attributes, keys and positions that lead to a number."""


@dataclass(frozen=True)
class CellMetric:
    """Where the number of a cell stands in the result of an evaluation.

    Attributes:
        path: of the number; several numbers there count as their mean, if none is missing.
        evaluation: what measures it; None: the training, see `selfdistill.paper.results.TrainedRun`.
        unit: "%" for a fraction, or nothing.
        digits: decimal places.
        n_path: of the number of test images; empty: the number is not measured on test images.
        factor: multiplies the number, on top of its unit.
        missing_reason: why an evaluated run may have no such number.
    """

    path: Keys
    evaluation: RunEvaluation | None = None
    unit: Literal["%", ""] = "%"
    digits: int = 2
    n_path: Keys = ("n",)
    factor: float = 1.0
    missing_reason: str = ""

    def value(self, result: object) -> float | None:
        """Return the number in its unit; None if it was not measured.

        Example:
            >>> CellMetric(("shift", "accuracy", "fog")).value({"shift": {"accuracy": {"fog": [0.75, 0.25]}}})
            50.0
        """
        found = _follow(result, self.path)
        if isinstance(found, list | tuple):
            found = None if None in found else statistics.fmean(found)
        return None if found is None else float(found) * self.factor * (100 if self.unit == "%" else 1)

    def n_images(self, result: object) -> int | None:
        """Return how many test images the number was measured on."""
        return _follow(result, self.n_path) if self.n_path else None


def _follow(result: Any, path: Keys) -> Any:
    for key in path:
        if result is None:
            return None
        result = result[key] if isinstance(key, int) or isinstance(result, Mapping) else getattr(result, key)
    return result


@dataclass(frozen=True)
class CellSpec:
    """What one cell of a table shows.

    Attributes:
        training: whose runs are measured; None: no network is needed.
        metrics: the number; the mean of several.
        target: path of the printed number in ``targets.json``; None: the paper prints none.
        check: returns the numbers if no network is needed.
        log_target: the number in the logs of the published runs, which is in no table of the paper.
    """

    row: str
    column: str
    training: Training | None
    metrics: tuple[CellMetric, ...]
    target: str | None = None
    check: Callable[[PaperConfig], object] | None = None
    log_target: LogTarget | None = None


def pair_cells(
    row: str,
    training: Training,
    with_sd_dropout: str,
    metric: CellMetric,
    target: str | None = None,
    *,
    keys: tuple[object, object] = ("base", "sd_dropout"),
) -> list[CellSpec]:
    """Return the cells of a row with the two columns that most tables have.

    Args:
        target: path of the printed numbers without its end; None: the paper prints none.
    """
    trainings = {BASE: training, WITH_SD_DROPOUT: replace(training, method=with_sd_dropout)}
    return [
        CellSpec(row, column, one, (metric,), None if target is None else f"{target}/{key}")
        for (column, one), key in zip(trainings.items(), keys, strict=True)
    ]


RunKey = tuple[Training, int]
"""A training and its seed."""


class TableTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of a table's page, in ``tables.yaml``.

    Attributes:
        title: what the table shows.
        protocol: how its numbers are made, one or two sentences each.
        full_scale: more of that, true only at the scale "full".
    """

    title: str
    protocol: tuple[str, ...]
    full_scale: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table or a figure of the paper.

    Attributes:
        name: on the command line, and in ``tables.yaml``.
        cells: its cells; none if nothing is measured.
        figure: how it is drawn, if it is.
        one_seed: whether the seed 41 alone is run.
    """

    name: str
    cells: tuple[CellSpec, ...] = ()
    figure: Literal["", "diagrams", "reliability", "heat", "bars", "curves"] = ""
    one_seed: bool = False

    @property
    def title(self) -> str:
        """What it shows."""
        return table_texts()[self.name].title

    def protocol(self, scale: str) -> tuple[str, ...]:
        """Return how its numbers are made at a scale, one or two sentences each."""
        texts = table_texts()[self.name]
        return texts.protocol + (texts.full_scale if scale == "full" else ())

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Each training once, in the order of the cells."""
        return tuple(dict.fromkeys(cell.training for cell in self.cells if cell.training is not None))

    def evaluations_of(self, training: Training) -> tuple[RunEvaluation, ...]:
        """Return the evaluations of a training's runs, each once."""
        metrics = (metric for cell in self.cells if cell.training == training for metric in cell.metrics)
        return tuple(dict.fromkeys(metric.evaluation for metric in metrics if metric.evaluation is not None))

    def planned_evaluations(self, training: Training, config: PaperConfig) -> tuple[RunEvaluation, ...]:
        """Return those evaluations that the scale does not skip."""
        return tuple(one for one in self.evaluations_of(training) if one.skip_reason(config) is None)

    def seeds(self, config: PaperConfig) -> tuple[int, ...]:
        """Return the seeds of its runs."""
        one = config.scale == "smoke" or self.one_seed
        return config.seeds or (SEEDS[:1] if one else SEEDS)

    def planned_runs(self, config: PaperConfig) -> dict[RunKey, PlannedRun]:
        """Return its runs, seed by seed, including those that the scale skips."""
        return {(one, seed): config.plan_run(one, seed) for seed in self.seeds(config) for one in self.trainings}


_SDS = 3
_SHARE = 0.15


@dataclass(frozen=True)
class LogTarget:
    """A number in the logs of the published runs, and the band in which ours is expected.

    Attributes:
        target: path of the number, or of the pair, in ``targets.json``.
        kind: "range", the smallest and the largest of several seeds; "sd", mean and sd over seeds; "one", one number.
    """

    target: str
    kind: Literal["range", "sd", "one"]

    @property
    def numbers(self) -> tuple[float, ...]:
        """The number, or the pair."""
        paths = (self.target,) if self.kind == "one" else (f"{self.target}/0", f"{self.target}/1")
        return tuple(published_numbers()[path] for path in paths)

    def band(self, sd: float | None) -> tuple[float, float]:
        """Return the smallest and the largest number that agree with the logs.

        - A range is widened by its own width on either side.
        - A mean has 3 sd on either side: theirs or ours, whichever is larger, as few runs may happen to be close.
        - A single number has 15 % on either side: a little more than the widest of the bands made from ranges.

        If only the seed differs and all numbers are normal, the mean of three of our runs is outside the band of five
        published runs in 0.3 % (sd) or 0.8 % (range) of the cases, and outside that of two in 3 % (sd); one run of ours
        is outside the band of five in 5 % (sd) and 3 % (range).

        Args:
            sd: of our runs over seeds; None for one run.

        Example:
            >>> byot = LogTarget("logged_accuracy_cifar100_resnet18/byot", "sd")
            >>> byot.numbers, byot.band(None), byot.band(0.5)
            ((77.2, 0.2), (76.6, 77.8), (75.7, 78.7))
        """
        first, *rest = self.numbers
        if self.kind == "one":
            low, high = first * (1 - _SHARE), first * (1 + _SHARE)
        elif self.kind == "range":
            width = rest[0] - first
            low, high = first - width, rest[0] + width
        else:
            margin = _SDS * max(rest[0], sd or 0.0)
            low, high = first - margin, first + margin
        return round(low, 6), round(high, 6)


@cache
def table_texts() -> dict[str, TableTexts]:
    """Return the words of each table's page by the table's name, in the paper's order."""
    return msgspec.yaml.decode(_read("tables.yaml"), type=dict[str, TableTexts])


@cache
def published_numbers() -> dict[str, float]:
    """Return every number of ``targets.json`` by its path, of keys and positions; texts are left out.

    Example:
        >>> published_numbers()["table1_accuracy/rows/cross_entropy/cifar100/base"]
        74.8
    """
    return dict(_numbers_below("", json.loads(_read("targets.json"))))


def _numbers_below(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers_below(f"{path}/{key}" if path else str(key), inner)
    elif isinstance(value, int | float):
        yield path, float(value)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
