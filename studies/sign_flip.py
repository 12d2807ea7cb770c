"""The figure of "When it helps": each setting's difference to cross-entropy beside that one's own gap."""

from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from selfdistill.records import METRICS, RunRecord, Summary, summarise, write_atomically
from selfdistill.report.style import GRID, INK, MUTED, Panel, colour, grid_svg, marker, panel_svg, plain
from selfdistill.report.tables import column_of

Study = dict[str, list[RunRecord]]
BASELINE = "CrossEntropy()"
SHOWN = ("SDDropout(weight=0.1)", "SDDropout()")
COLUMN = {"top1": column_of("top1", unit="points", digits=1), "ece": column_of("ece")}


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
            if method not in summary.methods:
                continue
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
