"""Selective prediction, and what validation images promise of abstention and prediction sets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import FigureBase

from selfdistill.evaluation.promises import Promises
from selfdistill.records import Evaluation
from selfdistill.records.evaluation import RiskCoverage
from selfdistill.report.measured import Measured, every, over_seeds, parts, table
from selfdistill.report.pages import Section, Sheet, wide_figure
from selfdistill.report.style import MUTED, colour, heading, marker, plain
from selfdistill.report.tables import PERCENT, Column, column_of

_SIZE = Column("size", "Classes", digits=2)
_SHARES = (0.5, 0.8, 0.9)


def selective_section(methods: Sequence[Measured[Evaluation]]) -> Section | None:
    """AURC and risk-coverage curves; None where they were not measured."""
    results = parts(methods, lambda evaluation: evaluation.selective)
    if not results:
        return None
    columns = [
        ("AURC", column_of("aurc"), lambda curve: curve.aurc),
        *((f"Error, surest {share:.0%}".replace("%", " %"), PERCENT, _risk_at(share)) for share in _SHARES),
        ("Error, all", PERCENT, lambda curve: curve.risk[-1]),
    ]
    alt = f"Risk-coverage curves: error rate among the surest share of the test images.{over_seeds(results)}"
    return Section(
        title="Selective prediction",
        about="How often is it wrong where it is surest?",
        explain="How often is a network wrong if it may stay silent where it is least sure? The lower the curve the "
        f"better; at the right end every image is answered.{over_seeds(results)}",
        findings=(),
        parts=(
            Sheet(table(results, columns)),
            wide_figure("risk-coverage", "Risk-coverage curves", alt, partial(_draw, methods=results), (5.0, 2.9)),
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


def promises_section(methods: Sequence[Measured[Promises]]) -> Section | None:
    """Answered share and error, coverage and size of the sets; None where no run has validation images."""
    if not methods:
        return None
    found = [one for method in methods for one in method.values]
    risk, coverage = found[0].risk, found[0].coverage
    columns = [
        ("Answered (%)", PERCENT, lambda one: one.answered),
        ("Error (%)", PERCENT, lambda one: one.error),
        ("Coverage (%)", PERCENT, lambda one: one.covered),
        ("Classes per set", _SIZE, lambda one: one.size),
        ("Empty (%)", PERCENT, lambda one: one.empty),
    ]
    n_val, n = every(methods, lambda one: one.n_val), every(methods, lambda one: one.n)
    return Section(
        title="Abstention and prediction sets",
        about="Does it keep what it promises?",
        explain=f"Temperature, threshold and sets are found on {n_val} validation images and tried on the {n} test "
        f'images, as by selfdistill predict --abstain {risk:g} ("not sure", so that at most {100 * risk:g} % of the '
        f"answers are wrong) and --conformal {coverage:g} (sets that hold the right class in {100 * coverage:g} % of "
        "the cases).",
        findings=_promise_findings(found),
        parts=(Sheet(table(methods, columns)),),
        notes=(
            "Answered: the share of the test images of which the network is sure enough; a dash where the validation "
            "images allow no such promise",
            "Error: wrong among the answered",
            "Coverage: the share of the sets that hold the right class; by THR, which makes some sets empty where the "
            "network is right more often than asked for",
        ),
    )


def _promise_findings(found: Sequence[Promises]) -> tuple[str, ...]:
    said, of = [], f"of {len(found)} network{'s' * (len(found) > 1)}"
    usual = [one.usual for one in found]
    inside = sum(low <= one.covered <= high for one, (low, high) in zip(found, usual, strict=True))
    low, high = (PERCENT.number(end) for end in (min(low for low, _ in usual), max(high for _, high in usual)))
    said.append(f"Sets: for {inside} {of} the coverage is in {low} to {high} %, where chance puts it 19 times in 20.")
    answering = [one for one in found if one.error is not None]
    if answering:
        above = sum(one.error > one.risk for one in answering if one.error is not None)
        said.append(f"Abstention: the error is above {100 * found[0].risk:g} % for {above} {of}.")
    if silent := sum(one.answered is None for one in found):
        said.append(f"Abstention: for {silent} {of} the validation images allow no such promise.")
    return tuple(said)
