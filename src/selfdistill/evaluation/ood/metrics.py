"""Metrics of OOD scores: ROC curve, FPR at 95 % TPR, detection error, AUROC, AUPR, histogram; without torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, as_floats
from selfdistill.records.evaluation import OODDetector, OODMetrics, RocCurve, ScoreHistogram

if TYPE_CHECKING:
    from torch import Tensor


_POINTS, _BINS = 101, 30


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
        RocCurve(tuple(fpr[thinned].tolist()), tuple(tpr[thinned].tolist())),
        ScoreHistogram(tuple(edges.tolist()), in_distribution, ood),
        eps,
    )


def ood_metrics(id_scores: Tensor | npt.ArrayLike, ood_scores: Tensor | npt.ArrayLike) -> OODMetrics:
    """FPR at 95 % TPR, detection error, AUROC and AUPR of in-distribution against out-of-distribution scores.

    With TPR(t) = P(in >= t) and FPR(t) = P(out >= t) at every distinct score t: only the order of the scores counts, so
    any range will do, and equal scores are accepted together. Constant scores give FPR 1, error 1/2 and AUROC 1/2.

    Args:
        id_scores: higher = in-distribution, (N,).
        ood_scores: (M,).

    Raises:
        ValueError: a set is empty or not one-dimensional, or a score is not finite.

    Example:
        >>> metrics = ood_metrics([4.0, 3.0, 2.0, 2.0], [2.0, 1.0])
        >>> metrics.fpr_at_95_tpr, metrics.detection_error, metrics.auroc
        (0.5, 0.25, 0.875)

    Source: Liang et al., Enhancing the Reliability of Out-of-Distribution Image Detection in Neural Networks, 2018.
    """
    fpr, tpr = roc_curve(id_scores, ood_scores)
    at_95 = int(np.argmax(tpr >= 0.95))
    error = (1 - tpr + fpr) / 2
    rejected_out, rejected_in = 1 - fpr[::-1], 1 - tpr[::-1]  # out positive: the lowest scores are accepted first
    n_in, n_out = as_floats(id_scores).size, as_floats(ood_scores).size
    return OODMetrics(
        fpr_at_95_tpr=float(fpr[at_95]),
        detection_error=float(error.min()),
        detection_error_at_95_tpr=float(error[at_95]),
        auroc=float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1])) / 2),
        aupr_in=average_precision(tpr, fpr, n_in, n_out),
        aupr_out=average_precision(rejected_out, rejected_in, n_out, n_in),
        balanced_aupr_in=average_precision(tpr, fpr, 1, 1),
        balanced_aupr_out=average_precision(rejected_out, rejected_in, 1, 1),
        n_in=n_in,
        n_out=n_out,
    )


def roc_curve(id_scores: Tensor | npt.ArrayLike, ood_scores: Tensor | npt.ArrayLike) -> tuple[Floats, Floats]:
    """FPR(t) = P(out >= t) and TPR(t) = P(in >= t), from t = infinity (0, 0) down through every distinct score.

    Args:
        id_scores: higher = in-distribution, (N,).
        ood_scores: (M,).

    Returns:
        (fpr, tpr), each (K + 1,) for K distinct scores, rising from 0 to 1.

    Raises:
        ValueError: a set is empty or not one-dimensional, or a score is not finite.

    Example:
        >>> fpr, tpr = roc_curve([2.0, 1.0], [1.0, 0.0])
        >>> fpr.tolist(), tpr.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    in_distribution, ood = np.sort(_checked(id_scores, "id_scores")), np.sort(_checked(ood_scores, "ood_scores"))
    thresholds = np.unique(np.concatenate([in_distribution, ood]))[::-1]

    def accepted(scores: Floats) -> Floats:
        counts = len(scores) - np.searchsorted(scores, thresholds, side="left")
        return np.concatenate([[0.0], counts / len(scores)])

    return accepted(ood), accepted(in_distribution)


def threshold_at_tpr(id_scores: Tensor | npt.ArrayLike, tpr: float = 0.95) -> float:
    """The largest t with P(in >= t) >= tpr.

    Args:
        id_scores: higher = in-distribution, (N,).
        tpr: share of the in-distribution images that pass, in (0, 1].

    Raises:
        ValueError: there is no score, one is not finite, or tpr is out of range.

    Example:
        >>> threshold_at_tpr([4.0, 3.0, 2.0, 1.0], tpr=0.75)
        2.0
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr: {tpr}, expected a share in (0, 1]")
    scores = np.sort(_checked(id_scores, "id_scores"))[::-1]
    return float(scores[math.ceil(tpr * len(scores) * (1 - 1e-12)) - 1])  # 0.95 * 20 shall be 19


def average_precision(recall: Floats, fall_out: Floats, positives: float, negatives: float) -> float:
    """AP = sum_k (R_k - R_k-1) * P_k with P = R * n+ / (R * n+ + F * n-): rectangles, so that ties gain nothing.

    Args:
        recall: R, share of the positives accepted at each threshold, rising from 0 to 1, (K + 1,).
        fall_out: F, share of the negatives accepted there, (K + 1,).
        positives: n+, their number; 1 and 1 weigh the two sets alike whatever their sizes.
        negatives: n-.

    Example:
        >>> average_precision(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.0, 1.0]), 2, 2)
        0.75
    """
    accepted = recall * positives + fall_out * negatives
    precision = np.divide(recall * positives, accepted, out=np.zeros_like(accepted), where=accepted > 0)
    return float(np.sum(np.diff(recall) * precision[1:]))


def _checked(scores: Tensor | npt.ArrayLike, name: str) -> Floats:
    values = as_floats(scores)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: shape {values.shape}, expected (N,) with N >= 1")
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {len(values)} scores are not finite; check the model's training loss")
    return values


def _edges(scores: Floats) -> Floats:
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high, _BINS + 1)
    if (np.diff(edges) > 0).all():
        return edges
    # Fewer numbers than bins between the two, as of a network that is sure to the last bit: they share the middle bins.
    half = max(0.5, abs(low) / 2, abs(high) / 2)
    return np.linspace(low - half, high + half, _BINS + 1)
