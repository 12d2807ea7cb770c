"""Top-k accuracy, negative log-likelihood, Brier score, the confusion matrix and the scores of its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, Integers, as_floats, checked_logits, checked_probabilities
from selfdistill.records.evaluation import ClassScores

if TYPE_CHECKING:
    from torch import Tensor

Counts = npt.NDArray[np.int64]
"""A confusion matrix."""


def top_k_accuracy(logits: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, k: int = 1) -> float:
    """Share of the rows whose label is among the k largest logits: #{i : rank(z_i, y_i) <= k} / N.

    Equal logits rank by class index, as argmax does, so that k = 1 is the accuracy of the predicted class. A collapsed
    model (all logits equal) therefore scores by the order of the classes: look at its confidence too.

    Args:
        logits: z, or any increasing function of it, (N, C).
        labels: y, class indices, (N,).
        k: how many classes may be named, 1 <= k <= C.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: a shape does not fit, a value is not finite, a label is not a class, or k is outside 1..C.

    Example:
        >>> top_k_accuracy([[3.0, 2.0, 1.0], [0.0, 2.0, 1.0]], [0, 2])
        0.5
        >>> top_k_accuracy([[3.0, 2.0, 1.0], [0.0, 2.0, 1.0]], [0, 2], k=2)
        1.0
    """
    z, y = checked_logits(logits, labels)
    if not 1 <= k <= z.shape[1]:
        raise ValueError(f"k: {k} is outside 1..{z.shape[1]}, the number of classes")
    return float((rank_of_label(z, y) <= k).mean())


def negative_log_likelihood(logits: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> float:
    """Mean of -log softmax(z)_y in nats, at temperature 1 and in float64.

    Args:
        logits: z, (N, C); logits, not probabilities, so that a saturated softmax loses nothing.
        labels: y, class indices, (N,).

    Returns:
        Nats, >= 0; log C for a model that knows nothing.

    Raises:
        ValueError: a shape does not fit, a value is not finite, or a label is not a class.

    Example:
        >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 4)
        0.6931
    """
    z, y = checked_logits(logits, labels)
    z = z - z.max(axis=1, keepdims=True)
    log_likelihood = z[np.arange(len(z)), y] - np.log(np.exp(z).sum(axis=1))
    return float(-log_likelihood.mean())


def brier_score(probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> float:
    """Mean over the rows of sum_c (p_c - [c = y])^2, the multi-class form of Brier (1950).

    Args:
        probabilities: p, softmaxed, (N, C).
        labels: y, class indices, (N,).

    Returns:
        A number in [0, 2]; the two-class form found elsewhere is half of it.

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, or a label is not a class.

    Example:
        >>> brier_score([[0.5, 0.5], [0.0, 1.0]], [0, 1])
        0.25
    """
    p, y = checked_probabilities(probabilities, labels)
    error = p.copy()
    error[np.arange(len(p)), y] -= 1
    return float((error**2).sum(axis=1).mean())


def rank_of_label(z: Floats, y: Integers) -> Integers:
    """1 for the largest logit, C for the smallest; equal logits by class index. (N, C), (N,) -> (N,).

    Example:
        >>> rank_of_label(np.zeros((3, 4)), np.array([0, 1, 3]))
        array([1, 2, 4])
    """
    own = z[np.arange(len(z)), y][:, None]
    before = np.arange(z.shape[1]) < y[:, None]
    return np.asarray(1 + (z > own).sum(axis=1) + ((z == own) & before).sum(axis=1), dtype=np.int64)


def softmax(logits: Tensor | npt.ArrayLike) -> Floats:
    """softmax(z) over the classes in float64: p_c = exp(z_c) / sum_k exp(z_k). (N, C) -> (N, C).

    Example:
        >>> softmax([[0.0, 0.0]])
        array([[0.5, 0.5]])
    """
    z = as_floats(logits)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Counts:
    """Counts of (true class, predicted class), (C, C).

    Args:
        labels: y, class indices, (N,).
        predicted: class indices, (N,).

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
        [[1, 0], [1, 1]]
    """
    cells = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def class_scores(counts: Counts) -> ClassScores:
    r"""Precision, recall and F1 of each class, and their means, of a confusion matrix n, (C, C).

    .. math:: P_c = \frac{n_{cc}}{\sum_i n_{ic}}, \quad R_c = \frac{n_{cc}}{\sum_j n_{cj}}, \quad
        F_c = \frac{2 n_{cc}}{\sum_i n_{ic} + \sum_j n_{cj}}

    Example:
        >>> scores = class_scores(np.array([[1, 0], [1, 1]]))
        >>> scores.precision, scores.recall, scores.balanced_accuracy
        ((0.5, 1.0), (1.0, 0.5), 0.75)
    """
    right, of_class, answered = (each.tolist() for each in (np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)))
    precision, recall, f1 = (
        tuple(part / whole if whole else None for part, whole in zip(parts, wholes, strict=True))
        for parts, wholes in (
            (right, answered),
            (right, of_class),
            ([2 * n for n in right], [n + m for n, m in zip(of_class, answered, strict=True)]),
        )
    )
    cells = np.argwhere(counts).tolist()
    return ClassScores(
        confusion=tuple((true, other, int(counts[true, other])) for true, other in cells),
        precision=precision,
        recall=recall,
        f1=f1,
        balanced_accuracy=_mean(recall),
        macro_f1=_mean(f1),
    )


def _mean(values: tuple[float | None, ...]) -> float:
    return float(np.mean([value for value in values if value is not None]))
