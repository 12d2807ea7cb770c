"""The figures of a comparison, as panels: every seed, paired differences, training curves.

Matplotlib's object-oriented interface alone: nothing here touches pyplot or a display.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from selfdistill.records import METRICS, RunRecord, Summary
from selfdistill.report.measured import Measured
from selfdistill.report.style import GRID, MUTED, Panel, colour, heading, marker, plain, rows
from selfdistill.report.tables import Column, column_of, difference_column, metrics_in

_SEED_HEADINGS = {
    "top1": "Top-1 accuracy (%)",
    "ece": "ECE (lower is better)",
    "gap": "Gap (under-confident < 0 < over-)",
}


def seed_panels(groups: Sequence[Measured[RunRecord]]) -> list[Panel]:
    """Accuracy, ECE and gap: every seed a dot, the mean a bar."""
    panels = []
    for column in map(column_of, _SEED_HEADINGS):
        alt = f"{column.heading} of every run: one row per method, one dot per seed, the mean as a bar."
        draw = partial(_draw_seeds, groups=groups, column=column)
        panels.append(Panel(f"seeds-{column.metric}", alt, draw, 3.3, 0.85 + 0.47 * len(groups)))
    return panels


def _draw_seeds(figure: FigureBase, *, groups: Sequence[Measured[RunRecord]], column: Column) -> None:
    axes = figure.subplots()
    for row, group in enumerate(groups):
        values = [v * column.scale for run in group.values if (v := run.metric(column.metric)) is not None]
        shade = colour(group.index)
        axes.axhline(row, color=GRID, linewidth=0.8, zorder=1)
        mean = statistics.fmean(values)
        axes.plot([mean, mean], [row - 0.2, row + 0.2], color=shade, linewidth=2.4, zorder=3)
        axes.plot(
            values, [row] * len(values), linestyle="none", marker=marker(group.index), markersize=6.5, color=shade,
            alpha=0.55, markeredgecolor=shade, zorder=2,
        )  # fmt: skip
    rows(axes, [group.name for group in groups], zero=column.metric == "gap")
    if column.metric == "ece":
        axes.set_xlim(left=0)
    heading(axes, _SEED_HEADINGS[column.metric])


def difference_panels(summary: Summary) -> list[Panel]:
    """For each metric, every method's paired difference to the first method with its 95 % interval."""
    panels = []
    compared = {metric for _, metric in summary.differences}
    for column in map(difference_column, metrics_in("figure")):
        if column.metric not in compared:
            continue
        alt = f"Difference in {column.heading} to {summary.methods[0]}, paired by seed, with 95 % intervals."
        draw = partial(_draw_differences, summary=summary, column=column)
        panels.append(Panel(f"difference-{column.metric}", alt, draw, 3.3, 0.85 + 0.47 * (len(summary.methods) - 1)))
    return panels


def _draw_differences(figure: FigureBase, *, summary: Summary, column: Column) -> None:
    axes = figure.subplots()
    for row, method in enumerate(summary.methods[1:]):
        axes.axhline(row, color=GRID, linewidth=0.8, zorder=1)
        difference = summary.differences.get((method, column.metric))
        if difference is None or difference.mean is None:
            continue
        shade = colour(row + 1)
        if difference.low is not None and difference.high is not None:
            ends = [difference.low * column.scale, difference.high * column.scale]
            axes.plot(ends, [row, row], color=shade, linewidth=2.6, solid_capstyle="round", zorder=2)
        hollow = difference.low is None  # one pair of runs: no interval
        axes.plot(
            difference.mean * column.scale, row, marker=marker(row + 1), markersize=7, color=shade, zorder=3,
            markerfacecolor="none" if hollow else shade,
        )  # fmt: skip
    rows(axes, summary.methods[1:], zero=True)
    low, high = axes.get_xlim()
    margin = 0.08 * (high - low)
    axes.set_xlim(min(low, -margin), max(high, margin))  # zero is always in sight
    better = {"higher": ": right is better", "lower": ": left is better", None: ""}[METRICS[column.metric].better]
    heading(axes, f"{column.heading}{better}")


_MOST_BANDS = 4  # methods; the bands of more cover each other
_BANDS = ", band from the smallest to the largest"


def curve_panels(groups: Sequence[Measured[RunRecord]]) -> list[Panel]:
    """Accuracy in training and on the test images, and each loss term on a log scale, by epoch."""
    runs = [run for group in groups for run in group.values]
    terms = dict.fromkeys(term for run in runs for term in run.terms)
    wanted = [("train_accuracy", "Accuracy in training, running (%)"), ("test_top1", "Accuracy on the test images (%)")]
    wanted += [(term, f"Loss term {term} (unweighted, log)") for term in terms]
    panels = []
    for i, (key, title) in enumerate(wanted):
        if any(row.get(key) is not None for run in runs for row in run.rows):
            alt = f"{title} by epoch; mean over seeds{_BANDS if len(groups) <= _MOST_BANDS else ''}."
            draw = partial(_draw_curves, groups=groups, key=key, title=title)
            panels.append(Panel(f"curve-{i}", alt, draw, 3.7, 2.6))
    return panels


def _draw_curves(figure: FigureBase, *, groups: Sequence[Measured[RunRecord]], key: str, title: str) -> None:
    axes = figure.subplots()
    log = key not in ("train_accuracy", "test_top1")
    scale = 1 if log else 100
    keep: Callable[[float], bool] = (lambda v: v > 0) if log else (lambda _: True)
    for group in groups:
        by_epoch: dict[int, list[float]] = {}
        for run in group.values:
            for row in run.log:
                value = row.terms.get(key) if log else getattr(row, key)
                if value is not None and keep(value):
                    by_epoch.setdefault(row.epoch, []).append(value * scale)
        epochs = sorted(by_epoch)
        if not epochs:
            continue
        means = [statistics.fmean(by_epoch[e]) for e in epochs]
        shade = colour(group.index)
        if len(groups) <= _MOST_BANDS:
            low, high = [min(by_epoch[e]) for e in epochs], [max(by_epoch[e]) for e in epochs]
            axes.fill_between(epochs, low, high, color=shade, alpha=0.18, linewidth=0)
        axes.plot(epochs, means, color=shade, linewidth=1.7)
        axes.plot(epochs[-1], means[-1], color=shade, marker=marker(group.index), markersize=5)
    if log:
        axes.set_yscale("log")
        # Plain numbers, as text: matplotlib's own labels are formulas.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("Epoch", color=MUTED)
    heading(axes, title)
    plain(axes)
