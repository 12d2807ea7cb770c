"""The map of "When it helps": every setting that was measured, from three studies, in two tables and in words."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import fine_tuning
from linked import linked_table, points_cell
from when_it_helps import AUTO, SETTINGS

import paper
from selfdistill.paper import Scale
from selfdistill.records import RunRecord, paired
from selfdistill.training.record import optimiser_steps

BASELINE = "CrossEntropy()"
TENTH, ONE = "SDDropout(weight=0.1)", "SDDropout()"
NAMES = {
    TENTH: "SDDropout 0.1",
    ONE: "SDDropout 1",
    AUTO: "SDDropout auto",
    "LabelSmoothing()": "Label smoothing",
    "Dropout()": "Dropout",
}
METHODS = tuple(NAMES)

PAPER: dict[Scale, str] = {
    "full": "CIFAR-100, 100 x 500, ResNet-18, 200 epochs: the paper's own",
    "small": "CIFAR-100 at 16 px, 100 x 15, 200 epochs, 512 features",
}
"""The scales of the paper's tables that are settings here."""

FRONT = (
    PAPER["full"],
    SETTINGS["digits_10_long"].title,
    PAPER["small"],
    "Caltech-101, 101 x 5, EfficientNet-Lite0",
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
    papers = [_from_records("from scratch", PAPER[scale], _table1(scale)) for scale in PAPER]
    return [*papers, *found, *_fine_tuned()]


def _table1(scale: Scale) -> list[RunRecord]:
    """The runs of the paper's Table 1 on CIFAR-100 by the methods compared here."""
    with paper.committed(scale) as config:
        return [run for run in paper.table1_records(config) if run.method in (BASELINE, *METHODS)]


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
                title = f"Caltech-101, 101 x {per_class}, EfficientNet-Lite0"
                found.append(Point("frozen backbone" if frozen else "fine-tuning", title, round(steps), values))
    return found


def accuracy_table(found: Iterable[Point]) -> str:
    """Top-1 of cross-entropy and the differences of the others to it: a table for each way to start."""

    def row(point: Point) -> tuple[str, ...]:
        baseline, fitted = point.mean(BASELINE, "top1"), point.mean(BASELINE, "train_top1")
        assert baseline is not None
        n = len(point.values[BASELINE]["top1"])
        fits = "" if fitted is None else f" ({100 * fitted:.0f})"
        gains = [_points(point, method, n) for method in METHODS]
        return (point.title, f"{point.steps:,}", f"{100 * baseline:.1f}{fits}", *gains, str(n))

    return _by_kind(("Setting", "Steps", "Cross-entropy (training)", *NAMES.values(), "n"), found, row)


def probability_table(found: Iterable[Point]) -> str:
    """NLL of each method, and of cross-entropy and SD-Dropout after temperature scaling: a table for each start."""

    def row(point: Point) -> tuple[str, ...]:
        shown = [(BASELINE, "nll"), (BASELINE, "scaled_nll"), ("LabelSmoothing()", "nll"), (TENTH, "nll")]
        shown += [(ONE, "nll"), (ONE, "scaled_nll"), (AUTO, "nll")]
        n = len(point.values[BASELINE]["nll"])
        cells = [_of_so_many(_number(point.mean(*which)), point, *which, n) for which in shown]
        return (point.title, *cells, _number(point.mean(AUTO, "weight"), 2), str(n))

    headings = ("Setting", "Cross-entropy", "scaled", NAMES["LabelSmoothing()"], NAMES[TENTH], NAMES[ONE], "scaled")
    return _by_kind((*headings, NAMES[AUTO], "weight found", "n"), found, row)


def _by_kind(headings: tuple[str, ...], found: Iterable[Point], row: Callable[[Point], tuple[str, ...]]) -> str:
    by_kind: dict[str, list[Point]] = {}
    for point in found:
        by_kind.setdefault(point.kind, []).append(point)
    return "\n\n".join(
        f"### {kind.capitalize()}\n\n{linked_table(headings, [row(point) for point in of], words=1)}"
        for kind, of in by_kind.items()
    )


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
                *(_points(point, method, len(point.values[BASELINE]["top1"])) for method in (TENTH, ONE)),
                str(len(point.values[BASELINE]["top1"])),
                " / ".join(_number(point.mean(method, "nll"), 2) or "-" for method in (BASELINE, TENTH, ONE)),
            )
        )
    headings = ("Setting", "Steps", "Cross-entropy (training)", NAMES[TENTH], NAMES[ONE], "n", "NLL of the three")
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


def _points(point: Point, method: str, n: int) -> str:
    """The gain and, below it, its interval; how many pairs they are of where it is not n."""
    ours, theirs = (point.values.get(name, {}).get("top1", {}) for name in (method, BASELINE))
    return points_cell(ours, theirs, n)


def _of_so_many(text: str, point: Point, method: str, metric: str, n: int) -> str:
    """A number, and how many seeds or draws it is the mean of where these are not n."""
    count = len(point.values.get(method, {}).get(metric, {}))
    return text if count in (0, n) else f"{text}<br>n = {count}"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
