"""A table of the paper as it was reproduced: for the terminal, as Markdown, HTML and JSON, with its figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import FigureBase

from selfdistill.experiments.paper import Line, Result
from selfdistill.experiments.paper.entry import SETS
from selfdistill.experiments.paper.listing import Need
from selfdistill.records import write_atomically
from selfdistill.records.record import to_json
from selfdistill.report.measured import Measured
from selfdistill.report.measures.reliability import reliability_panels
from selfdistill.report.pages import write_pages
from selfdistill.report.section import Figure
from selfdistill.report.style import INK, MUTED, Panel, colour, heading, marker, plain, short
from selfdistill.report.tables import DASH, Column, Table
from selfdistill.train.progress import clock

_REFERENCE = "The printed numbers are of the full protocol: here they are for reference, and no difference is taken."

_TINY = 1e-4  # below this a number is written as a power of ten


def reproduced_table(result: Result, *, brief: bool = False) -> Table:
    """One row a cell: ours with its sd, of how many seeds, the printed number and, at the full scale, the difference.

    Below that scale the printed numbers are for reference alone.

    Args:
        result: what the table came to.
        brief: without the epochs and the images, for a terminal.
    """
    printed = ("Printed", "Difference") if result.compared else ("Printed, full",)
    more = () if brief else ("Epochs", "Images")
    rows = []
    for line in result.lines:
        cells = [line.row, line.column, ours(line), f"{len(line.values)} of {line.wanted}", _printed(line)]
        if result.compared:
            cells.append(_difference(line))
        if not brief:
            cells += [_count(line.epochs), _count(line.images)]
        rows.append(tuple(cells))
    return Table(("Row", "Column", "Ours", "Seeds", *printed, *more), tuple(rows), tuple(absences(result.lines)))


def facts(result: Result) -> str:
    """Return a line on what the numbers are of, for a terminal.

    A scale that is no reproduction says so.
    """
    epochs = sorted({line.epochs for line in result.lines if line.epochs is not None})
    images = sorted({line.images for line in result.lines if line.images is not None})
    words = [f"Scale {result.said}."]
    if epochs:
        words.append(f"{_several(epochs)} epochs, the last one scored.")
    if images:
        words.append(f"On {_several(images)} images. ± is the sd over seeds.")
    return " ".join([*words, *_reference(result)])


def ours(line: Line) -> str:
    """Return our mean and sd, such as ``76.81 ± 0.35 %``; or that there is no data, or not all."""
    found = line.statistic
    if found is None:
        return "no data" if line.absent.startswith("no data") else DASH
    unit = f" {line.unit}" if line.unit else ""
    if found.mean and abs(found.mean) < _TINY:
        return f"{found.mean:.1e}{unit}"
    column = _column(line)
    spread = "" if found.sd is None else f" ± {column.number(found.sd, signed=False)}"
    return f"{column.number(found.mean)}{spread}{unit}"


def absences(lines: Sequence[Line]) -> list[str]:
    """Return why numbers are missing, each reason once, with the rows that miss it."""
    reasons: dict[str, dict[str, None]] = {}
    for line in lines:
        if line.absent:
            reasons.setdefault(line.absent, {})[line.row] = None
    return [f"{_listed(list(rows))}: {reason}" for reason, rows in reasons.items()]


def needs_table(needs: Sequence[Need]) -> Table:
    """One row a training: what is done and what the rest would take."""
    rows = [
        (
            f"{SETS[need.training.data]}, {need.training.network}"
            + (", 2 FC" if need.training.head_layers == 2 else "")
            + f": {need.training.method}",
            need.refused or f"{need.trained} of {need.wanted}",
            ", ".join(f"{name} {done}" for name, done in need.parts.items()) or DASH,
            DASH if need.seconds is None else clock(need.seconds),
        )
        for need in needs
    ]
    return Table(("Training", "Runs done", "Measured", "A run"), tuple(rows))


def write_reproduced(result: Result, out: Path) -> Path:
    """Write ``<table>.json``, ``.md``, ``.html`` and the figure; each file is replaced whole or not at all.

    Args:
        result: what the table came to.
        out: where; made if it is missing.

    Returns:
        The path of the HTML.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / f"{result.table}.json", to_json(result.to_dict()))
    table, figures = reproduced_table(result), figures_of(result)
    context = {
        "title": title_of(result),
        "name": result.table,
        "said": result.said,
        "table": table,
        "protocol": (*result.protocol, *_reference(result)),
        "figures_": figures,
        "position": {},
    }
    return write_pages("paper", out, figures, context, methods=(), former=(f"{result.table}-*",), file=result.table)


def title_of(result: Result) -> str:
    """Return the heading, such as ``Table 1: Accuracy of ...``."""
    name = result.table.rstrip("0123456789")
    return f"{name.capitalize()} {result.table[len(name) :]}: {result.title}"


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
    if not numbers:
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


def _column(line: Line) -> Column:
    return Column("", "", digits=line.digits)


def _printed(line: Line) -> str:
    if line.printed is None:
        return DASH
    return f"{line.printed}" + (f" {line.unit}" if line.unit else "")


def _difference(line: Line) -> str:
    return DASH if line.difference is None else _column(line).number(line.difference, signed=True)


def _reference(result: Result) -> list[str]:
    printed = any(line.printed is not None for line in result.lines)
    return [_REFERENCE] if printed and not result.compared else []


def _several(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def _count(number: int | None) -> str:
    return DASH if number is None else f"{number:,}"


def _listed(rows: Sequence[str]) -> str:
    return ", ".join(rows) if len(rows) < 4 else f"{rows[0]}, {rows[1]} and {len(rows) - 2} more"
