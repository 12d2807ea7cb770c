"""The figure and the table of "When it helps": each setting's difference to cross-entropy beside that one's own gap."""

from functools import partial
from pathlib import Path
from statistics import fmean

from linked import linked_table
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from when_it_helps import SETTINGS

from selfdistill.records import METRICS, Difference, RunRecord, Summary, summarise, write_atomically
from selfdistill.report.style import GRID, INK, MUTED, Panel, colour, grid_svg, marker, panel_svg, plain
from selfdistill.report.tables import column_of
from selfdistill.training.record import optimiser_steps

Study = dict[str, list[RunRecord]]
BASELINE = "CrossEntropy()"
SHOWN = ("SDDropout(weight=0.1)", "SDDropout()")
COLUMN = {"top1": column_of("top1", unit="points", digits=1), "ece": column_of("ece")}


def settings_table(study: Study) -> str:
    """One row a setting and method: cross-entropy's own numbers, and the paired differences to it."""
    rows = []
    for name, records in study.items():
        summary = summarise(records)
        of_setting = (
            SETTINGS[name].title,
            f"{optimiser_steps(records[0]):,}",
            f"{_mean(summary, BASELINE, 'top1'):.1%} ({_mean(summary, BASELINE, 'gap'):+.3f})",
            _training_accuracy(records, BASELINE),
        )
        for at, method in enumerate(summary.methods[1:]):
            top1, ece = (summary.differences[method, metric] for metric in ("top1", "ece"))
            rows.append(
                (
                    *(of_setting if at == 0 else [""] * len(of_setting)),
                    method,
                    _training_accuracy(records, method),
                    _interval(top1, "top1"),
                    _interval(ece, "ece"),
                    f"{_mean(summary, method, 'gap'):+.3f}",
                    str(top1.n),
                )
            )
    headings = (
        "Setting",
        "Optimiser steps",
        "Cross-entropy: top-1 (gap)",
        "its training top-1",
        "Method",
        "training top-1",
        "Δ top-1, points",
        "Δ ECE",
        "its gap",
        "Seeds",
    )
    return linked_table(headings, rows, words=1)


def _training_accuracy(records: list[RunRecord], method: str) -> str:
    """The mean over seeds of the share of training images that are right after the last epoch."""
    return f"{fmean(one.evaluation.train_top1 or 0.0 for one in records if one.method == method):.1%}"


def findings(study: Study) -> str:
    """Say in how many settings each weight raised or lowered accuracy and ECE, by the 95 % intervals."""
    lines = []
    for method in SHOWN:
        by_metric = {
            metric: [summary.differences[method, metric].effect for summary in map(summarise, study.values())]
            for metric in ("top1", "ece")
        }
        sentences = [
            f"{what} better in {effects.count('better')}, worse in {effects.count('worse')}, "
            f"undecided in {effects.count('unclear')}"
            for what, effects in (("accuracy", by_metric["top1"]), ("ECE", by_metric["ece"]))
        ]
        lines.append(f"- `{method}`, {len(study)} settings: {'; '.join(sentences)}.")
    return "\n".join(lines)


def write_figure(study: Study, path: Path) -> None:
    """Write the two panels as one SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    panels = [
        Panel(
            f"flip-{metric}",
            f"Difference in {metric} against cross-entropy's gap",
            partial(_draw, study, metric),
            4.6,
            3.6,
        )
        for metric in ("ece", "top1")
    ]
    write_atomically(path, grid_svg(panels, [panel_svg(panel) for panel in panels], columns=2))


def _draw(study: Study, metric: str, figure: FigureBase) -> None:
    axes: Axes = figure.subplots()
    column = COLUMN[metric]
    plain(axes)
    for at, method in enumerate(SHOWN, start=1):
        for name, records in study.items():
            summary = summarise(records)
            difference, gap = summary.differences[method, metric], _mean(summary, BASELINE, "gap")
            assert difference.mean is not None
            assert difference.low is not None
            assert difference.high is not None
            axes.plot(
                [gap, gap],
                [column.scale * difference.low, column.scale * difference.high],
                color=colour(at),
                linewidth=1,
                alpha=0.6,
            )
            axes.plot(
                gap,
                column.scale * difference.mean,
                marker(at),
                color=colour(at),
                markersize=6,
                fillstyle="none" if name.startswith("digits") else "full",
                label=method if name == next(iter(study)) else None,
            )
    axes.axhline(0, color=INK, linewidth=1, linestyle="--")
    axes.axvline(0, color=GRID, linewidth=1)
    axes.set_xlabel("cross-entropy's own gap (+ over-confident)", color=MUTED)
    better = "below 0 is better" if METRICS[metric].better == "lower" else "above 0 is better"
    label = f"{column.title}, {column.unit}" if column.unit else column.title
    axes.set_title(f"Difference in {label}: {better}", loc="left", color=INK)
    axes.legend(frameon=False, labelcolor=INK)


def _mean(summary: Summary, method: str, metric: str) -> float:
    return summary.statistics[method, metric].mean


def _interval(difference: Difference, metric: str) -> str:
    column = COLUMN[metric]
    mean, low, high = (
        f"{column.scale * value:+.{column.digits}f}"
        for value in (difference.mean, difference.low, difference.high)
        if value is not None
    )
    return f"{mean} ({low} to {high})"
