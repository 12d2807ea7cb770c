"""What a table of the paper is: its cells, what each is measured by, and the published numbers.

The published numbers, in the paper or in the logs of its runs, are in ``targets.json`` and nowhere else.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

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

LAMBDA_NOTE = (
    "lambda of SD-Dropout is 1 alone and 0.1 with CS-KD, DDGSD, BYOT and DML, as run; with label smoothing it is 1, a "
    "guess: neither the paper nor the authors' logs say. lambda of the other methods is 1 (CS-KD, DDGSD, DML) and 0.1 "
    "(BYOT)."
)


class RunEvaluation(Protocol):
    """An evaluation of a finished run beyond what its training measures; its result is cached in the run's folder."""

    @property
    def name(self) -> str:
        """Name of the cache file, without its suffix."""

    def cache_key(self, config: PaperConfig) -> dict[str, Any]:
        """What determines the numbers, ready for JSON; a cached result with another key is not used."""

    def skip_reason(self, config: PaperConfig) -> str | None:
        """Why this evaluation is not part of a scale; None if it is."""

    def check_data(self, config: PaperConfig, data: ImageData) -> None:
        """Raise a ValueError, a RuntimeError or an OSError if images that it needs are missing."""

    def evaluate(self, run: Path, data: ImageData, config: PaperConfig, progress: OnProgress) -> dict[str, Any]:
        """Evaluate the network of a run, report the progress, and return the numbers."""


class Check(Protocol):
    """A computation that needs no network."""

    def run(self, config: PaperConfig) -> dict[str, Any]:
        """Return the numbers."""


@dataclass(frozen=True)
class CellMetric:
    """Where the number of a cell stands in an evaluation.

    Attributes:
        path: keys and positions; a list there counts as its mean, if no value in it is missing.
        evaluation: what measures it; None: the training, in whose evaluation "log" holds the columns of the log.
        unit: "%" for a fraction, or nothing.
        digits: decimal places.
        n_path: where the number of test images stands; empty: the number is not measured on test images.
        factor: multiplies the number, on top of its unit.
        missing_reason: why an evaluated run may have no such number.
    """

    path: tuple[str | int, ...]
    evaluation: RunEvaluation | None = None
    unit: Literal["%", ""] = "%"
    digits: int = 2
    n_path: tuple[str | int, ...] = ("n",)
    factor: float = 1.0
    missing_reason: str = ""

    def value(self, numbers: Mapping[str, Any]) -> float | None:
        """Return the number in its unit; None if it was not measured.

        Example:
            >>> CellMetric(("shift", "accuracy", "fog")).value({"shift": {"accuracy": {"fog": [0.75, 0.25]}}})
            50.0
        """
        found = _dig(numbers, self.path)
        if isinstance(found, list):
            found = None if None in found else statistics.fmean(found)
        return None if found is None else float(found) * self.factor * (100 if self.unit == "%" else 1)

    def n_images(self, numbers: Mapping[str, Any]) -> int | None:
        """Return how many test images the number was measured on."""
        found = _dig(numbers, self.n_path) if self.n_path else None
        return None if found is None else int(found)


def _dig(values: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        if values is None:
            return None
        values = values[key]
    return values


@dataclass(frozen=True)
class CellSpec:
    """What one cell of a table shows.

    Attributes:
        row: heading of the row.
        column: heading of the column.
        training: whose runs are measured; None: no network is needed.
        metrics: the number; the mean of several.
        target: path of the printed number in ``targets.json``; None: the paper prints none.
        check: computes the number if no network is needed.
        log_target: the number in the logs of the published runs, which is in no table of the paper.
    """

    row: str
    column: str
    training: Training | None
    metrics: tuple[CellMetric, ...]
    target: str | None = None
    check: Check | None = None
    log_target: LogTarget | None = None


RunKey = tuple[Training, int]
"""A training and its seed."""


@dataclass(frozen=True)
class PaperTable:
    """A table or a figure of the paper.

    Attributes:
        name: on the command line.
        title: what it shows.
        cells: its cells; none if nothing is measured.
        protocol: how its numbers are made, one or two sentences each.
        full_scale_protocol: more of that, true only at the scale "full".
        figure: how it is drawn, if it is.
        one_seed: whether the seed 41 alone is run.
    """

    name: str
    title: str
    cells: tuple[CellSpec, ...]
    protocol: tuple[str, ...]
    full_scale_protocol: tuple[str, ...] = ()
    figure: Literal["", "diagrams", "reliability", "heat", "bars", "curves"] = ""
    one_seed: bool = False

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Each training once, in the order of the cells."""
        return tuple(dict.fromkeys(cell.training for cell in self.cells if cell.training is not None))

    def evaluations_of(self, training: Training) -> tuple[RunEvaluation, ...]:
        """Return the evaluations of a training's runs, each once."""
        metrics = (metric for cell in self.cells if cell.training == training for metric in cell.metrics)
        return tuple(dict.fromkeys(metric.evaluation for metric in metrics if metric.evaluation is not None))

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
        if self.kind == "one":
            return (printed_number(self.target),)
        return printed_number(f"{self.target}/0"), printed_number(f"{self.target}/1")

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


def printed_number(path: str) -> float:
    """Return a published number.

    Args:
        path: keys and positions in ``targets.json``, such as ``"table9_directions/cifar100/3"``.

    Raises:
        KeyError: there is no such number.

    Example:
        >>> printed_number("table1_accuracy/rows/cross_entropy/cifar100/base")
        74.8
    """
    return published_numbers()[path]


@cache
def published_numbers() -> dict[str, float]:
    """Return every number of ``targets.json`` by its path; texts are left out."""
    text = files(__package__).joinpath("targets.json").read_text(encoding="utf-8")
    return dict(_numbers_below("", json.loads(text)))


def _numbers_below(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers_below(f"{path}/{key}" if path else str(key), inner)
    elif isinstance(value, int | float):
        yield path, float(value)
