"""`write_report`: records in, one HTML file that stands alone and the same in Markdown with its figures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfdistill.records import RunRecord, Summary, summarise
from selfdistill.report import words
from selfdistill.report.figures import Group, curve_panels, difference_panels, grouped, seed_panels
from selfdistill.report.measured import Measured, measured
from selfdistill.report.measures import FIGURES, sections
from selfdistill.report.measures.calibration import calibration_notes, calibration_sheet, scaling_findings
from selfdistill.report.measures.reliability import reliability_panels
from selfdistill.report.pages import write_pages
from selfdistill.report.section import Figure
from selfdistill.report.style import PALETTE
from selfdistill.report.tables import column_of, columns_in, difference_table, metric_table
from selfdistill.report.verdict import confidence_of, side, verdict


def write_report(
    records: Sequence[RunRecord],
    out_dir: Path,
    *,
    title: str,
    preface: str | None = None,
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Write `report.html`, `report.md` and `figures/*.svg` for runs that may be compared.

    The same records give the same bytes. Each file is replaced whole or not at all; the HTML, which needs none of the
    others, comes last.

    Args:
        records: finished runs; the first one's method is the baseline. One run is enough.
        out_dir: where; made if it is missing.
        title: of the page; plain text.
        preface: a paragraph before the verdict; plain text.
        failed: why further runs failed, by name.

    Returns:
        The path of `report.html`.

    Raises:
        ValueError: no record, or records that may not be compared.
        OSError: the folder cannot be written.
    """
    summary = summarise(records)
    groups, methods = grouped(records), measured(records)
    context = _context(records, summary, methods) | {"title": title, "preface": preface, "failed": failed}
    figures = _figures(groups, summary, methods)
    return write_pages(
        "report",
        Path(out_dir),
        [*figures, *(figure for section in context["sections"] for figure in section.figures)],
        context,
        methods=summary.methods,
        former=("differences", "seeds", "curves", *FIGURES),
    )


def _figures(groups: Sequence[Group], summary: Summary, methods: Sequence[Measured]) -> list[Figure]:
    """The figures that stand outside the measures' sections."""
    several = sum(len(group.runs) for group in groups) > 1
    figures = [
        Figure("differences", "Paired differences", difference_panels(summary) if len(groups) > 1 else [], 2),
        Figure("seeds", "Every seed", seed_panels(groups) if several else [], 3),
        Figure("reliability", "Reliability diagrams", reliability_panels(methods), 2 if len(groups) == 4 else 3),
        Figure("curves", "Training curves", curve_panels(groups), 2, legend=True),
    ]
    return [figure for figure in figures if figure.panels]


def _context(records: Sequence[RunRecord], summary: Summary, methods: Sequence[Measured]) -> dict[str, Any]:
    compared = len(methods) > 1
    return {
        "verdict": verdict(summary),
        "what_was_run": words.what_was_run(records),
        "cards": [_card(summary, method) for method in summary.methods],
        "quality": metric_table(summary),
        "cost": metric_table(summary, columns_in("training")),
        "differences": difference_table(summary) if compared else None,
        "calibration": calibration_sheet(methods),
        "calibration_findings": scaling_findings(methods),
        "calibration_notes": calibration_notes(methods),
        "sections": sections(methods),
        "runs": words.run_table(records),
        "recipe": words.recipe_yaml(records),
        "versions": words.versions(records),
        "spread": words.spread(summary),
        "protocol": [*words.protocol(records, compared=compared), *words.incomparable_metrics(summary)],
        "position": {method: i % len(PALETTE) for i, method in enumerate(summary.methods)},
        "baseline": summary.methods[0],
    }


def _card(summary: Summary, method: str) -> dict[str, Any]:
    """A method at a glance: accuracy, its difference, ECE and which way the confidence errs."""
    top1, ece = column_of("top1"), column_of("ece")
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
