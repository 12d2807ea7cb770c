"""Eq. 1, 3, 6 and 7 of the paper, and the cross-entropies, a loop for every sum. Lists of floats in, a float out."""

from math import exp, log

Rows = list[list[float]]


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    """Eq. 1: ``exp(z_i / T) / sum_j exp(z_j / T)``."""
    total = 0.0
    for value in row:
        total += exp(value / temperature)
    return [exp(value / temperature) / total for value in row]


def kl(target_logits: Rows, logits: Rows, temperature: float) -> float:
    """``1/B sum_b sum_i p_bi log(p_bi / q_bi)``."""
    total = 0.0
    for target_row, row in zip(target_logits, logits, strict=True):
        p, q = softmax(target_row, temperature), softmax(row, temperature)
        for i in range(len(p)):
            total += p[i] * log(p[i] / q[i])
    return total / len(logits)


def symmetric_kl(a: Rows, b: Rows, temperature: float) -> float:
    """Eq. 3, whose value Eq. 6 and 7 share."""
    return kl(a, b, temperature) + kl(b, a, temperature)


def cross_entropy(logits: Rows, labels: Rows) -> float:
    """``-1/B sum_b sum_i y_bi log p_bi`` with labels as probabilities."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = softmax(row)
        for i in range(len(row)):
            total -= label[i] * log(p[i])
    return total / len(logits)


def smoothed(labels: Rows, eps: float) -> Rows:
    """Szegedy et al. 2016, section 7: ``q'(k) = (1 - eps) q(k) + eps / K``, the true class included."""
    return [[(1 - eps) * value + eps / len(row) for value in row] for row in labels]


def one_hot(labels: list[int], classes: int) -> Rows:
    """Class indices as probabilities."""
    return [[1.0 if i == label else 0.0 for i in range(classes)] for label in labels]
