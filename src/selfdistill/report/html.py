"""`write_report` of records, and `write_evaluation_report` of one network that is no run of ours.

Each writes one HTML file that stands alone, and the same in Markdown with its figures beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfdistill.files import make_folder
from selfdistill.records import (
    EnsembleRecord,
    Evaluation,
    LinearProbeRecord,
    RunRecord,
    Summary,
    summarise,
    write_atomically,
)
from selfdistill.records.record import to_json
from selfdistill.records.search import SearchRecord
from selfdistill.report import words
from selfdistill.report.decision import next_step
from selfdistill.report.figures import curve_panels, difference_panels, seed_panels
from selfdistill.report.measured import Measured, by_method, measured
from selfdistill.report.measures import FIGURES, sections
from selfdistill.report.measures.calibration import (
    FEW,
    calibration_notes,
    calibration_sheet,
    reliability_panels,
    scaling_findings,
)
from selfdistill.report.measures.classes import classes_section
from selfdistill.report.measures.ood import who_tells_apart
from selfdistill.report.measures.search import search_section
from selfdistill.report.measures.selective import promises_section
from selfdistill.report.pages import Figure, write_pages
from selfdistill.report.predictions import NOT_KEPT, ensembles, kept_predictions, kept_promises
from selfdistill.report.style import PALETTE
from selfdistill.report.tables import Table, column_of, columns_in, difference_table, digest, metric_table
from selfdistill.report.verdict import Finding, Verdict, confidence_of, confident, verdict

_INDEX = 1  # of a single network's colour: grey is a baseline's, and there is none


def write_report(
    records: Sequence[RunRecord],
    out_dir: Path,
    *,
    title: str,
    preface: str | None = None,
    failed: Mapping[str, str] | None = None,
    probe: LinearProbeRecord | None = None,
    folders: Sequence[Path] = (),
    search: SearchRecord | None = None,
) -> Path:
    """Write `report.html`, `report.md` and `figures/*.svg` for runs that may be compared.

    Of runs that keep their predictions it shows confusions and pictures, and what a method's seeds reach together,
    which `ensembles.json` holds.

    The same records give the same bytes. Each file is replaced whole or not at all; the HTML, which needs none of the
    others, comes last.

    Args:
        records: finished runs; the first one's method is the baseline. One run is enough.
        out_dir: where; made if it is missing.
        title: of the page; plain text.
        preface: a paragraph before the verdict; plain text.
        failed: why further runs failed, by name.
        probe: a linear probe of the same images, shown beside the methods.
        folders: where the runs are: for the next command and their predictions; none: the page has neither.
        search: the search by which the methods' settings were chosen; each may then have its own rates.

    Returns:
        The path of `report.html`.

    Raises:
        ValueError: no record, or records that may not be compared.
        OSError: the folder cannot be written.
    """
    summary = summarise(records, tuned=search is not None)
    runs, methods = by_method(records), measured(records)
    said = verdict(summary)
    kept = kept_predictions(runs, folders)
    together = ensembles(kept)
    context = _context(records, summary, methods, said) | {
        "title": title,
        "preface": preface,
        "failed": failed,
        "next_step": next_step(said.decision, summary, records, folders, best=best_network(out_dir, search)),
        "quality": metric_table(summary, probe=probe, ensembles=together),
        "classes": classes_section(kept, said.decision.network(summary.methods[0])),
    }
    promises = promises_section(kept_promises(runs, folders))
    first = (None if search is None else search_section(search), promises)
    context["sections"] = (*(section for section in first if section), *context["sections"])
    if folders and len(kept) < len(methods):
        context["protocol"].append(NOT_KEPT)
    _keep(together, make_folder(Path(out_dir)) / "ensembles.json")
    former = ("differences", "seeds", "curves")
    return _write("report", out_dir, _figures(runs, summary, methods), context, methods=summary.methods, former=former)


def best_network(out: Path, search: SearchRecord | None) -> Path | None:
    """The network to use that a search leaves in its folder."""
    return None if search is None else Path(out) / "best"


def _keep(ensembles: Sequence[EnsembleRecord], path: Path) -> None:
    """Write the record of the ensembles, whole or not at all; none of an earlier report stays."""
    if ensembles:
        write_atomically(path, to_json({one.method: one for one in ensembles}))
    else:
        path.unlink(missing_ok=True)


def _figures(
    groups: Sequence[Measured[RunRecord]], summary: Summary, methods: Sequence[Measured[Evaluation]]
) -> list[Figure]:
    """The figures that stand outside the measures' sections."""
    several = sum(len(group.by_seed) for group in groups) > 1
    figures = [
        Figure("differences", "Paired differences", difference_panels(summary) if len(groups) > 1 else [], 3),
        Figure("seeds", "Every seed", seed_panels(groups) if several else [], 3),
        Figure("reliability", "Reliability diagrams", reliability_panels(methods), 2 if len(groups) == 4 else 3),
        Figure("curves", "Training curves", curve_panels(groups), 2, legend=True),
    ]
    return [figure for figure in figures if figure.panels]


def _context(
    records: Sequence[RunRecord], summary: Summary, methods: Sequence[Measured[Evaluation]], said: Verdict
) -> dict[str, Any]:
    compared = len(methods) > 1
    return _sections(methods) | {
        "verdict": said,
        "remarks": (*said.remarks, *who_tells_apart(methods, blind=True)),
        "evidence": words.evidence(records, summary, said.decision.method),
        "what_was_run": words.what_was_run(records),
        "cards": [_card(summary, finding) for finding in said.findings],
        "cost": metric_table(summary, columns_in("training")),
        "differences": difference_table(summary) if compared else None,
        "runs": words.run_table(records),
        "recipe": words.recipe_yaml(records),
        "versions": words.versions(records),
        "spread": words.spread(summary),
        "protocol": [*words.protocol(records, compared=compared), *words.incomparable_metrics(summary)],
        "position": {method: i % len(PALETTE) for i, method in enumerate(summary.methods)},
        "baseline": summary.methods[0],
    }


def _card(summary: Summary, finding: Finding) -> dict[str, Any]:
    """A method at a glance: accuracy, its difference, ECE, which way the confidence errs, and a badge for each side."""
    top1, ece = column_of("top1"), column_of("ece")
    difference = summary.differences.get((finding.method, "top1"))
    mean = None if difference is None else difference.mean
    return {
        "method": finding.method,
        "top1": top1.cell(summary.statistics[finding.method, "top1"]),
        "ece": ece.cell(summary.statistics[finding.method, "ece"]),
        "confident": confidence_of(summary, finding.method),
        "change": None if mean is None else f"{top1.number(mean, signed=True)} points",
        "lines": [line for line in finding.lines if line.judged],
    }


def write_evaluation_report(
    label: str,
    evaluation: Evaluation,
    out_dir: Path,
    *,
    title: str,
    preface: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write `evaluation.html`, `evaluation.md` and `figures/*.svg` for one network, as `write_report` does for runs.

    Args:
        facts: what is said of the network, the images and the machine: what, and its value.
    """
    network = (Measured(label, _INDEX, {0: evaluation}),)
    context = _sections(network) | {
        "title": title,
        "preface": preface,
        "label": label,
        "headline": _headline(label, evaluation),
        "digest": digest(evaluation),
        "facts": Table(("What", "Value"), tuple(facts)),
        "protocol": _protocol(evaluation),
        "position": {label: _INDEX},
    }
    figures = [Figure("reliability", "Reliability diagram", reliability_panels(network), 1)]
    return _write("evaluation", out_dir, figures, context, methods=(label,), former=())


def _sections(methods: Sequence[Measured[Evaluation]]) -> dict[str, Any]:
    """What both pages say of calibration and of each measure beyond accuracy."""
    return {
        "calibration": calibration_sheet(methods),
        "calibration_findings": scaling_findings(methods),
        "calibration_notes": calibration_notes(methods),
        "sections": sections(methods),
    }


def _write(
    name: str,
    out: Path,
    figures: Sequence[Figure],
    context: dict[str, Any],
    *,
    methods: Sequence[str],
    former: Sequence[str],
) -> Path:
    shown = [context.get("classes"), *context["sections"]]
    of_sections = [figure for section in shown if section is not None for figure in section.figures]
    return write_pages(name, Path(out), [*figures, *of_sections], context, methods=methods, former=(*former, *FIGURES))


def _headline(label: str, evaluation: Evaluation) -> str:
    top1 = f"{evaluation.top1:.2%}".replace("%", " %")
    return f"{label} is right on {top1} of {evaluation.n:,} test images and {confident(evaluation.gap)}."


def _protocol(evaluation: Evaluation) -> list[str]:
    """How the numbers were made, and what could not be measured."""
    notes = [
        f"One network and {evaluation.n:,} test images: one accuracy is known to about "
        f"{words.standard_error(evaluation)}. How far another training of the same network would come out, one network "
        "cannot tell.",
        f"{words.ece_protocol(evaluation)} In the diagram a bin of fewer than {FEW} images is pale.",
    ]
    return notes + [f"Not measured: {line}" for line in evaluation.omitted]
