"""The page of a reproduced table: JSON, Markdown and HTML, with its figure and the runs that it is made of."""

from __future__ import annotations

from pathlib import Path

from selfdistill.paper.anchors_page import anchors_table, deviations
from selfdistill.paper.cells import facts, regime_table, regime_words, title_of, wide_table
from selfdistill.paper.figures import figures_of
from selfdistill.paper.results import Result
from selfdistill.records import write_atomically
from selfdistill.records.record import to_json
from selfdistill.report.pages import write_pages
from selfdistill.report.tables import DASH, Table


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
