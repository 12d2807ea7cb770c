"""Out-of-distribution detection: how well do scores tell other images from the test images?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from selfdistill.records import Evaluation
from selfdistill.records.evaluation import OODDetector, OODResult, RocCurve
from selfdistill.report.measured import Measured, by_ood_set, every, table
from selfdistill.report.pages import Figure, Section, Sheet
from selfdistill.report.style import GRID, INK, MUTED, Panel, colour, heading, plain, short
from selfdistill.report.tables import PERCENT, Table, column_of

_METRICS = {
    "AUROC": "auroc",
    "FPR at 95 % TPR": "fpr_at_95_tpr",
    "Error": "detection_error",
    "AUPR in": "aupr_in",
    "AUPR out": "aupr_out",
    "Balanced in": "balanced_aupr_in",
    "Balanced out": "balanced_aupr_out",
}
_CONFIDENCE = ("max softmax", "ODIN fixed")  # how sure the network is, as it is and at a high temperature
_CHOSEN_ON_BOTH = ("ODIN released",)  # has seen images of the other set
_OF_FEATURES = {
    "Mahalanobis": "distance of the features to the nearest class mean of the training images",
    "kNN": "distance of the features' direction to that of the k-th nearest training image",
    "ViM": "energy, less the part of the features outside the directions of the training images",
    "ReAct": "energy of the features cut off at their 90 % quantile on training images",
    "DICE": "energy by the tenth of the head's weights that contribute most on training images",
    "ASH": "energy of each image's largest 35 % of the features, made larger",
}
_NEAR_CHANCE = 0.6
_DRAWN = ("ODIN fixed", "max softmax")
_POINTS = 81
_SHOWN = ("AUROC", "FPR at 95 % TPR")  # as a table of their own: methods down, detectors across


def ood_section(methods: Sequence[Measured[Evaluation]]) -> Section | None:
    """Tables for each set, ROC curves and score histograms; None where no set was given."""
    sets = by_ood_set(methods)
    if not sets:
        return None
    parts: list[Sheet | Figure] = []
    for at, (name, results) in enumerate(sets.items()):
        several = len(results) > 1
        if several:
            parts += [Sheet(_across(results, metric), f"{name}: {metric} (%)") for metric in _SHOWN]
        parts.append(_whole(name, results, folded=several))
        parts += _figures(at, name, results)
    return Section(
        title="Out-of-distribution detection",
        about="Does it notice images of something else?",
        explain="A score should be high on test images and low on images of something else. In-distribution is the "
        "positive class: the TPR is the share of test images that are accepted, the FPR the share of the other images "
        "that are accepted with them. AUROC 50 % is chance.",
        findings=who_tells_apart(methods),
        parts=tuple(parts),
        notes=_notes(sets),
    )


def _figures(at: int, name: str, results: Sequence[Measured[OODResult]]) -> list[Figure]:
    seeds = max(len(method.by_seed) for method in results)
    figures = [
        Figure(
            f"ood-roc-{at}",
            f"ROC curves against {name}",
            roc_panels(at, name, results),
            2,
            "square",
            legend=True,
            caption=f"ROC curves{', averaged over seeds' * (seeds > 1)}. Dotted: TPR 95 %.",
        ),
        Figure(
            f"ood-scores-{at}",
            f"Scores of the test images and of {name}",
            histogram_panels(at, name, results),
            3,
            "narrow",
            caption=f"Scores{' of the first seed' * (seeds > 1)}. Filled: the test images; line: {name}; in shares of "
            "either. ODIN's scores lie close together: their order alone counts.",
        ),
    ]
    return [figure for figure in figures if figure.panels]


def _across(results: Sequence[Measured[OODResult]], metric: str) -> Table:
    """Methods down, detectors across."""
    return table(results, [(name, PERCENT, _metric(name, _METRICS[metric])) for name in _detectors(results)])


def _whole(name: str, results: Sequence[Measured[OODResult]], *, folded: bool) -> Sheet:
    """One row a detector (and method): every metric, and ODIN's eps."""
    rows = [
        (
            *[method.name] * folded,
            detector,
            *(PERCENT.cell(method.statistic(_metric(detector, metric))) for metric in _METRICS.values()),
            every([method], _eps(detector)),
        )
        for method in results
        for detector in _detectors([method])
    ]
    first = ("Method", "Detector") if folded else ("Detector",)
    headings = (*first, *_METRICS, "ODIN's eps")
    return Sheet(Table(headings, tuple(rows)), f"{name}: every metric (%)", by_method=folded, folded=folded)


def _detectors(results: Sequence[Measured[OODResult]]) -> list[str]:
    return list(dict.fromkeys(name for method in results for values in method.values for name in values.detectors))


def _metric(detector: str, metric: str) -> Callable[[OODResult], float | None]:
    def pick(result: OODResult) -> float | None:
        found = result.detectors.get(detector)
        return None if found is None else float(getattr(found.metrics, metric))

    return pick


def _eps(detector: str) -> Callable[[OODResult], float | None]:
    return lambda result: getattr(result.detectors.get(detector), "eps", None)


def who_tells_apart(methods: Sequence[Measured[Evaluation]], *, blind: bool = False) -> tuple[str, ...]:
    """For each set: whether any network tells it from the test images by its confidence, and which detector does.

    Args:
        blind: only of the sets that no network tells apart by its confidence.
    """
    found = [_who_tells_apart(name, results) for name, results in by_ood_set(methods).items()]
    return tuple(text for is_blind, text in found if is_blind or not blind)


def _who_tells_apart(name: str, results: Sequence[Measured[OODResult]]) -> tuple[bool, str]:
    of = {
        detector: [s.mean for m in results if (s := m.statistic(_metric(detector, "auroc"))) is not None]
        for detector in _detectors(results)
        if detector not in _CHOSEN_ON_BOTH
    }
    confident = max(value for detector in _CONFIDENCE for value in of.get(detector, [0.0]))
    best = max(of, key=lambda detector: max(of[detector]))
    tells = f"{best} does best, with an AUROC of {_range(of[best])}"
    if confident <= _NEAR_CHANCE:
        alone = len(results) == 1
        text = (
            f"{'The network does not tell' if alone else 'None of the networks tells'} {name} from the test images by "
            f"its confidence (AUROC at most {PERCENT.number(confident)} %, 50 % is chance)."
        )
        return True, f"{text} {tells}." if max(of[best]) > _NEAR_CHANCE else f"{text} Nor does any other detector."
    return False, f"{name}: by confidence the AUROC is at most {PERCENT.number(confident)} % (50 % is chance); {tells}."


def _range(values: Sequence[float]) -> str:
    low, high = PERCENT.number(min(values)), PERCENT.number(max(values))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _notes(sets: dict[str, list[Measured[OODResult]]]) -> tuple[str, ...]:
    notes = []
    for name, results in sets.items():
        n, n_in = every(results, lambda result: result.n), every(results, _n_in)
        prepared = ", ".join(dict.fromkeys(result.prepared for method in results for result in method.values))
        notes.append(f"{name}: {n} images, {prepared}; against {n_in} test images")
    results = [method for of_set in sets.values() for method in of_set]
    there = _detectors(results)
    temperature = every(results, lambda result: result.temperature)
    if "ODIN fixed" in there:
        eps = every(results, _eps("ODIN fixed"))
        notes.append(f"ODIN fixed: T = {temperature} and one gradient step of eps = {eps} of the pixel range")
    if "ODIN released" in there:
        tuned = ", ".join(
            f"{every(of_set, _tuned(0))} test images and {every(of_set, _tuned(1))} of {name}"
            for name, of_set in sets.items()
        )
        notes.append(
            f"ODIN released: eps chosen among 21 values from 0 to 0.004 by the FPR on {tuned}, which are then not "
            "scored. The choice has seen images of the other set, so it is kinder than any use"
        )
    logits = [name for name in ("max softmax", "max logit", "energy") if name in there]
    if logits:
        notes.append(f"{', '.join(logits)}: of the logits as they are, T = 1")
    notes += [f"{name}: {text}" for name, text in _OF_FEATURES.items() if name in there]
    notes += [
        "Error: detection error, the smallest mean of the two error rates over all thresholds, as Table 7 prints it",
        "AUPR: area under the precision-recall curve with the test images (in) or the others (out) as positives, by "
        "counts, which depends on the sizes of the sets; balanced: both sets weigh the same",
        "Networks: evaluation mode, float32, dropout off",
    ]
    return tuple(notes)


def _n_in(result: OODResult) -> float | None:
    return next((found.metrics.n_in for name, found in result.detectors.items() if name != "ODIN released"), None)


def _tuned(at: int) -> Callable[[OODResult], float]:
    return lambda result: result.tuned_on[at]


def roc_panels(at: int, name: str, methods: Sequence[Measured[OODResult]]) -> list[Panel]:
    """For each detector, the methods' curves against the set at this position, averaged over seeds."""
    return [
        Panel(
            f"ood-roc-{at}-{j}",
            f"ROC curves of {detector} against {name}, a curve a method.",
            partial(_draw_roc, methods=having, detector=detector, name=name),
            3.6,
            3.3,
        )
        for j, detector in enumerate(_DRAWN)
        if (having := [m for m in methods if _of(m, detector)])
    ]


def mean_curve(curves: Sequence[RocCurve]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Average ROC curves along the lines fpr + tpr = constant, each of which meets each curve once.

    Example:
        >>> perfect, chance = RocCurve((0.0, 0.0, 1.0), (0.0, 1.0, 1.0)), RocCurve((0.0, 1.0), (0.0, 1.0))
        >>> fpr, tpr = mean_curve([perfect, chance])
        >>> float(fpr[40]), float(tpr[40])
        (0.25, 0.75)
    """
    at = np.linspace(0, 2, _POINTS)
    fpr, tpr = (
        np.mean([np.interp(at, np.add(curve.fpr, curve.tpr), getattr(curve, rate)) for curve in curves], axis=0)
        for rate in ("fpr", "tpr")
    )
    return fpr, tpr


def _draw_roc(figure: FigureBase, *, methods: Sequence[Measured[OODResult]], detector: str, name: str) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.axhline(0.95, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    for method in methods:
        fpr, tpr = mean_curve([found.curve for found in _of(method, detector)])
        axes.plot(fpr, tpr, color=colour(method.index), linewidth=1.7, zorder=2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 0.95])
    axes.set_xticklabels(["0", ".25", ".5", ".75", "1"])
    axes.set_yticklabels(["0", ".25", ".5", ".75", ".95"])
    axes.set_xlabel("FPR: others accepted", color=MUTED)
    axes.set_ylabel("TPR: test images accepted", color=MUTED)
    heading(axes, f"{short(name, 22)}: {detector}")
    plain(axes)


def histogram_panels(at: int, name: str, methods: Sequence[Measured[OODResult]]) -> list[Panel]:
    """For each method, how its first seed scores the test images and the set at this position."""
    return [
        Panel(
            f"ood-scores-{at}-{method.index}",
            f"Scores of {method.name} against {name}: filled the test images, a line the others.",
            partial(_draw_histograms, method=method),
            2.8,
            3.0,
        )
        for method in methods
        if any(_of(method, detector) for detector in _DRAWN)
    ]


def _draw_histograms(figure: FigureBase, *, method: Measured[OODResult]) -> None:
    drawn = [detector for detector in _DRAWN if _of(method, detector)]
    grid = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    shade = colour(method.index)
    for axes, detector in zip(grid, drawn, strict=True):
        found = _of(method, detector)[0]
        counts = found.histogram
        shares, others = (np.divide(n, sum(n)) for n in (counts.in_distribution, counts.ood))
        axes.stairs(shares, counts.edges, fill=True, color=shade, alpha=0.65, linewidth=0, zorder=2)
        axes.stairs(others, counts.edges, color=INK, linewidth=1.2, zorder=3)
        axes.set_ylim(0, 1.3 * max(shares.max(), others.max()))
        axes.set_yticks([])
        # ODIN's scores fill a tiny range above 1/C: their order alone says something.
        axes.set_xticks([]) if detector == "ODIN fixed" else axes.xaxis.set_major_locator(MaxNLocator(4))
        text = f"{detector}: AUROC {column_of('ood_auroc').number(found.metrics.auroc)} %"
        axes.text(0, 0.98, text, transform=axes.transAxes, color=MUTED, fontsize=8.5, va="top", zorder=4)
        plain(axes)
        axes.spines["bottom"].set_color(GRID)
    grid[-1].set_xlabel("Score", color=MUTED)
    heading(grid[0], short(method.name, 30), method.index)


def _of(method: Measured[OODResult], detector: str) -> list[OODDetector]:
    return [result.detectors[detector] for result in method.values if detector in result.detectors]
