"""What the paper's tables came to at each scale, for the page of all tables and for the front page."""

from collections.abc import Mapping, Sequence

import every_method
from findings import FINDINGS, count_pairs, other_findings
from linked import linked_table

import paper
from selfdistill.paper import PaperConfig, TableResult
from selfdistill.paper.pages import describe_regime, regime_table, table_title
from selfdistill.records import paired, statistic_of
from selfdistill.report.tables import markdown

UNTESTED = "cannot be tested here"

_NOTHING = "Nothing is measured at this scale yet."


def section(config: PaperConfig, results: Sequence[TableResult]) -> str:
    """Return what a scale came to: how its networks fit, the pairs of Table 1, and the paper's findings."""
    records = paper.table1_records(config)
    if not records:
        return _NOTHING
    table1 = next(result for result in results if result.table == "table1")
    parts = [
        describe_regime(table1),
        markdown(regime_table(table1)),
        every_method.pairs_table(records),
        every_method.findings(records),
        "Which of the paper's findings are seen:",
        findings_table(results),
        other_findings(results),
        paper.describe_seconds(config),
    ]
    return "\n\n".join(part for part in parts if part)


def findings_table(results: Sequence[TableResult]) -> str:
    """One row per finding: in how many pairs of cells it is seen.

    Outside the paper's regime there is no verdict: the row says that the finding cannot be tested here.
    """
    by_name = {result.table: result for result in results}
    rows = []
    for finding in FINDINGS:
        result = by_name[finding.table]
        counts = count_pairs(finding, result)
        if counts is None:
            continue
        verdict = [str(number) for number in (counts.seen, counts.opposite, counts.undecided)]
        rows.append(
            (
                finding.statement,
                f"[{table_title(result).partition(':')[0]}]({result.scale}/{finding.table}.md)",
                str(counts.pairs),
                *(verdict if result.in_papers_regime else [UNTESTED, "", ""]),
                counts.differences,
            )
        )
    headings = ("The paper finds", "Measured in", "Pairs", "Seen", "The opposite", "Undecided", "Mean differences")
    return linked_table(headings, rows, words=2)


def front_page(reproduced: Mapping[str, Sequence[TableResult]]) -> str:
    """Say in a sentence or two what has been reproduced at the paper's own scale, and what in miniature."""
    sentences = [_own_scale(reproduced.get("full", ()))]
    sentences += [_miniature(scale, reproduced[scale]) for scale in ("small", "medium") if scale in reproduced]
    return " ".join(sentences)


def _own_scale(results: Sequence[TableResult]) -> str:
    trained = sorted({run.name for result in results for run in result.runs})
    if not trained:
        return "At the paper's own scale nothing has been reproduced here yet: that wants a GPU."
    tables = [result.table for result in results if any(cell.values and cell.epochs for cell in result.cells)]
    return f"At the paper's own scale {len(trained)} runs have been reproduced, in {', '.join(tables)}."


def _miniature(scale: str, results: Sequence[TableResult]) -> str:
    table1 = next(result for result in results if result.table == "table1")
    cells = [cell for cell in table1.cells if cell.row == "CIFAR-100: Cross-entropy" and cell.values]
    if len(cells) != 2 or not table1.regimes:
        return ""
    (base, distilled), fit = cells, table1.regimes[0]
    difference, interval = paired(distilled.values, base.values)
    means = [statistic_of(cell.values.values()) for cell in (base, distilled)]
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
