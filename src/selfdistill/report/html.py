"""`write_report`: records in, one HTML file that stands alone and the same in Markdown with its figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selfdistill.records import RunRecord, Summary, summarise, write_atomically
from selfdistill.report import words
from selfdistill.report.figures import (
    Group,
    curve_panels,
    difference_panels,
    grouped,
    reliability_panels,
    seed_panels,
)
from selfdistill.report.style import PALETTE, Panel, grid_svg, panel_svg, themed
from selfdistill.report.tables import (
    COST,
    QUALITY,
    difference_table,
    escape_markdown,
    markdown,
    metric_table,
)
from selfdistill.report.verdict import confidence_of, side, verdict


def write_report(records: Sequence[RunRecord], out_dir: Path, *, title: str, preface: str | None = None) -> Path:
    """Write `report.html`, `report.md` and `figures/*.svg` for runs that may be compared.

    The same records give the same bytes. Each file is replaced whole or not at all; the HTML, which needs none of the
    others, comes last.

    Args:
        records: finished runs; the first one's method is the baseline. One run is enough.
        out_dir: where; made if it is missing.
        title: of the page; plain text.
        preface: a paragraph before the verdict; plain text.

    Returns:
        The path of `report.html`.

    Raises:
        ValueError: no record, or records that may not be compared.
        OSError: the folder cannot be written.
    """
    summary = summarise(records)
    groups = grouped(records)
    figures = _figures(groups, summary)
    context = _context(records, summary, groups) | {"title": title, "preface": preface}
    out = Path(out_dir)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    inline = {}
    for name, (panels, columns) in figures.items():
        path = folder / f"{name}.svg"
        if not panels:  # left from an earlier report of more runs
            path.unlink(missing_ok=True)
            continue
        svgs = [panel_svg(panel) for panel in panels]
        legend = summary.methods if name == "curves" else ()  # the others name each method where it stands
        write_atomically(path, grid_svg(panels, svgs, columns=columns, legend=legend))
        inline[name] = [(panel.alt, Markup(themed(svg))) for panel, svg in zip(panels, svgs, strict=True)]
    pages = _environment()
    text = pages.get_template("report.md.j2").render(context, figures=inline)
    write_atomically(out / "report.md", text.encode())
    page = pages.get_template("report.html.j2").render(context, figures=inline, palette=PALETTE)
    write_atomically(out / "report.html", page.encode())
    return out / "report.html"


def _figures(groups: Sequence[Group], summary: Summary) -> dict[str, tuple[list[Panel], int]]:
    """Panels by figure, and how many stand side by side in a file."""
    several = sum(len(group.runs) for group in groups) > 1
    return {
        "differences": (difference_panels(summary) if len(groups) > 1 else [], 2),
        "seeds": (seed_panels(groups) if several else [], 3),
        "reliability": (reliability_panels(groups), 2 if len(groups) == 4 else 3),
        "curves": (curve_panels(groups), 2),
    }


def _context(records: Sequence[RunRecord], summary: Summary, groups: Sequence[Group]) -> dict[str, Any]:
    compared = len(groups) > 1
    return {
        "verdict": verdict(summary),
        "what_was_run": words.what_was_run(records),
        "cards": [_card(summary, method) for method in summary.methods],
        "quality": metric_table(summary, QUALITY),
        "cost": metric_table(summary, COST),
        "differences": difference_table(summary) if compared else None,
        "runs": words.run_table(records),
        "recipe": words.recipe_yaml(records),
        "versions": words.versions(records),
        "spread": words.spread(summary),
        "protocol": words.protocol(records, compared=compared),
        "position": {method: i % len(PALETTE) for i, method in enumerate(summary.methods)},
        "baseline": summary.methods[0],
    }


def _card(summary: Summary, method: str) -> dict[str, Any]:
    """A method at a glance: accuracy, its difference, ECE and which way the confidence errs."""
    top1, _, _, _, ece, _ = QUALITY
    gap = summary.statistics[method, "gap"].mean
    difference = summary.differences.get((method, "top1"))
    mean = None if difference is None else difference.mean
    return {
        "method": method,
        "top1": top1.cell(summary.statistics[method, "top1"]),
        "ece": ece.cell(summary.statistics[method, "ece"]),
        "confident": confidence_of(summary, method),
        "side": side(gap),
        "change": None if mean is None else f"{top1.number(mean, signed=True)} points",
        "verdict": None if difference is None else difference.verdict,
        "effect": None if difference is None else difference.effect,
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("selfdistill.report", "templates"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["md_table"] = markdown
    return environment
