"""The figures of a reproduced table: reliability diagrams, a heat map, bars, curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import FigureBase

from selfdistill.experiments.paper import Line, Result
from selfdistill.report.measured import Measured
from selfdistill.report.measures.reliability import reliability_panels
from selfdistill.report.section import Figure
from selfdistill.report.style import INK, MUTED, Panel, colour, heading, marker, plain, short


def figures_of(result: Result) -> list[Figure]:
    """Return the figure of a table that has one and of which there are numbers."""
    draw = {"reliability": _diagrams, "heat": _heat, "bars": _bars, "curves": _curves}.get(result.figure)
    panels = [] if draw is None else draw(result)
    return [Figure(f"{result.table}-{result.figure}", result.title, panels, 2)] if panels else []


def _diagrams(result: Result) -> list[Panel]:
    return reliability_panels(
        [
            Measured(name, index, dict(enumerate(of_seeds)))
            for index, (name, of_seeds) in enumerate(result.reliability.items())
        ]
    )


def _heat(result: Result) -> list[Panel]:
    numbers = _grid(result.lines)
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


def _bar_panel(at: int, attack: str, numbers: Mapping[tuple[str, str], float]) -> Panel:
    shown = {
        (row.partition(": ")[0], column): value
        for (row, column), value in numbers.items()
        if row.partition(": ")[2] == attack
    }
    methods, columns = (list(dict.fromkeys(key[side] for key in shown)) for side in (0, 1))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for index, column in enumerate(columns):
            places = [place + 0.4 * index for place in range(len(methods))]
            heights = [shown.get((method, column), 0.0) for method in methods]
            axes.bar(places, heights, 0.36, color=colour(index), label=column)
        axes.set_xticks([place + 0.2 for place in range(len(methods))], methods)
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5)
        axes.set_ylabel("Accuracy (%)", color=MUTED)
        heading(axes, short(attack, 40))
        plain(axes)

    alt = "; ".join(f"{method}, {column}: {value:.1f} %" for (method, column), value in shown.items())
    return Panel(f"bars-{at}", f"{attack}. {alt}", draw)


def _curves(result: Result) -> list[Panel]:
    """For each choice of weights the cosine and the two norms over the training."""
    numbers = _grid(result.lines)
    panels = []
    for at, name in enumerate(dict.fromkeys(row.partition(", ")[2] for row, _ in numbers)):
        cosine: dict[tuple[str, str], float] = {}
        norms: dict[tuple[str, str], float] = {}
        for (row, column), value in numbers.items():
            when, _, of = row.partition(", ")
            if of == name:
                (cosine if column == "Cosine" else norms)[column, when] = value
        for kind, lines in (("cosine", cosine), ("norms", norms)):
            title = f"{'Cosine' if kind == 'cosine' else 'L1 norms'}, {name}"
            panels.append(Panel(f"{kind}-{at}", title, partial(_draw_lines, lines, title)))
    return panels


def _draw_lines(numbers: Mapping[tuple[str, str], float], title: str, figure: FigureBase) -> None:
    """Draw a line for each first key over the second ones."""
    axes = figure.subplots()
    over = list(dict.fromkeys(place for _, place in numbers))
    for index, name in enumerate(dict.fromkeys(name for name, _ in numbers)):
        heights = [numbers[name, place] for place in over]
        axes.plot(over, heights, color=colour(index + 1), marker=marker(index + 1), label=name)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8.5)
    axes.set_xticks(range(len(over)), [place.replace(" of the epochs", "") for place in over])
    heading(axes, short(title, 40))
    plain(axes)


def _grid(lines: Sequence[Line]) -> dict[tuple[str, str], float]:
    return {(line.row, line.column): statistics.fmean(line.values.values()) for line in lines if line.values}
