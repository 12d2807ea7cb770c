"""Figures of out-of-distribution detection: ROC curves by method, and the scores of both kinds of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from selfdistill.report.measured import Measured
from selfdistill.report.style import GRID, INK, MUTED, Panel, colour, heading, plain, short
from selfdistill.report.tables import column_of

_DRAWN = ("ODIN fixed", "max softmax")
_POINTS = 81


def roc_panels(at: int, name: str, methods: Sequence[Measured]) -> list[Panel]:
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


def mean_curve(curves: Sequence[Mapping[str, Sequence[float]]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Average ROC curves along the lines fpr + tpr = constant, each of which meets each curve once.

    Example:
        >>> perfect, chance = {"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]}, {"fpr": [0.0, 1.0], "tpr": [0.0, 1.0]}
        >>> fpr, tpr = mean_curve([perfect, chance])
        >>> float(fpr[40]), float(tpr[40])
        (0.25, 0.75)
    """
    at = np.linspace(0, 2, _POINTS)
    ends = []
    for key in ("fpr", "tpr"):
        along = [np.interp(at, np.add(curve["fpr"], curve["tpr"]), curve[key]) for curve in curves]
        ends.append(np.mean(along, axis=0))
    return ends[0], ends[1]


def _draw_roc(figure: FigureBase, *, methods: Sequence[Measured], detector: str, name: str) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.axhline(0.95, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    for method in methods:
        fpr, tpr = mean_curve([found["curve"] for found in _of(method, detector)])
        axes.plot(fpr, tpr, color=colour(method.index), linewidth=1.7, zorder=2)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 0.95])
    axes.set_xticklabels(["0", ".25", ".5", ".75", "1"])
    axes.set_yticklabels(["0", ".25", ".5", ".75", ".95"])
    axes.set_xlabel("FPR: others accepted", color=MUTED)
    axes.set_ylabel("TPR: test images accepted", color=MUTED)
    heading(axes, f"{short(name, 22)}: {detector}")
    plain(axes)


def histogram_panels(at: int, name: str, methods: Sequence[Measured]) -> list[Panel]:
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


def _draw_histograms(figure: FigureBase, *, method: Measured) -> None:
    drawn = [detector for detector in _DRAWN if _of(method, detector)]
    grid = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    shade = colour(method.index)
    for axes, detector in zip(grid, drawn, strict=True):
        found = _of(method, detector)[0]
        histogram = found["histogram"]
        inside, outside = (np.divide(histogram[key], sum(histogram[key])) for key in ("inside", "outside"))
        axes.stairs(inside, histogram["edges"], fill=True, color=shade, alpha=0.65, linewidth=0, zorder=2)
        axes.stairs(outside, histogram["edges"], color=INK, linewidth=1.2, zorder=3)
        axes.set_ylim(0, 1.3 * max(inside.max(), outside.max()))
        axes.set_yticks([])
        # ODIN's scores fill a tiny range above 1/C: their order alone says something.
        axes.set_xticks([]) if detector == "ODIN fixed" else axes.xaxis.set_major_locator(MaxNLocator(4))
        text = f"{detector}: AUROC {column_of('ood_auroc').number(found['metrics']['auroc'])} %"
        axes.text(0, 0.98, text, transform=axes.transAxes, color=MUTED, fontsize=8.5, va="top", zorder=4)
        plain(axes)
        axes.spines["bottom"].set_color(GRID)
    grid[-1].set_xlabel("Score", color=MUTED)
    heading(grid[0], short(method.name, 30), method.index)


def _of(method: Measured, detector: str) -> list[dict[str, Any]]:
    return [values["detectors"][detector] for values in method.values if detector in values["detectors"]]
