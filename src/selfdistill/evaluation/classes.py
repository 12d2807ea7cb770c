"""Which classes are told apart: the confusion matrix, and precision, recall and F1 of each class. Numpy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from selfdistill.records.evaluation import ClassScores

Counts = npt.NDArray[np.int64]


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
