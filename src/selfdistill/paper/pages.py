"""The page of a reproduced table as Markdown, HTML and JSON, and the same on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfdistill.paper.classification_tables import NOT_EACH_EPOCH, OTHER_RUNS
from selfdistill.paper.figures import result_figures
from selfdistill.paper.results import MAX_TRAIN_CE, MIN_GAP, MIN_TRAIN_TOP1, TableCell, TableResult
from selfdistill.records import write_atomically
from selfdistill.records.record import to_json
from selfdistill.report.pages import write_pages
from selfdistill.report.tables import DASH, Column, Table
from selfdistill.text import join_names

_REFERENCE = "The printed numbers are of the full protocol: here they are for reference, and no difference is taken."

_REGIME = (
    f"cross-entropy fits its training images (top-1 above {MIN_TRAIN_TOP1:.0%}) and is over-confident (gap above "
    f"{MIN_GAP:+.1f}), and SD-Dropout's training CE is below {MAX_TRAIN_CE}"
).replace("%", " %")

_BANDS = (
    "Inside means: within the published range of seeds widened by its own width on either side; within 3 sd of the "
    "published mean, by their sd or ours, whichever is larger; or within 15 % of a single published number."
)
_NO_BANDS = "The published numbers are of the full protocol and say nothing about this scale: ours stand alone."

_REASONS_IN_CELLS = ("no data", NOT_EACH_EPOCH)

_TINY = 1e-4  # below this a number is written as a power of ten


def write_page(result: TableResult, out: Path) -> Path:
    """Write ``<table>.json``, ``.md``, ``.html`` and the figure; each file is replaced whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / f"{result.table}.json", to_json(_with_statistics(result)))
    figures = result_figures(result)
    context = {
        "title": table_title(result),
        "name": result.table,
        "facts": describe_result(result),
        "printed": any(cell.printed is not None for cell in result.cells),
        "compared": result.is_full_scale,
        "deviations": describe_deviations(result),
        "table": anchors_table(result) if result.has_log_targets else wide_table(result),
        "regime": describe_regime(result),
        "regimes": regime_table(result),
        "protocol": result.protocol,
        "runs": _runs_table(result),
        "figures_": figures,
        "position": {},
    }
    return write_pages("paper", out, figures, context, methods=(), former=(f"{result.table}-*",), file=result.table)


def _with_statistics(result: TableResult) -> dict[str, Any]:
    """Return a result with the statistics of its cells; differences, bands and sides at the full scale alone."""
    plain: dict[str, Any] = msgspec.to_builtins(result)
    for cell, values in zip(result.cells, plain["cells"], strict=True):
        found, is_full = cell.statistic, result.is_full_scale
        values["mean"], values["sd"], values["n"] = (found.mean, found.sd, found.n) if found else (None, None, 0)
        values["difference"] = cell.difference if is_full else None
        if cell.log_target is not None:
            values["band"], values["side"] = (cell.band, cell.side) if is_full else (None, None)
    return plain


def terminal_text(result: TableResult, table: Table) -> str:
    """Return what is printed below a table on a terminal: deviations, conditions, protocol, and what is missing."""
    missing = (f"Missing: {note}" for note in table.notes)
    return "\n".join([*describe_deviations(result), describe_result(result), *result.protocol, *missing])


def narrow_table(result: TableResult) -> Table:
    """Return a row per cell, for a terminal: our number, its seeds, the printed number, and the difference from it.

    The difference is shown at the full scale; anchors have the band and the verdict instead.
    """
    if result.has_log_targets:
        return anchors_table(result, published=False)
    headings = ["Row", "Column", "Ours", "Seeds", "Printed" if result.is_full_scale else "Printed, full"]
    rows = []
    for cell in result.cells:
        seeds = DASH if cell.epochs is None else f"{len(cell.values)} of {cell.expected_n}"
        printed = DASH if cell.printed is None else f"{cell.printed}{_unit(cell)}"
        difference = [_format_difference(cell)] if result.is_full_scale else []
        rows.append((cell.row, cell.column, format_value(cell), seeds, printed, *difference))
    more = ["Difference"] if result.is_full_scale else []
    return Table((*headings, *more), tuple(rows), tuple(missing_notes(result.cells)))


def wide_table(result: TableResult) -> Table:
    """Return the table in the paper's own shape: our number, its sd over seeds, and the printed number in brackets.

    At the full scale the difference stands beside the printed number; below it rows without a number are left out. A
    cell with fewer seeds than the others says so, and rows name their number of images if it differs between rows.
    """
    with_number = [cell for cell in result.cells if cell.values]
    rows = dict.fromkeys(cell.row for cell in result.cells)
    if not result.is_full_scale:
        rows = {row: None for row in rows if any(cell.row == row for cell in with_number)}
    cells = {(cell.row, cell.column): cell for cell in result.cells if cell.row in rows}
    columns = dict.fromkeys(column for _, column in cells)
    units = {column: {cell.unit for cell in cells.values() if cell.column == column} for column in columns}
    max_n = max((len(cell.values) for cell in with_number), default=0)
    images = {row: _join_numbers(cell.images for cell in with_number if cell.row == row) for row in rows}
    images_differ = len(set(images.values())) > 1

    def text(row: str, column: str) -> str:
        if (row, column) not in cells:
            return ""
        return _format_cell(cells[row, column], result, max_n, with_unit=len(units[column]) > 1)

    texts = [
        (row, *(text(row, column) for column in columns), *([images[row] or DASH] if images_differ else []))
        for row in rows
    ]
    headings = [f"{column} (%)" if units[column] == {"%"} else column for column in columns]
    more = ("Images",) if images_differ else ()
    return Table(("", *headings, *more), tuple(texts), tuple(missing_notes(result.cells)))


def anchors_table(result: TableResult, *, published: bool = True) -> Table:
    """Return a row per number: ours, and at the full scale the logs' number, its band and the verdict.

    Args:
        published: whether to show the logs' number; a terminal is too narrow for it.
    """
    rows = []
    for cell in result.cells:
        if cell.column == OTHER_RUNS and not result.is_full_scale:
            continue
        fewer = f", n = {len(cell.values)}" if 0 < len(cell.values) < cell.expected_n else ""
        row = {"": cell.name, "Ours": format_value(cell) + fewer}
        if result.is_full_scale:
            row |= {"Published": _format_published(cell)} if published else {}
            row |= {"Band": _format_band(cell), "Verdict": cell.side or DASH}
        rows.append(row)
    return Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows), tuple(missing_notes(result.cells)))


def describe_result(result: TableResult) -> str:
    """Say in a line what the numbers are of; below the full scale it says that this is not a reproduction."""
    cells = [cell for cell in result.cells if cell.epochs is not None]
    if not cells:
        return "No network is needed."
    words = [
        f"Scale {result.description}.",
        f"{_join_numbers(cell.epochs for cell in cells)} epochs, the last one scored.",
    ]
    if images := _join_numbers(cell.images for cell in result.cells):
        words.append(f"On {images} images.")
    seeds_of_cells = [set(cell.values) for cell in cells if cell.values]
    seeds = sorted(set().union(*seeds_of_cells))
    if len(seeds) == 1:
        words.append(f"Seed {seeds[0]}.")
    elif seeds:
        fewer = " as far as they were run" if min(map(len, seeds_of_cells)) < len(seeds) else ""
        words.append(f"Mean ± sd of the seeds {join_names(map(str, seeds))}{fewer}.")
    if result.has_log_targets:
        words.append(_BANDS if result.is_full_scale else _NO_BANDS)
    elif not result.is_full_scale and any(cell.printed is not None for cell in result.cells):
        words.append(_REFERENCE)
    return " ".join(words)


def describe_deviations(result: TableResult) -> list[str]:
    """Return how many numbers are outside the bands of the logs, and each of them; nothing below the full scale."""
    found = [cell for cell in result.cells if cell.side is not None] if result.is_full_scale else []
    if not found:
        return []
    outside = [cell for cell in found if cell.side != "inside"]
    measured = "the one number" if len(found) == 1 else f"the {len(found)} numbers"
    verb = f"deviate{'s' if len(outside) < 2 else ''}"
    head = f"{len(outside) or 'None'} of {measured} measured here {verb} from the logs."
    return [head, *(f"{one.name}: {format_value(one)}, {one.side} {_format_band(one)}" for one in outside)]


def describe_regime(result: TableResult) -> str:
    """Say whether the networks are in the paper's regime.

    Empty if no network is needed, at the scale "smoke", and for the anchors: the logs say how their networks fit.
    """
    if result.scale == "smoke" or result.has_log_targets or all(cell.epochs is None for cell in result.cells):
        return ""
    if not result.regimes:
        return "Whether this is the paper's regime is not known: cross-entropy and SD-Dropout are not both trained yet."
    outside = [regime.networks for regime in result.regimes if not regime.is_papers]
    if outside:
        where = f"{join_names(outside)}: not in the paper's regime, in which {_REGIME}"
        return f"Cannot be tested here: {where}. No verdict is drawn."
    return f"In the paper's regime: {_REGIME}."


def regime_table(result: TableResult) -> Table:
    """Return two rows per dataset and network, cross-entropy and SD-Dropout: how they fit."""
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


def missing_notes(cells: Sequence[TableCell]) -> list[str]:
    """Return why numbers are missing, each reason once, with the rows that miss it."""
    notes = []
    for reason in dict.fromkeys(cell.missing_reason for cell in cells if cell.missing_reason):
        rows = list(dict.fromkeys(cell.row for cell in cells if cell.missing_reason == reason))
        named = rows if len(rows) < 4 else [f"{rows[0]}, {rows[1]} and {len(rows) - 2} more"]
        notes.append(f"{', '.join(named)}: {reason}")
    return notes


def table_title(result: TableResult) -> str:
    """Return the heading, such as ``Table 1: Accuracy of ...``."""
    name = result.table.rstrip("0123456789")
    number = result.table[len(name) :]
    return f"{' '.join(filter(None, (name.capitalize(), number)))}: {result.title}"


def format_value(cell: TableCell, *, with_unit: bool = True) -> str:
    """Return our mean and sd, such as ``76.81 ± 0.35 %``; or in a word why there is none."""
    found = cell.statistic
    if found is None:
        return next((reason for reason in _REASONS_IN_CELLS if cell.missing_reason.startswith(reason)), DASH)
    unit = _unit(cell) if with_unit else ""
    if found.mean and abs(found.mean) < _TINY:
        return f"{found.mean:.1e}{unit}"
    return f"{Column('', '', digits=cell.digits).cell(found)}{unit}"


def _runs_table(result: TableResult) -> Table:
    """Return a row per run: its recipe's hash, and with which commits, when and where it was trained and evaluated."""

    def short(commit: str | None) -> str:
        return (commit or DASH)[:9]

    rows = [
        (
            run.name,
            run.recipe_hash,
            short(run.commit),
            ", ".join(map(short, run.measured_with)) or DASH,
            run.date[:10],
            run.device,
        )
        for run in result.runs
    ]
    return Table(("Run", "Recipe", "Trained with commit", "Measured with", "Date", "Device"), tuple(rows))


def _format_cell(cell: TableCell, result: TableResult, max_n: int, *, with_unit: bool) -> str:
    has_seeds = cell.epochs is not None  # without a network there is one number
    fewer = f", n = {len(cell.values)}" if has_seeds and 0 < len(cell.values) < max_n else ""
    beside = "" if cell.printed is None else f" [{cell.printed}]"
    if cell.difference is not None and result.is_full_scale:
        beside = f" [{cell.printed}; {_format_difference(cell)}]"
    return f"{format_value(cell, with_unit=with_unit)}{fewer}{beside}"


def _format_difference(cell: TableCell) -> str:
    column = Column("", "", digits=cell.digits)
    return DASH if cell.difference is None else column.number(cell.difference, signed=True)


def _format_published(cell: TableCell) -> str:
    if cell.log_target is None:
        return DASH
    between = " ± " if cell.log_target.kind == "sd" else " to "
    return between.join(f"{number:g}" for number in cell.log_target.numbers) + _unit(cell)


def _format_band(cell: TableCell) -> str:
    if cell.band is None:
        return DASH
    return " to ".join(f"{end:.{cell.digits}f}" for end in cell.band) + _unit(cell)


def _unit(cell: TableCell) -> str:
    return f" {cell.unit}" if cell.unit else ""


def _join_numbers(numbers: Iterable[int | None]) -> str:
    """Return the different numbers as words, such as ``32 or 1,000``; empty if there are none."""
    return " or ".join(f"{number:,}" for number in sorted({number for number in numbers if number is not None}))
