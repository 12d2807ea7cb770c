"""What the paper's tables came to at each scale, for the page of all tables and for the front page."""

from collections.abc import Mapping, Sequence

import every_method
import paper_findings

import paper
from selfdistill.paper import Result, Setting
from selfdistill.paper.pages import regime_table, regime_words
from selfdistill.records import paired, statistic_of
from selfdistill.report.tables import markdown

_NOTHING = "Nothing is measured at this scale yet."


def section(setting: Setting, results: Sequence[Result]) -> str:
    """Return what a scale came to: how its networks fit, the pairs of Table 1, and the paper's findings."""
    records = paper.table1_records(setting)
    if not records:
        return _NOTHING
    table1 = next(result for result in results if result.table == "table1")
    parts = [
        regime_words(table1),
        markdown(regime_table(table1)),
        every_method.pairs_table(records),
        every_method.findings(records),
        "Which of the paper's findings are seen:",
        paper_findings.findings_table(results),
        paper_findings.other_findings(results),
        paper.seconds_said(setting),
    ]
    return "\n\n".join(part for part in parts if part)


def front_page(reproduced: Mapping[str, Sequence[Result]]) -> str:
    """Say in a sentence or two what has been reproduced at the paper's own scale, and what in miniature."""
    said = [_own_scale(reproduced.get("full", ()))]
    said += [_miniature(scale, reproduced[scale]) for scale in ("small", "medium") if scale in reproduced]
    return " ".join(said)


def _own_scale(results: Sequence[Result]) -> str:
    trained = sorted({run["name"] for result in results for run in result.runs})
    if not trained:
        return "At the paper's own scale nothing has been reproduced here yet: that wants a GPU."
    tables = [result.table for result in results if any(line.values and line.epochs for line in result.lines)]
    return f"At the paper's own scale {len(trained)} runs have been reproduced, in {', '.join(tables)}."


def _miniature(scale: str, results: Sequence[Result]) -> str:
    table1 = next(result for result in results if result.table == "table1")
    lines = [line for line in table1.lines if line.row == "CIFAR-100: Cross-entropy" and line.values]
    if len(lines) != 2 or not table1.regimes:
        return ""
    (base, distilled), fit = lines, table1.regimes[0]
    difference, interval = paired(distilled.values, base.values)
    means = [statistic_of(line.values.values()) for line in (base, distilled)]
    assert difference is not None
    assert all(mean is not None for mean in means)
    before, after = (f"{mean.mean:.1f} %" for mean in means if mean is not None)
    within = "" if interval is None else f", 95 % interval {interval[0]:+.1f} to {interval[1]:+.1f}"
    seeds = f"{difference.n} seed{'s' if difference.n > 1 else ''}"
    return (
        f"In miniature (`--scale {scale}`: {fit.steps:,} optimiser steps; training accuracy "
        f"{100 * fit.cross_entropy.train_top1:.1f} % and {100 * fit.sd_dropout.train_top1:.1f} %) cross-entropy's "
        f"{before} becomes {after} with SD-Dropout ({difference.mean:+.1f} points{within}, {seeds})."
    )
