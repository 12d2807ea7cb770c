"""The figures of a reproduced table: reliability diagrams, a heat map, bars, curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator, NullFormatter

from selfdistill.paper.results import Line, Result
from selfdistill.records.summary import Statistic
from selfdistill.report.measured import Measured
from selfdistill.report.measures.reliability import reliability_panels
from selfdistill.report.section import Figure
from selfdistill.report.style import INK, MUTED, Panel, colour, heading, marker, plain, short

_CAPTIONS = {
    "bars": "Means; the lines on the bars are the sd over seeds.",
    "curves": "Means, with thin lines for single seeds; the norms on a logarithmic axis.",
}


def figures_of(result: Result) -> list[Figure]:
    """Return the figure of a table that has one and of which there are numbers."""
    draw = {"reliability": _diagrams, "heat": _heat, "bars": _bars, "curves": _curves}.get(result.figure)
    panels = [] if draw is None else draw(result)
    if not panels:
        return []
    name, caption = f"{result.table}-{result.figure}", _CAPTIONS.get(result.figure, "")
    return [Figure(name, result.title, panels, 2, caption=caption)]


def _diagrams(result: Result) -> list[Panel]:
    return reliability_panels(
        [
            Measured(name, index, dict(enumerate(of_seeds)))
            for index, (name, of_seeds) in enumerate(result.reliability.items())
        ]
    )


def _heat(result: Result) -> list[Panel]:
    numbers = {place: statistic.mean for place, statistic in _grid(result.lines).items()}
    if len(numbers) < 2:
        return []
    rows, columns = (list(dict.fromkeys(key[at] for key in numbers)) for at in (0, 1))
    alt = "; ".join(f"{row}, {column}: {value:.2f}" for (row, column), value in numbers.items())

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        values = [[numbers.get((row, column), float("nan")) for column in columns] for row in rows]
        low, high = min(numbers.values()), max(numbers.values())
        axes.imshow(values, cmap="Blues", aspect="auto", vmin=low - (high - low) / 4, vmax=high + (high - low) / 4)
        for (row, column), value in numbers.items():
            dark = value > (low + high) / 2
            place = columns.index(column), rows.index(row)
            shade = "white" if dark else "black"  # on the map's own blue, whatever the page's colours
            axes.text(*place, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=9)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        heading(axes, "Top-1 accuracy (%)")
        axes.tick_params(colors=MUTED, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return [Panel("heat", f"Heat map: {alt}", draw, 4.2, 3.4)]


def _bars(result: Result) -> list[Panel]:
    numbers = _grid(result.lines)
    attacks = dict.fromkeys(row.partition(": ")[2] for row, _ in numbers)
    return [_bar_panel(at, attack, numbers) for at, attack in enumerate(attacks)]


def _bar_panel(at: int, attack: str, numbers: Mapping[tuple[str, str], Statistic]) -> Panel:
    shown = {
        (row.partition(": ")[0], column): statistic
        for (row, column), statistic in numbers.items()
        if row.partition(": ")[2] == attack
    }
    methods, columns = (list(dict.fromkeys(key[side] for key in shown)) for side in (0, 1))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for index, column in enumerate(columns):
            found = {place: shown[method, column] for place, method in enumerate(methods) if (method, column) in shown}
            axes.bar(
                [place + 0.4 * index for place in found],
                [statistic.mean for statistic in found.values()],
                0.36,
                yerr=[statistic.sd or 0.0 for statistic in found.values()],
                ecolor=INK,
                color=colour(index),
                label=column,
            )
        axes.set_xticks([place + 0.2 for place in range(len(methods))], methods)
        axes.margins(y=0.25)  # the legend's place
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5, loc="upper right", ncols=len(columns))
        axes.set_ylabel("Accuracy (%)", color=MUTED)
        heading(axes, short(attack, 40))
        plain(axes)

    alt = "; ".join(f"{method}, {column}: {statistic.mean:.1f} %" for (method, column), statistic in shown.items())
    return Panel(f"bars-{at}", f"{attack}. {alt}", draw)


def _curves(result: Result) -> list[Panel]:
    """For each choice of weights the cosine and the two norms over the training."""
    panels = []
    for at, name in enumerate(dict.fromkeys(line.row.partition(", ")[2] for line in result.lines if line.values)):
        lines = [line for line in result.lines if line.values and line.row.partition(", ")[2] == name]
        cosine, norms = ([line for line in lines if (line.column == "Cosine") is one] for one in (True, False))
        for kind, title, some in (("cosine", "Cosine", cosine), ("norms", "L1 norms", norms)):
            told = f"{title}: {name}"
            panels.append(Panel(f"{kind}-{at}", told, partial(_draw_curves, some, told)))
    return panels


def _draw_curves(lines: Sequence[Line], title: str, figure: FigureBase) -> None:
    """Draw a line for each column over the rows, and each seed's behind it; several on a logarithmic axis."""
    axes = figure.subplots()
    columns = list(dict.fromkeys(line.column for line in lines))
    for index, column in enumerate(columns, start=1):
        over = [line for line in lines if line.column == column]
        for seed in dict.fromkeys(seed for line in over for seed in line.values):
            of_seed = [line.values.get(seed, float("nan")) for line in over]
            axes.plot(of_seed, color=colour(index), linewidth=0.8, alpha=0.4)
        means = [statistics.fmean(line.values.values()) for line in over]
        axes.plot(means, color=colour(index), marker=marker(index), label=column)
    whens = list(dict.fromkeys(line.row.partition(", ")[0].replace(" of the epochs", "") for line in lines))
    axes.set_xticks(range(len(whens)), whens)
    if len(columns) > 1:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # with tens alone a narrow range has no tick
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5)
    heading(axes, short(title, 40))
    plain(axes)


def _grid(lines: Sequence[Line]) -> dict[tuple[str, str], Statistic]:
    return {(line.row, line.column): statistic for line in lines if (statistic := line.statistic) is not None}
