"""The page of a reproduced table: JSON, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from selfdistill.paper.anchors import NOT_EACH_EPOCH, OTHER_RUNS
from selfdistill.paper.figures import figures_of
from selfdistill.paper.regime import LEAST_GAP, LEAST_TRAIN_TOP1, MOST_TRAIN_CE
from selfdistill.paper.results import Line, Result
from selfdistill.records import write_atomically
from selfdistill.records.record import to_json
from selfdistill.report.measured import names
from selfdistill.report.pages import write_pages
from selfdistill.report.tables import DASH, Column, Table


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
    table = anchors_table(result) if result.beside_logs else wide_table(result)
    figures = figures_of(result)
    context = {
        "title": title_of(result),
        "name": result.table,
        "facts": facts(result),
        "printed": any(line.printed is not None for line in result.lines),
        "compared": result.compared,
        "deviations": deviations(result),
        "table": table,
        "regime": regime_words(result),
        "regimes": regime_table(result),
        "protocol": result.protocol,
        "runs": runs_table(result),
        "figures_": figures,
        "position": {},
    }
    return write_pages("paper", out, figures, context, methods=(), former=(f"{result.table}-*",), file=result.table)


def runs_table(result: Result) -> Table:
    """One row a run: its recipe's hash, and with which commits, when and where it was trained and measured."""
    rows = [
        (
            run["name"],
            run["recipe_hash"],
            _short(run["commit"]),
            ", ".join(map(_short, run["measured_with"])) or DASH,
            run["date"][:10],
            run["device"],
        )
        for run in result.runs
    ]
    return Table(("Run", "Recipe", "Trained with commit", "Measured with", "Date", "Device"), tuple(rows))


def _short(commit: str | None) -> str:
    return (commit or DASH)[:9]


_REFERENCE = "The printed numbers are of the full protocol: here they are for reference, and no difference is taken."

_REGIME = (
    f"cross-entropy fits its training images (top-1 above {LEAST_TRAIN_TOP1:.0%}) and is over-confident (gap above "
    f"{LEAST_GAP:+.1f}), and SD-Dropout's training CE is below {MOST_TRAIN_CE}"
).replace("%", " %")

_BANDS = (
    "Inside means: within the published range of seeds widened by its own width on either side; within 3 sd of the "
    "published mean, by their sd or ours, whichever is larger; or within 15 % of a single published number."
)
_NO_BANDS = "The published numbers are of the full protocol and say nothing about this scale: ours stand alone."

_SAID = ("no data", NOT_EACH_EPOCH)  # in a cell that has no number for this reason

_TINY = 1e-4  # below this a number is written as a power of ten


def reproduced_table(result: Result) -> Table:
    """One row a cell, for a terminal: ours, of how many seeds, the printed number, at the full scale the difference.

    Below that scale the printed numbers are for reference alone.
    """
    printed = ("Printed", "Difference") if result.compared else ("Printed, full",)
    rows = []
    for line in result.lines:
        seeds = DASH if line.epochs is None else f"{len(line.values)} of {line.wanted}"
        cells = [line.row, line.column, ours(line), seeds, _printed(line)]
        if result.compared:
            cells.append(_difference(line))
        rows.append(tuple(cells))
    return Table(("Row", "Column", "Ours", "Seeds", *printed), tuple(rows), tuple(absences(result.lines)))


def wide_table(result: Result) -> Table:
    """The table in the paper's own shape; a cell is ours with its sd over seeds, in brackets what is printed.

    At the full scale the difference stands beside the printed number; below it rows without a number are left out. A
    cell of fewer seeds than the others says so, and a row says of how many images it is where rows differ.
    """
    there = {(line.row, line.column): line for line in result.lines}
    rows = [row for row in _names(result.lines, "row") if result.compared or _counts(row, there)]
    lines = [line for line in result.lines if line.row in rows]
    columns = _names(lines, "column")
    units = {column: {line.unit for line in lines if line.column == column} for column in columns}
    most = max((len(line.values) for line in lines), default=0)
    images = {row: _counts(row, there, images=True) for row in rows}
    differ = len(set(images.values())) > 1
    cells = [
        (
            row,
            *(_cell(there.get((row, column)), result, most, with_unit=len(units[column]) > 1) for column in columns),
            *([_several(images[row]) or DASH] if differ else []),
        )
        for row in rows
    ]
    headings = [column if units[column] == {""} or len(units[column]) > 1 else f"{column} (%)" for column in columns]
    more = ("Images",) if differ else ()
    return Table(("", *headings, *more), tuple(cells), tuple(absences(result.lines)))


def facts(result: Result) -> str:
    """Return a line on what the numbers are of.

    A scale that is no reproduction says so.
    """
    if all(line.epochs is None for line in result.lines):
        return "No network is needed."
    epochs = sorted({line.epochs for line in result.lines if line.epochs is not None})
    images = sorted({line.images for line in result.lines if line.images is not None})
    there = [list(line.values) for line in result.lines if line.epochs is not None and line.values]
    seeds = sorted({seed for seeds in there for seed in seeds})
    words = [f"Scale {result.said}.", f"{_several(epochs)} epochs, the last one scored."]
    if images:
        words.append(f"On {_several(images)} images.")
    if len(seeds) == 1:
        words.append(f"Seed {seeds[0]}.")
    elif seeds:
        fewer = " as far as they were run" if min(map(len, there)) < len(seeds) else ""
        words.append(f"Mean ± sd of the seeds {names(list(map(str, seeds)), most=len(seeds))}{fewer}.")
    return " ".join([*words, *_reference(result)])


def regime_words(result: Result) -> str:
    """Say whether the networks are in the paper's regime.

    Empty where no network is needed or none means anything, and beside the logs: they say more closely how theirs fit.
    """
    if result.scale == "smoke" or result.beside_logs or all(line.epochs is None for line in result.lines):
        return ""
    if not result.regimes:
        return "Whether this is the paper's regime is not known: cross-entropy and SD-Dropout are not both trained yet."
    outside = [regime.networks for regime in result.regimes if not regime.is_papers]
    if outside:
        return (
            f"Cannot be tested here: {names(outside, most=len(outside))}: not in the paper's regime, in which "
            f"{_REGIME}. No verdict is drawn."
        )
    return f"In the paper's regime: {_REGIME}."


def regime_table(result: Result) -> Table:
    """Two rows for each data set and network, cross-entropy and SD-Dropout: what makes the regime."""
    number = Column("", "", digits=3).number
    rows = [
        (
            f"{regime.networks}: {method}",
            f"{regime.steps:,}",
            f"{100 * fit.train_top1:.1f}",
            number(fit.train_ce),
            number(fit.gap, signed=True),
        )
        for regime in result.regimes
        for method, fit in (("CE", regime.cross_entropy), ("SD-Dropout", regime.sd_dropout))
    ]
    return Table(("Networks", "Optimiser steps", "Training top-1 (%)", "Training CE", "Gap"), tuple(rows))


def ours(line: Line, *, with_unit: bool = True) -> str:
    """Return our mean and sd, such as ``76.81 ± 0.35 %``; or in a word why there is none."""
    found = line.statistic
    if found is None:
        return next((reason for reason in _SAID if line.absent.startswith(reason)), DASH)
    unit = f" {line.unit}" if line.unit and with_unit else ""
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


def title_of(result: Result) -> str:
    """Return the heading, such as ``Table 1: Accuracy of ...``."""
    name = result.table.rstrip("0123456789")
    number = result.table[len(name) :]
    return f"{' '.join(filter(None, (name.capitalize(), number)))}: {result.title}"


def _names(lines: Sequence[Line], of: Literal["row", "column"]) -> list[str]:
    return list(dict.fromkeys(line.row if of == "row" else line.column for line in lines))


def _counts(row: str, there: Mapping[tuple[str, str], Line], *, images: bool = False) -> tuple[int, ...]:
    """The different numbers of seeds, or of images, of a row's cells that have a number."""
    lines = [line for (name, _), line in there.items() if name == row and line.values]
    counts = (line.images if images else len(line.values) for line in lines)
    return tuple(sorted({count for count in counts if count is not None}))


def _cell(line: Line | None, result: Result, most: int, *, with_unit: bool) -> str:
    if line is None:
        return ""
    of_seeds = line.epochs is not None  # where no network was needed there is but one number
    fewer = f", n = {len(line.values)}" if of_seeds and 0 < len(line.values) < most else ""
    beside = "" if line.printed is None else f" [{line.printed}]"
    if line.difference is not None and result.compared:
        beside = f" [{line.printed}; {_difference(line)}]"
    return f"{ours(line, with_unit=with_unit)}{fewer}{beside}"


def _column(line: Line) -> Column:
    return Column("", "", digits=line.digits)


def _printed(line: Line) -> str:
    if line.printed is None:
        return DASH
    return f"{line.printed}" + (f" {line.unit}" if line.unit else "")


def _difference(line: Line) -> str:
    return DASH if line.difference is None else _column(line).number(line.difference, signed=True)


def _reference(result: Result) -> list[str]:
    if result.beside_logs:
        return [_BANDS if result.compared else _NO_BANDS]
    printed = any(line.printed is not None for line in result.lines)
    return [_REFERENCE] if printed and not result.compared else []


def _several(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def _listed(rows: Sequence[str]) -> str:
    return ", ".join(rows) if len(rows) < 4 else f"{rows[0]}, {rows[1]} and {len(rows) - 2} more"


def anchors_table(result: Result, *, published: bool = True) -> Table:
    """One row a number: ours, and at the full scale the logs' number, the band and the verdict beside it.

    Args:
        result: of the anchors.
        published: whether the logs' number has a column; a terminal is too narrow for it.
    """
    rows = []
    for line in result.lines:
        if line.column == OTHER_RUNS and not result.compared:
            continue
        fewer = f", n = {len(line.values)}" if 0 < len(line.values) < line.wanted else ""
        beside = {"Published": _published(line), "Band": _band(line), "Verdict": line.side or DASH}
        rows.append({"": _name(line), "Ours": f"{ours(line)}{fewer}"} | (beside if result.compared else {}))
    headings = [heading for heading in rows[0] if published or heading != "Published"]
    cells = tuple(tuple(row[heading] for heading in headings) for row in rows)
    return Table(tuple(headings), cells, tuple(absences(result.lines)))


def deviations(result: Result) -> list[str]:
    """Return how many of the numbers are outside their bands, and each of these; nothing below the full scale."""
    found = [line for line in result.lines if line.side is not None] if result.compared else []
    if not found:
        return []
    outside = [line for line in found if line.side != "inside"]
    measured = "the one number" if len(found) == 1 else f"the {len(found)} numbers"
    head = (
        f"{len(outside) or 'None'} of {measured} measured here deviate{'s' if len(outside) < 2 else ''} from the logs."
    )
    return [head, *(f"{_name(line)}: {ours(line)}, {line.side} {_band(line)}" for line in outside)]


def _name(line: Line) -> str:
    return f"{line.row}: {line.column}"


def _published(line: Line) -> str:
    if line.logged is None:
        return DASH
    between = " ± " if line.logged.kind == "sd" else " to "
    return between.join(f"{number:g}" for number in line.logged.numbers) + _unit(line)


def _band(line: Line) -> str:
    if line.band is None:
        return DASH
    return " to ".join(f"{end:.{line.digits}f}" for end in line.band) + _unit(line)


def _unit(line: Line) -> str:
    return f" {line.unit}" if line.unit else ""
