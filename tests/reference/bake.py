"""BAKE: the soft targets of a batch are its own posteriors, spread over images whose features are alike."""

from math import exp, sqrt

from torch import Tensor

Rows = list[list[float]]


def loss_total(z: Tensor, features: Tensor, y: list[int], *, weight: float, temperature: float, omega: float) -> Tensor:
    """``CE(z, y) + lambda * T**2 * KL(Q || softmax(z / T))``, Q a constant; sum over classes, mean over the batch."""
    targets = ensembled(z.tolist(), features.tolist(), temperature=temperature, omega=omega)
    total = z.new_zeros(())
    for row, target, label in zip(z, targets, y, strict=True):
        total = total + row.exp().sum().log() - row[label]
        below = (row / temperature).exp().sum().log()
        for i in range(len(target)):
            log_ratio = -(row[i] / temperature - below) + Tensor.log(row.new_tensor(target[i]))
            total = total + weight * temperature**2 * target[i] * log_ratio
    return total / len(y)


def ensembled(z: Rows, features: Rows, *, temperature: float, omega: float, rounds: int = 400) -> Rows:
    """``Q = (1 - omega) (I - omega A)^-1 P``, as the limit of ``Q_t = omega A Q_(t-1) + (1 - omega) P``.

    P are the posteriors at temperature T, A the row softmax of the cosine similarities, an image's own left out.
    """
    a, p = affinity(features), [softmax([value / temperature for value in row]) for row in z]
    size, classes = len(p), len(p[0])
    q = p
    for _ in range(rounds):
        q = [
            [omega * sum(a[i][j] * q[j][c] for j in range(size)) + (1 - omega) * p[i][c] for c in range(classes)]
            for i in range(size)
        ]
    return q


def affinity(features: Rows) -> Rows:
    """``A_ij = exp(cos(f_i, f_j)) / sum_(k != i) exp(cos(f_i, f_k))`` for j != i, and 0 for j = i."""
    size = len(features)
    result = []
    for i in range(size):
        others = [j for j in range(size) if j != i]
        shares = softmax([cosine(features[i], features[j]) for j in others])
        row = [0.0] * size
        for j, share in zip(others, shares, strict=True):
            row[j] = share
        result.append(row)
    return result


def cosine(a: list[float], b: list[float]) -> float:
    """``<a, b> / (|a| |b|)``."""
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / sqrt(sum(x * x for x in a)) / sqrt(sum(y * y for y in b))


def softmax(row: list[float]) -> list[float]:
    """``exp(z_i) / sum_j exp(z_j)``."""
    return [exp(value) / sum(exp(each) for each in row) for value in row]
