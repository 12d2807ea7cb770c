"""What the paper's tables came to at each scale, for the page of all tables and for the front page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import every_method
import gpu_plan
from findings import FINDINGS, count_pairs, other_findings
from linked import linked_table

import paper
from selfdistill.paper import PaperConfig, TableResult
from selfdistill.paper.pages import describe_regime, regime_table, table_title
from selfdistill.records import paired, statistic_of
from selfdistill.report.tables import markdown

SIDE_BY_SIDE = 3
"""Runs at a time on the GPU, when those of docs/gpu.md were made."""

_WITH_TESTING = 1 + 10_000 / 50_000 / 3
"""The test images after each epoch go forward alone, a third of a pass."""

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
    if not any(result.runs for result in results):
        return "At the paper's own scale nothing has been reproduced here yet: that wants a GPU."
    return (
        _pair("At the paper's own scale, CIFAR-100 and ResNet-18", results) + " The other methods, networks and data "
        "sets of its tables have not been reproduced at that scale: they want more hours on a GPU."
    )


def _miniature(scale: str, results: Sequence[TableResult]) -> str:
    return _pair(f"In miniature, `--scale {scale}`", results)


def _pair(where: str, results: Sequence[TableResult]) -> str:
    """Say what SD-Dropout makes of cross-entropy in Table 1, beside what the paper prints at that scale."""
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
    printed = f"; the paper prints {base.printed} and {distilled.printed}" if table1.scale == "full" else ""
    return (
        f"{where} ({fit.steps:,} optimiser steps; training accuracy {100 * fit.cross_entropy.train_top1:.1f} % and "
        f"{100 * fit.sd_dropout.train_top1:.1f} %), cross-entropy's {before} becomes {after} with SD-Dropout "
        f"({difference.mean:+.1f} points{within}, {seeds}{printed})."
    )


def gpu_speed(config: PaperConfig) -> str:
    """How long the runs on a GPU took, and how long all of them would at that rate."""
    runs = [run for run in paper.table1_records(config) if not run.device.startswith("cpu")]
    rate = median(run.images_per_second for run in runs)
    plan = gpu_plan.order(replace(config, seeds=()))
    passes = sum(planned.work(0) for planned in plan)
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        of = [run for run in runs if run.method == method]
        seconds, speed = median(run.seconds for run in of), median(run.images_per_second for run in of)
        rows.append((f"`{method}`", str(len(of)), f"{seconds:.0f}", f"{speed:,.0f}"))
    minutes = passes * _WITH_TESTING / (SIDE_BY_SIDE * rate) / 60
    return "\n\n".join(
        [
            linked_table(("Method", "Runs", "Seconds, median", "Images/s of each, median"), rows, words=1),
            f"{' and '.join(sorted({run.device for run in runs}))}, {SIDE_BY_SIDE} runs side by side. All "
            f"{len(plan)} runs are {passes / 1e6:,.0f} million passes of an image: an estimated "
            f"{minutes:.0f} minutes at this rate.",
        ]
    )
