"""One OOD detector: how well its score separates two sets, as metrics, a ROC curve and a histogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfdistill.evaluate.arrays import Floats
from selfdistill.evaluate.ood.metrics import OODMetrics, ood_metrics, roc_curve

_POINTS, _BINS = 101, 30


@dataclass(frozen=True)
class Curve:
    """A ROC curve, thinned: share of the out- and of the in-distribution images accepted, from (0, 0) to (1, 1)."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """Counts of scores in equal bins over their common range.

    Attributes:
        edges: of the bins, one more than there are bins.
        inside: in-distribution images; records hold it by this name, as the next.
        outside: out-of-distribution images.
    """

    edges: tuple[float, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]


@dataclass(frozen=True)
class OODDetector:
    """How well one score separates a set from the test images; eps is ODIN's, None for the other detectors."""

    metrics: OODMetrics
    curve: Curve
    histogram: Histogram
    eps: float | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OODDetector:
        """The inverse of `OODResult.to_dict` for one of its detectors, exactly."""
        curve, histogram = ({name: tuple(v) for name, v in values[part].items()} for part in ("curve", "histogram"))
        return cls(OODMetrics.from_dict(values["metrics"]), Curve(**curve), Histogram(**histogram), values["eps"])


def score_detector(id_scores: Floats, ood_scores: Floats, eps: float | None = None) -> OODDetector:
    """The metrics, the curve and the histogram of two sets of scores, higher for in-distribution.

    The curve keeps at most 101 of the thresholds' points, both ends among them; the metrics are those of all points.

    Raises:
        ValueError: a set is empty, or a score is not finite.

    Example:
        >>> detector = score_detector(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
        >>> detector.metrics.auroc, detector.curve.fpr
        (1.0, (0.0, 0.0, 0.0, 0.5, 1.0))
    """
    metrics = ood_metrics(id_scores, ood_scores)
    fpr, tpr = roc_curve(id_scores, ood_scores)
    thinned = np.unique(np.linspace(0, len(fpr) - 1, min(_POINTS, len(fpr))).round().astype(int))
    edges = _edges(np.concatenate([id_scores, ood_scores]))
    in_distribution, ood = (tuple(np.histogram(scores, edges)[0].tolist()) for scores in (id_scores, ood_scores))
    return OODDetector(
        metrics,
        Curve(tuple(fpr[thinned].tolist()), tuple(tpr[thinned].tolist())),
        Histogram(tuple(edges.tolist()), in_distribution, ood),
        eps,
    )


def _edges(scores: Floats) -> Floats:
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high, _BINS + 1)
    if (np.diff(edges) > 0).all():
        return edges
    # Fewer numbers than bins between the two, as of a network that is sure to the last bit: they share the middle bins.
    half = max(0.5, abs(low) / 2, abs(high) / 2)
    return np.linspace(low - half, high + half, _BINS + 1)
