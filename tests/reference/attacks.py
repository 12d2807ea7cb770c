"""FGSM of a linear classifier, a loop for every sum. Lists of floats in, a list of floats out."""

from math import exp

Row = list[float]


def sign(value: float) -> float:
    """1, 0 or -1."""
    return float((value > 0) - (value < 0))


def logits(weights: list[Row], x: Row) -> Row:
    """``z_c = sum_j W_cj x_j``."""
    return [sum(w * v for w, v in zip(row, x, strict=True)) for row in weights]


def loss_gradient(weights: list[Row], x: Row, label: int, temperature: float = 1.0) -> Row:
    """``d CE(z / T, y) / dx_j = sum_c (softmax(z / T)_c - [c = y]) W_cj / T``."""
    z = logits(weights, x)
    total = sum(exp(value / temperature) for value in z)
    gradient = []
    for j in range(len(x)):
        slope = 0.0
        for c in range(len(z)):
            slope += (exp(z[c] / temperature) / total - (c == label)) * weights[c][j] / temperature
        gradient.append(slope)
    return gradient


def prediction(weights: list[Row], x: Row) -> int:
    """The class of the largest logit."""
    z = logits(weights, x)
    return z.index(max(z))


def paper(weights: list[Row], x: Row, eps: float) -> Row:
    """The four steps behind Table 5, in normalised units."""
    label = prediction(weights, x)  # 1: the model's own answer
    attacked = []
    for value, slope in zip(x, loss_gradient(weights, x, label), strict=True):
        moved = value + eps * sign(slope)  # 2: one step
        moved = 0.0 if moved < 0 else 1.0 if moved > 1 else moved  # 3: clipped to (0, 1)
        change = moved - value
        change = -eps if change < -eps else eps if change > eps else change  # 4: the change projected back
        attacked.append(value + change)
    return attacked


def standard(weights: list[Row], x: Row, label: int, eps: float, mean: Row, std: Row) -> Row:
    """One step on the true label, in pixels within [0, 1]; ``mean`` and ``std`` of each position."""
    attacked = []
    for value, slope, m, s in zip(x, loss_gradient(weights, x, label), mean, std, strict=True):
        pixel = value * s + m + eps * sign(slope)
        pixel = 0.0 if pixel < 0 else 1.0 if pixel > 1 else pixel
        attacked.append((pixel - m) / s)
    return attacked


def odin_input(weights: list[Row], x: Row, eps: float, temperature: float, std: Row) -> Row:
    """``x - eps * s / std``, s the sign of the gradient of ``-log softmax(z / T)`` of the predicted class, +1 at 0."""
    label = prediction(weights, x)
    moved = []
    for value, slope, s in zip(x, loss_gradient(weights, x, label, temperature), std, strict=True):
        moved.append(value - eps * (1.0 if slope >= 0 else -1.0) / s)
    return moved


def odin(weights: list[Row], x: Row, eps: float, temperature: float, std: Row) -> float:
    """The largest of ``softmax(z' / T)``, at the moved input."""
    z = logits(weights, odin_input(weights, x, eps, temperature, std))
    return max(exp(value / temperature) for value in z) / sum(exp(value / temperature) for value in z)
