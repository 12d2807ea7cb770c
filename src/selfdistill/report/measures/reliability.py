"""Reliability diagrams: is a network right as often as it says?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator, PercentFormatter

from selfdistill.evaluate.calibration import Reliability, pool
from selfdistill.report.measured import Measured
from selfdistill.report.style import INK, MUTED, Panel, colour, heading, plain, short
from selfdistill.report.tables import column_of
from selfdistill.report.verdict import confident

FEW = 20  # a bin of fewer images is drawn pale: its accuracy is mostly chance


def reliability_panels(methods: Sequence[Measured]) -> list[Panel]:
    """For each method, accuracy against confidence and the counts below; the seeds' counts are summed."""
    panels = []
    for method in methods:
        diagram = pool([Reliability.from_dict(values["reliability"]) for values in method.values])
        ece = statistics.fmean(values["ece"] for values in method.values)
        gap = statistics.fmean(values["gap"] for values in method.values)
        caption = f"ECE {ece:.3f}, gap {column_of('gap').number(gap)}: {confident(gap).partition(' (')[0]}"
        draw = partial(_draw_reliability, method=method, diagram=diagram, caption=caption)
        alt = f"Reliability diagram of {method.name}: {caption}."
        panels.append(Panel(f"reliability-{method.index}", alt, draw, 2.8, 3.6))
    return panels


def _draw_reliability(figure: FigureBase, *, method: Measured, diagram: Reliability, caption: str) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    left, width = diagram.edges[:-1], diagram.edges[1]
    shade = colour(method.index)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for x, n, confidence, accuracy in zip(left, diagram.count, diagram.confidence, diagram.accuracy, strict=True):
        if confidence is None or accuracy is None:
            continue
        pale = 0.35 if n < FEW else 1.0
        upper.bar(x, accuracy, width * 0.86, align="edge", color=shade, alpha=0.75 * pale, linewidth=0, zorder=2)
        # The distance that ECE adds up: from what was right to what was claimed.
        centre = x + width * 0.43
        upper.plot([centre, centre], [accuracy, confidence], color=INK, linewidth=1.1, alpha=pale, zorder=3)
        upper.plot(centre, confidence, marker="_", markersize=11, markeredgewidth=1.8, color=INK, alpha=pale, zorder=3)
    total = sum(diagram.count)
    lower.bar(
        left, [n / total for n in diagram.count], width * 0.86, align="edge", color=shade, alpha=0.75, linewidth=0
    )
    heading(upper, f"{short(method.name, 30)}\n\n", method.index)
    lines = caption.replace(": ", "\n", 1)
    upper.text(0, 1.03, lines, transform=upper.transAxes, color=MUTED, fontsize=8.5, va="bottom", in_layout=False)
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    upper.set_ylabel("Accuracy", color=MUTED)
    lower.set_ylabel("Images", color=MUTED)
    lower.set_xlabel("Confidence", color=MUTED)
    lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    lower.yaxis.set_major_locator(MaxNLocator(2))
    lower.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    plain(upper)
    plain(lower)
