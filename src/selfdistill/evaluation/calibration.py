"""Calibration: is a network right as often as it says? ECE (Eq. 12), adaptive ECE, reliability diagrams, signed gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, checked_probabilities
from selfdistill.records.evaluation import Reliability

if TYPE_CHECKING:
    from torch import Tensor


def expected_calibration_error(
    probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, bins: int = 10
) -> float:
    """Eq. 12: ECE = sum_m |B_m| / N * |acc(B_m) - conf(B_m)|, with B_m the rows whose confidence is in ((m-1)/M, m/M].

    The confidence is the largest probability. ECE says how far confidence and accuracy are apart, not which is the
    larger: read it beside `calibration_gap`. Computed in float64; a confidence of exactly 1 belongs to the last bin
    (there is no hidden bin M + 1) and one of 0 to the first.

    Args:
        probabilities: softmax(z) at temperature 1, (N, C).
        labels: y, class indices, (N,).
        bins: M, the number of equal-width bins, >= 1. The paper takes 10.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, a label is not a class, or bins < 1.

    Example:
        >>> expected_calibration_error([[0.75, 0.25], [0.25, 0.75]], [0, 0])
        0.25

    Source: Eq. 12 of the SD-Dropout paper; the formula of Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    return reliability(probabilities, labels, bins).expected_calibration_error


def adaptive_calibration_error(
    probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, bins: int = 10
) -> float:
    """ACE = sum_m |B_m| / N * |acc(B_m) - conf(B_m)|, B_m the m-th of M bins of equally many rows by confidence.

    The same sum as the ECE's over other bins: those of Eq. 12 are equally wide, and a confident network leaves most of
    them nearly empty. Row k of N, the least confident first, is in bin floor(M * k / N), k = 0..N-1, so that counts
    differ by at most 1; fewer rows than bins are a bin each. Rows of equal confidence have no order: each of them
    counts with their common accuracy, so that the result does not depend on the order of the images, and constant
    confidence gives the absolute `calibration_gap`.

    Args:
        probabilities: softmax(z) at temperature 1, (N, C).
        labels: y, class indices, (N,).
        bins: M, >= 1.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, a label is not a class, or bins < 1.

    Example:
        >>> adaptive_calibration_error([[0.75, 0.25], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [1, 0, 0, 0], bins=2)
        0.1875

    Source: Nguyen and O'Connor, Posterior Calibration and Exploratory Analysis for Natural Language Processing Models,
    2015; the top-label form of the ACE of Nixon et al., Measuring Calibration in Deep Learning, 2019.
    """
    _check_bins(bins)
    confidence, correct = _confidence(probabilities, labels)
    values, group, size = np.unique(confidence, return_inverse=True, return_counts=True)  # rising
    accuracy = np.bincount(group, weights=correct) / size
    index = bins * np.arange(len(confidence)) // len(confidence)
    gaps = np.bincount(index, weights=np.repeat(accuracy - values, size))
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_gap(probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> float:
    """Mean confidence minus accuracy: above 0 the network is over-confident, below 0 under-confident.

    Args:
        probabilities: softmax(z) at temperature 1, (N, C).
        labels: y, class indices, (N,).

    Returns:
        A signed fraction in [-1, 1]; its absolute value never exceeds the ECE.

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, or a label is not a class.

    Example:
        >>> calibration_gap([[0.75, 0.25], [0.25, 0.75]], [0, 0])
        0.25
    """
    confidence, correct = _confidence(probabilities, labels)
    return float(confidence.mean() - correct.mean())


def reliability(probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, bins: int = 10) -> Reliability:
    """Count, mean confidence and accuracy in each of `bins` equal-width bins: what `expected_calibration_error` sums.

    Args:
        probabilities: softmax(z) at temperature 1, (N, C).
        labels: y, class indices, (N,).
        bins: M, the number of equal-width bins, >= 1.

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, a label is not a class, or bins < 1.

    Example:
        >>> reliability([[1.0, 0.0], [0.4, 0.6]], [0, 1], bins=4).count
        (0, 0, 1, 1)
    """
    return _binned(*_confidence(probabilities, labels), bins)


def class_reliability(
    probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, bins: int = 10
) -> tuple[Reliability, ...]:
    """The diagram of each class c: in bins of p_c over *all* rows, the mean p_c and the share of rows of that class.

    Args:
        probabilities: softmax(z) at temperature 1, (N, C).
        labels: y, class indices, (N,).
        bins: M, the number of equal-width bins, >= 1.

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, a label is not a class, or bins < 1.

    Example:
        >>> first, second = class_reliability([[1.0, 0.0], [0.5, 0.5]], [0, 1], bins=2)
        >>> first.accuracy, second.confidence
        ((0.0, 1.0), (0.25, None))
    """
    p, y = checked_probabilities(probabilities, labels)
    return tuple(_binned(p[:, c], (y == c).astype(np.float64), bins) for c in range(p.shape[1]))


def classwise_calibration_error(
    probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, bins: int = 10
) -> float:
    """1/C sum_c sum_m |B_mc| / N * |share of class c in B_mc - mean p_c in B_mc|, B_mc the rows with p_c in bin m.

    The ECE of every class's probability, whether it is the largest or not; the mean of the diagrams of
    `class_reliability`. It is small where there are many classes, since most probabilities are near 0.

    Args:
        probabilities: softmax(z) at temperature 1, (N, C).
        labels: y, class indices, (N,).
        bins: M, the number of equal-width bins, >= 1.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: as for `class_reliability`.

    Example:
        >>> classwise_calibration_error([[0.75, 0.25], [0.25, 0.75]], [0, 0])
        0.5

    Source: Kull et al., Beyond Temperature Scaling: Obtaining Well-calibrated Multiclass Probabilities with Dirichlet
    Calibration, 2019.
    """
    diagrams = class_reliability(probabilities, labels, bins)
    return float(np.mean([diagram.expected_calibration_error for diagram in diagrams]))


def _binned(confidence: Floats, correct: Floats, bins: int) -> Reliability:
    _check_bins(bins)
    # Edges as m / M and a search, not a multiplication: 0.7 * 10 is above 7 in floating point.
    edges = np.arange(bins + 1) / bins
    index = np.minimum(np.searchsorted(edges[1:], confidence, side="left"), bins - 1)
    count = np.bincount(index, minlength=bins)
    confidences = np.bincount(index, weights=confidence, minlength=bins)
    correctly = np.bincount(index, weights=correct, minlength=bins)
    return Reliability(
        edges=tuple(edges.tolist()),
        count=tuple(count.tolist()),
        confidence=tuple(float(s / n) if n else None for s, n in zip(confidences, count, strict=True)),
        accuracy=tuple(float(s / n) if n else None for s, n in zip(correctly, count, strict=True)),
    )


def pool(diagrams: Sequence[Reliability]) -> Reliability:
    """One diagram of several runs on the same bins: counts are summed, confidence and accuracy weighted by them.

    Raises:
        ValueError: no diagram, or the bins differ.

    Example:
        >>> one = reliability([[1.0, 0.0]], [0], bins=1)
        >>> pool([one, reliability([[1.0, 0.0]], [1], bins=1)])
        Reliability(edges=(0.0, 1.0), count=(2,), confidence=(1.0,), accuracy=(0.5,))
    """
    if len({d.edges for d in diagrams}) != 1:
        raise ValueError(f"reliability diagrams: {len(diagrams)} given, expected some with the same bin edges")

    def mean(values: Sequence[float | None], counts: Sequence[int]) -> float | None:
        total = sum(counts)
        return sum(n * v for n, v in zip(counts, values, strict=True) if v is not None) / total if total else None

    counts = list(zip(*(d.count for d in diagrams), strict=True))
    confidences = zip(*(d.confidence for d in diagrams), strict=True)
    accuracies = zip(*(d.accuracy for d in diagrams), strict=True)
    return Reliability(
        edges=diagrams[0].edges,
        count=tuple(map(sum, counts)),
        confidence=tuple(mean(v, n) for v, n in zip(confidences, counts, strict=True)),
        accuracy=tuple(mean(v, n) for v, n in zip(accuracies, counts, strict=True)),
    )


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins: {bins}, expected at least 1 (the paper takes 10)")


def _confidence(probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> tuple[Floats, Floats]:
    p, y = checked_probabilities(probabilities, labels)
    return p.max(axis=1), (p.argmax(axis=1) == y).astype(np.float64)
