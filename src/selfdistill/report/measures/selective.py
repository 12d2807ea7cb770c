"""Selective prediction: the error rate where the network may stay silent on the images of which it is least sure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import FigureBase

from selfdistill.records import Evaluation
from selfdistill.records.evaluation import RiskCoverage
from selfdistill.report.measured import Measured, every, over_seeds, parts, table
from selfdistill.report.pages import Figure, Section, Sheet
from selfdistill.report.style import MUTED, Panel, colour, heading, marker, plain
from selfdistill.report.tables import Column, column_of

_RISK = Column("risk", "Error", "%", 100, 1)
_SHARES = (0.5, 0.8, 0.9)


def selective_section(methods: Sequence[Measured[Evaluation]]) -> Section | None:
    """AURC and risk-coverage curves; None where they were not measured."""
    results = parts(methods, lambda evaluation: evaluation.selective)
    if not results:
        return None
    columns = [
        ("AURC", column_of("aurc"), lambda curve: curve.aurc),
        *((f"Error, surest {share:.0%}".replace("%", " %"), _RISK, _risk_at(share)) for share in _SHARES),
        ("Error, all", _RISK, lambda curve: curve.risk[-1]),
    ]
    alt = f"Risk-coverage curves: error rate among the surest share of the test images.{over_seeds(results)}"
    panel = Panel("risk-coverage-0", alt, partial(_draw, methods=results), 5.0, 2.9)
    return Section(
        title="Selective prediction",
        about="How often is it wrong where it is surest?",
        explain="How often is a network wrong if it may stay silent where it is least sure? The lower the curve the "
        f"better; at the right end every image is answered.{over_seeds(results)}",
        findings=(),
        parts=(
            Sheet(table(results, columns)),
            Figure("risk-coverage", "Risk-coverage curves", [panel], 1, "full", legend=True),
        ),
        notes=(
            f"AURC: area under the risk-coverage curve, a fraction, over {every(results, lambda curve: curve.n)} test "
            "images ordered by their largest softmax probability; lower is better, and a lower error rate lowers it "
            "too",
            "Error: wrong among the surest share, %",
        ),
    )


def _risk_at(share: float) -> Callable[[RiskCoverage], float | None]:
    def pick(curve: RiskCoverage) -> float | None:
        answered = [risk for coverage, risk in zip(curve.coverage, curve.risk, strict=True) if coverage <= share + 1e-9]
        return answered[-1] if answered else None

    return pick


def _draw(figure: FigureBase, *, methods: Sequence[Measured[RiskCoverage]]) -> None:
    axes = figure.subplots()
    for method in methods:
        first = method.values[0].coverage
        curves = [100 * np.interp(first, values.coverage, values.risk) for values in method.values]
        answered = [100 * coverage for coverage in first]
        shade = colour(method.index)
        mean = [statistics.fmean(at) for at in zip(*curves, strict=True)]
        axes.fill_between(
            answered, np.min(curves, axis=0), np.max(curves, axis=0), color=shade, alpha=0.16, linewidth=0
        )
        axes.plot(answered, mean, color=shade, linewidth=1.7)
        axes.plot(answered[-1], mean[-1], color=shade, marker=marker(method.index), markersize=5, clip_on=False)
    axes.set(xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Answered, the surest first (%)", color=MUTED)
    heading(axes, "Error rate among the answered (%)")
    plain(axes)
