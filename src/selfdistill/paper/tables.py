"""What a table of the paper is: trainings, what is measured of their networks, and the printed numbers beside."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from selfdistill.paper.targets import Logged

if TYPE_CHECKING:
    from pathlib import Path

    from selfdistill.data import ImageData
    from selfdistill.paper.scales import Setting
    from selfdistill.train.progress import Callback

Network = Literal["resnet18", "resnet34", "densenet121", "resnet18_byot224", "resnet152"]

SETS = {
    "cifar100": "CIFAR-100",
    "cub200": "CUB-200-2011",
    "dogs": "Stanford Dogs",
    "imagenet": "ImageNet",
    "caltech101": "Caltech-101",
}
"""The data sets that the paper trains on, as it calls them, and Caltech-101, which stands for few photographs."""


@dataclass(frozen=True)
class Training:
    """What is trained, whatever the scale and the seed; tables that name the same training share its runs.

    Attributes:
        method: the method's repr.
        data: one of `SETS`.
        network: as the paper calls it; its stem is that of the images' size.
        head_layers: fully connected layers (Table 13).
    """

    method: str
    data: str = "cifar100"
    network: Network = "resnet18"
    head_layers: int = 1


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
