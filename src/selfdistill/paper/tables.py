"""What a table of the paper is: its cells, what each is measured of, and the printed numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from selfdistill.data import ImageData
from selfdistill.paper.scales import SEEDS, Setting, Training
from selfdistill.paper.targets import Logged
from selfdistill.train.progress import Callback


class Part(Protocol):
    """Something that is measured of a finished run beyond what its training measures, and kept in the run's folder."""

    @property
    def name(self) -> str:
        """Of its file."""

    def asked(self, setting: Setting) -> dict[str, Any]:
        """What decides the numbers, ready for JSON."""

    def refusal(self, setting: Setting) -> str | None:
        """Why there is nothing to measure at this scale."""

    def check(self, setting: Setting, data: ImageData) -> None:
        """Raise a ValueError or a RuntimeError where the images that it needs are not there."""

    def measure(self, run: Path, data: ImageData, setting: Setting, progress: Callback) -> dict[str, Any]:
        """Measure a run's network, and tell how far it is where it takes long."""


class Check(Protocol):
    """Something that is found without a network."""

    def found(self, setting: Setting) -> dict[str, Any]:
        """Return what was found as a dict."""


@dataclass(frozen=True)
class Measure:
    """A number of an evaluation, or of what a part measured.

    Attributes:
        path: where it is; a list there counts as its mean, if nothing is missing in it.
        part: what measures it; None: the training, in whose evaluation "log" holds the columns of the log.
        unit: "%" of a fraction, or nothing.
        digits: after the point.
        counted: where the number of test images is; empty: it is of none.
        factor: that the number is multiplied by, besides its unit's.
        missing: what is wrong with a run that was measured and has no such number.
    """

    path: tuple[str | int, ...]
    part: Part | None = None
    unit: Literal["%", ""] = "%"
    digits: int = 2
    counted: tuple[str | int, ...] = ("n",)
    factor: float = 1.0
    missing: str = ""

    def of(self, values: Mapping[str, Any]) -> float | None:
        """Return the number in its unit; None where it was not measured.

        Example:
            >>> Measure(("shift", "accuracy", "fog")).of({"shift": {"accuracy": {"fog": [0.75, 0.25]}}})
            50.0
        """
        value = _dig(values, self.path)
        if isinstance(value, list):
            value = None if None in value else statistics.fmean(value)
        return None if value is None else float(value) * self.factor * (100 if self.unit == "%" else 1)

    def images(self, values: Mapping[str, Any]) -> int | None:
        """Return how many images it was measured on."""
        value = _dig(values, self.counted) if self.counted else None
        return None if value is None else int(value)

    def by(self, part: Part) -> Measure:
        """Return the same number as another part measures it."""
        return replace(self, part=part)


def _dig(values: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        if values is None:
            return None
        values = values[key]
    return values


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes:
        row: what stands on the left.
        column: what stands above.
        training: whose runs; None: no network is needed.
        measures: the number; of several, their mean.
        target: path of the printed number in ``targets.json``; None: the paper prints none for this.
        check: what finds the number, where no network is needed.
        logged: the number of the published runs' logs, in no table of the paper.
    """

    row: str
    column: str
    training: Training | None
    measures: tuple[Measure, ...]
    target: str | None = None
    check: Check | None = None
    logged: Logged | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table or a figure of the paper.

    Attributes:
        name: what it is called on the command line.
        title: what it shows.
        entries: its cells; none where nothing is measured.
        protocol: how its numbers are made, a sentence or two each.
        at_full: more of that, which holds at the scale "full" alone.
        figure: how it is drawn besides, if it is.
        one_seed: whether the seed 41 alone is run.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    protocol: tuple[str, ...]
    at_full: tuple[str, ...] = ()
    figure: Literal["", "diagrams", "reliability", "heat", "bars", "curves"] = ""
    one_seed: bool = False

    @property
    def trainings(self) -> tuple[Training, ...]:
        """Each training once, in the order of the cells."""
        return tuple(dict.fromkeys(entry.training for entry in self.entries if entry.training is not None))

    def seeds(self, setting: Setting) -> tuple[int, ...]:
        """Return the seeds of its runs: those that are asked for, or 41, 42 and 43, or 41 alone."""
        one = setting.scale == "smoke" or self.one_seed
        return setting.seeds or (SEEDS[:1] if one else SEEDS)


SD_DROPOUT = "SDDropout()"
"""lambda_SDD = 1 alone (Appendix A.1), and by our guess with label smoothing."""

_WITH = "SDDropout(weight=0.1)"  # in the sums with other methods

METHODS = {
    "cross_entropy": ("Cross-entropy", "CrossEntropy()", SD_DROPOUT),
    "cs_kd": ("CS-KD", "CSKD()", f"CSKD() + {_WITH}"),
    "ddgsd": ("DDGSD", "DDGSD()", f"DDGSD() + {_WITH}"),
    "byot": ("BYOT", "BYOT()", f"BYOT() + {_WITH}"),
    "dml": ("DML", "DML()", f"DML() + {_WITH}"),
    "label_smoothing": ("Label smoothing", "LabelSmoothing()", f"LabelSmoothing() + {SD_DROPOUT}"),
}
"""By its key in ``targets.json``: its name, the method, and its sum with SD-Dropout."""

BASE, WITH = "Base", "+ SD-Dropout"
"""Headings of the two columns."""

SCORED = "Top-1 accuracy on the test images after the last epoch, mean over seeds; ± is the sd over seeds."
SUMS = (
    "lambda of SD-Dropout is 1 alone and 0.1 with CS-KD, DDGSD, BYOT and DML, as run; with label smoothing it is 1, a "
    "guess: neither the paper nor the authors' logs say. lambda of the other methods is 1 (CS-KD, DDGSD, DML) and 0.1 "
    "(BYOT)."
)
PHOTOGRAPHS = (
    "Stanford Dogs is cut to the annotated box, as run; CUB-200-2011 is whole. On these two BYOT ran on a ResNet-18 "
    "with a stem of stride 1 (maps of twice the sides): that row stands beside the printed number, and BYOT on the "
    "other rows' network is a row of its own."
)
