"""The figures of the reproduced tables, and Fig. 1."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator, NullFormatter

from selfdistill.files import make_folder
from selfdistill.methods import parse_method
from selfdistill.paper.results import TableCell, TableResult
from selfdistill.paper.tables import METHODS, SD_DROPOUT, PaperTable
from selfdistill.records.summary import Statistic
from selfdistill.report.diagram import write_diagram
from selfdistill.report.measured import Measured
from selfdistill.report.measures.calibration import reliability_panels
from selfdistill.report.pages import Figure, write_pages
from selfdistill.report.style import INK, MUTED, Panel, colour, heading, marker, plain, short

DESIGNS = {
    "Cross-entropy": "CrossEntropy()",
    "SD-Dropout": SD_DROPOUT,
    **{name: alone for name, alone, _ in METHODS.values()},
    "Dropout": "Dropout()",
}
"""The methods of Fig. 1 by the paper's names."""

FIGURE1 = PaperTable("figure1", figure="diagrams")

_CAPTIONS = {
    "bars": "Means; the lines on the bars are the sd over seeds.",
    "curves": "Means, with thin lines for single seeds; the norms on a logarithmic axis.",
}


def result_figures(result: TableResult) -> list[Figure]:
    """Return the figure of a result; none if its table has no figure, or no cell has a number."""
    draw = {"reliability": _diagrams, "heat": _heat, "bars": _bars, "curves": _curves}.get(result.figure)
    panels = [] if draw is None else draw(result)
    if not panels:
        return []
    name, caption = f"{result.table}-{result.figure}", _CAPTIONS.get(result.figure, "")
    return [Figure(name, result.title, panels, 2, caption=caption)]


def _diagrams(result: TableResult) -> list[Panel]:
    return reliability_panels(
        [
            Measured(name, index, dict(enumerate(of_seeds)))
            for index, (name, of_seeds) in enumerate(result.reliability.items())
        ]
    )


def _heat(result: TableResult) -> list[Panel]:
    numbers = {place: statistic.mean for place, statistic in _grid(result.cells).items()}
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


def _bars(result: TableResult) -> list[Panel]:
    numbers = _grid(result.cells)
    attacks = dict.fromkeys(row.partition(": ")[2] for row, _ in numbers)
    return [_bar_panel(at, attack, numbers) for at, attack in enumerate(attacks)]


def _bar_panel(at: int, attack: str, numbers: Mapping[tuple[str, str], Statistic]) -> Panel:
    heights = {
        (row.partition(": ")[0], column): statistic
        for (row, column), statistic in numbers.items()
        if row.partition(": ")[2] == attack
    }
    methods, columns = (list(dict.fromkeys(key[side] for key in heights)) for side in (0, 1))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for index, column in enumerate(columns):
            found = {
                place: heights[method, column] for place, method in enumerate(methods) if (method, column) in heights
            }
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

    alt = "; ".join(f"{method}, {column}: {statistic.mean:.1f} %" for (method, column), statistic in heights.items())
    return Panel(f"bars-{at}", f"{attack}. {alt}", draw)


def _curves(result: TableResult) -> list[Panel]:
    """For each choice of weights the cosine and the two norms over the training."""
    panels = []
    for at, name in enumerate(dict.fromkeys(cell.row.partition(", ")[2] for cell in result.cells if cell.values)):
        cells = [cell for cell in result.cells if cell.values and cell.row.partition(", ")[2] == name]
        cosine, norms = ([cell for cell in cells if (cell.column == "Cosine") is one] for one in (True, False))
        for kind, title, some in (("cosine", "Cosine", cosine), ("norms", "L1 norms", norms)):
            heading_text = f"{title}: {name}"
            panels.append(Panel(f"{kind}-{at}", heading_text, partial(_draw_curves, some, heading_text)))
    return panels


def _draw_curves(cells: Sequence[TableCell], title: str, figure: FigureBase) -> None:
    """Draw a curve for each column over the rows, and each seed's behind it; several on a logarithmic axis."""
    axes = figure.subplots()
    columns = list(dict.fromkeys(cell.column for cell in cells))
    for index, column in enumerate(columns, start=1):
        over = [cell for cell in cells if cell.column == column]
        for seed in dict.fromkeys(seed for cell in over for seed in cell.values):
            of_seed = [cell.values.get(seed, float("nan")) for cell in over]
            axes.plot(of_seed, color=colour(index), linewidth=0.8, alpha=0.4)
        means = [statistics.fmean(cell.values.values()) for cell in over]
        axes.plot(means, color=colour(index), marker=marker(index), label=column)
    whens = list(dict.fromkeys(cell.row.partition(", ")[0].replace(" of the epochs", "") for cell in cells))
    axes.set_xticks(range(len(whens)), whens)
    if len(columns) > 1:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # with tens alone a narrow range has no tick
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False, labelcolor=INK, fontsize=8.5)
    heading(axes, short(title, 40))
    plain(axes)


def _grid(cells: Sequence[TableCell]) -> dict[tuple[str, str], Statistic]:
    return {(cell.row, cell.column): statistic for cell in cells if (statistic := cell.statistic) is not None}


def write_figure1(out: Path) -> Path:
    """Write ``figure1.html``, ``figure1.md`` and in ``figures`` a picture per method; each file whole or not at all."""
    make_folder(out / "figures")
    files = {
        name: write_diagram(parse_method(expression), out / "figures", f"{FIGURE1.name}-")
        for name, expression in DESIGNS.items()
    }
    context = {
        "title": f"Figure 1: {FIGURE1.title}",
        "name": FIGURE1.name,
        "diagrams": [(name, file.name, Markup(file.read_text(encoding="utf-8"))) for name, file in files.items()],
        "protocol": FIGURE1.protocol("full"),
    }
    return write_pages("diagrams", out, (), context, methods=(), former=(), file=FIGURE1.name)
