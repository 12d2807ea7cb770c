"""`write_evaluation_report`: what was measured of one network that is not a run of ours, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfdistill.records.metrics import Values
from selfdistill.report.digest import digest
from selfdistill.report.measured import Measured
from selfdistill.report.measures import FIGURES, sections
from selfdistill.report.measures.calibration import calibration_notes, calibration_sheet, scaling_findings
from selfdistill.report.measures.reliability import FEW, reliability_panels
from selfdistill.report.pages import write_pages
from selfdistill.report.section import Figure
from selfdistill.report.tables import Table
from selfdistill.report.verdict import confident

_INDEX = 1  # of its colour: grey is a baseline's, and there is none


def write_evaluation_report(
    label: str,
    evaluation: Values,
    out_dir: Path,
    *,
    title: str,
    preface: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write `evaluation.html`, `evaluation.md` and `figures/*.svg` for one network.

    The same numbers give the same bytes. Each file is replaced whole or not at all; the HTML, which needs none of the
    others, comes last.

    Args:
        label: what the network is called.
        evaluation: an `Evaluation` as a dict.
        out_dir: where; made if it is missing.
        title: of the page; plain text.
        preface: a paragraph before the numbers; plain text.
        facts: what is said of the network, the images and the machine: what, and its value.

    Returns:
        The path of `evaluation.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    network = (Measured(label, _INDEX, {0: evaluation}),)
    found = sections(network)
    reliability = Figure("reliability", "Reliability diagram", reliability_panels(network), 1)
    context = {
        "title": title,
        "preface": preface,
        "label": label,
        "headline": _headline(label, evaluation),
        "digest": digest(evaluation),
        "facts": Table(("What", "Value"), tuple(facts)),
        "calibration": calibration_sheet(network),
        "calibration_findings": scaling_findings(network),
        "calibration_notes": calibration_notes(network),
        "sections": found,
        "protocol": _protocol(evaluation),
        "position": {label: _INDEX},
    }
    return write_pages(
        "evaluation",
        Path(out_dir),
        [reliability, *(figure for section in found for figure in section.figures)],
        context,
        methods=(label,),
        former=FIGURES,
    )


def _headline(label: str, evaluation: Values) -> str:
    top1, n = evaluation["top1"], evaluation["n"]
    return (
        f"{label} is right on {top1:.2%}".replace("%", " %")
        + f" of {n:,} test images and {confident(evaluation['gap'])}."
    )


def _protocol(evaluation: Values) -> list[str]:
    """How the numbers were made, and what could not be measured."""
    n, top1 = evaluation["n"], evaluation["top1"]
    error = 100 * (top1 * (1 - top1) / n) ** 0.5
    notes = [
        f"One network and {n:,} test images: one accuracy is known to about ±{error:.1f} points (one standard error). "
        "How far another training of the same network would come out, one network cannot tell.",
        f"ECE: Eq. 12 of the paper with {evaluation['bins']} equal-width bins on the largest softmax probability at "
        "temperature 1, a fraction. It has no sign, so the gap (mean confidence minus accuracy) stands beside it. In "
        f"the diagram a bin of fewer than {FEW} images is pale.",
    ]
    return notes + [f"Not measured: {line}" for line in evaluation.get("omitted") or ()]
