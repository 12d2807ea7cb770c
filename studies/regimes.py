"""The map of "When it helps": every setting that was measured, from three studies, in two tables and in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import archive
import fine_tuning
from linked import linked_table
from when_it_helps import AUTO, SETTINGS

from selfdistill.records import RunRecord, paired
from selfdistill.records.record import to_struct
from selfdistill.training.record import optimiser_steps

BASELINE = "CrossEntropy()"
TENTH, ONE = "SDDropout(weight=0.1)", "SDDropout()"
METHODS = ("LabelSmoothing()", "Dropout()", TENTH, ONE, AUTO)

FRONT = (
    SETTINGS["digits_10_long"].title,
    "CIFAR-100 at 16 px, 100 classes x 15, 200 epochs, 512 features",
    "Caltech-101, 101 classes x 5, EfficientNet-Lite0, 1,280 features",
    SETTINGS["cifar_short"].title,
)
"""The settings of the front page."""

Kind = Literal["from scratch", "fine-tuning", "frozen backbone"]
Values = dict[int, float]
"""By seed, or by draw of the images."""


@dataclass(frozen=True)
class Point:
    """One setting.

    Attributes:
        kind: how the network starts.
        title: the images and the network.
        steps: optimiser steps.
        values: by method and metric: top1, train_top1, nll, scaled_nll, and weight where it was found.
    """

    kind: Kind
    title: str
    steps: int
    values: Mapping[str, Mapping[str, Values]]

    def mean(self, method: str, metric: str) -> float | None:
        """The mean over the seeds; None where it was not measured."""
        found = self.values.get(method, {}).get(metric)
        return fmean(found.values()) if found else None

    def gain(self, method: str, metric: str = "top1") -> tuple[float, tuple[float, float] | None, int] | None:
        """The mean difference to cross-entropy over the seeds in common, its 95 % interval, and how many they are."""
        ours, theirs = (self.values.get(name, {}).get(metric, {}) for name in (method, BASELINE))
        found, interval = paired(ours, theirs)
        return None if found is None else (found.mean, interval, found.n)


def points() -> list[Point]:
    """Every setting, from scratch first."""
    found = [_from_records("from scratch", SETTINGS[name].title, SETTINGS[name].load()) for name in SETTINGS]
    contents = archive.read(archive.RESULTS / "paper-small.jsonl.gz").values()
    runs = [to_struct(one, RunRecord, "a record of paper-small", "") for one in contents if "recipe_hash" in one]
    small = [run for run in runs if run.method in (BASELINE, *METHODS) and run.recipe.per_class == 15]
    title = "CIFAR-100 at 16 px, 100 classes x 15, 200 epochs, 512 features"
    return [_from_records("from scratch", title, small), *found, *_fine_tuned()]


def _from_records(kind: Kind, title: str, records: Iterable[RunRecord]) -> Point:
    values: dict[str, dict[str, Values]] = {}
    steps = 0
    for record in records:
        e, steps = record.evaluation, optimiser_steps(record)
        scaled = None if e.scaled is None else e.scaled.nll
        measured = {"top1": e.top1, "train_top1": e.train_top1, "nll": e.nll, "scaled_nll": scaled}
        for metric, value in (measured | {"weight": record.recipe.auto_weight}).items():
            if value is not None:
                values.setdefault(record.method, {}).setdefault(metric, {})[record.seed] = value
    return Point(kind, title, steps, values)


def _fine_tuned() -> list[Point]:
    rows = fine_tuning.load()
    found = []
    for frozen in (False, True):
        for per_class in dict.fromkeys(per_class for per_class, _ in rows):
            values: dict[str, dict[str, Values]] = {}
            steps = 0.0
            for (n, what), draws in rows.items():
                if n != per_class or what in fine_tuning.OTHERS or what.endswith(fine_tuning.FROZEN) != frozen:
                    continue
                for draw, row in draws.items():
                    steps = row["steps"]
                    for metric in ("top1", "train_top1", "nll", "scaled_nll", "weight"):
                        if (value := row.get(metric)) is not None:
                            method = what.removesuffix(fine_tuning.FROZEN)
                            values.setdefault(method, {}).setdefault(metric, {})[draw] = value
            if BASELINE in values:
                title = f"Caltech-101, 101 classes x {per_class}, EfficientNet-Lite0, 1,280 features"
                found.append(Point("frozen backbone" if frozen else "fine-tuning", title, round(steps), values))
    return found


def accuracy_table(found: Iterable[Point]) -> str:
    """Top-1 of cross-entropy and the differences of the others to it."""
    rows = []
    for point in found:
        baseline, fitted = point.mean(BASELINE, "top1"), point.mean(BASELINE, "train_top1")
        assert baseline is not None
        fits = "" if fitted is None else f" ({100 * fitted:.1f})"
        gains = [_points(point, method) for method in METHODS]
        rows.append((point.kind, point.title, f"{point.steps:,}", f"{100 * baseline:.1f}{fits}", *gains))
    return linked_table(("Start", "Setting", "Steps", "CrossEntropy() (training)", *METHODS), rows, words=2)


def probability_table(found: Iterable[Point]) -> str:
    """NLL of each method, and of cross-entropy and SD-Dropout after temperature scaling."""
    rows = []
    for point in found:
        shown = [
            _number(point.mean(BASELINE, "nll")),
            _number(point.mean(BASELINE, "scaled_nll")),
            *(_number(point.mean(method, "nll")) for method in ("LabelSmoothing()", TENTH, ONE)),
            _number(point.mean(ONE, "scaled_nll")),
            _number(point.mean(AUTO, "nll")),
            _number(point.mean(AUTO, "weight"), 2),
        ]
        rows.append((point.kind, point.title, *shown))
    headings = (
        *("Start", "Setting", BASELINE, "scaled", "LabelSmoothing()", TENTH, ONE, "scaled"),
        *(AUTO, "weight found"),
    )
    return linked_table(headings, rows, words=2)


def front_page(found: Iterable[Point]) -> str:
    """A few settings, from where it helps to where it does not, with the method's two weights."""
    rows = []
    for title in FRONT:
        point = next(one for one in found if one.title == title)
        baseline, fitted = point.mean(BASELINE, "top1"), point.mean(BASELINE, "train_top1")
        assert baseline is not None
        assert fitted is not None
        rows.append(
            (
                f"{point.kind}: {title}",
                f"{point.steps:,}",
                f"{100 * baseline:.1f} ({100 * fitted:.0f})",
                *(_points(point, method) for method in (TENTH, ONE)),
                " / ".join(_number(point.mean(method, "nll"), 2) for method in (BASELINE, TENTH, ONE)),
            )
        )
    headings = ("Setting", "Optimiser steps", "Cross-entropy: test (training)", TENTH, ONE, "NLL of the three")
    return linked_table(headings, rows, words=1)


def findings(found: Iterable[Point]) -> str:
    """In how many settings each method was better and worse than cross-entropy, and how the rule for the weight did."""
    measured, lines = list(found), []
    for method in METHODS:
        decided = [gain[1] for point in measured if (gain := point.gain(method)) is not None and gain[1] is not None]
        better, worse = sum(low > 0 for low, _ in decided), sum(high < 0 for _, high in decided)
        undecided = len(decided) - better - worse
        lines.append(
            f"- `{method}`, accuracy in {len(decided)} settings: better in {better}, worse in {worse}, undecided in "
            f"{undecided}."
        )
    with_auto = [point for point in measured if point.mean(AUTO, "nll") is not None]
    for other in (BASELINE, TENTH, ONE):
        pairs = [(_nll(point, AUTO), _nll(point, other)) for point in with_auto if point.mean(other, "nll") is not None]
        lower = sum(ours < theirs for ours, theirs in pairs)
        lines.append(f"- The NLL of `{AUTO}` is lower than that of `{other}` in {lower} of {len(pairs)} settings.")
    return "\n".join(lines)


def _nll(point: Point, method: str) -> float:
    value = point.mean(method, "nll")
    assert value is not None
    return value


def _points(point: Point, method: str) -> str:
    gain = point.gain(method)
    if gain is None:
        return ""
    mean, interval, n = gain
    if interval is None:
        return f"{100 * mean:+.1f} (n = {n})"
    return f"{100 * mean:+.1f} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}; n = {n})"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
