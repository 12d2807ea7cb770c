"""R-Drop: two passes of one batch under the model's own dropout, pulled together at temperature 1."""

from torch import Tensor


def loss_total(z_1: Tensor, z_2: Tensor, y: list[int], *, weight: float) -> Tensor:
    """``[CE(z_1) + CE(z_2)] / 2 + alpha * [KL(p_1 || p_2) + KL(p_2 || p_1)] / 2``, a gradient through every side."""
    cross_entropies, divergences = z_1.new_zeros(()), z_1.new_zeros(())
    for row_1, row_2, label in zip(z_1, z_2, y, strict=True):
        p_1, p_2 = distribution(row_1), distribution(row_2)
        cross_entropies = cross_entropies - p_1[label].log() - p_2[label].log()
        for i in range(len(p_1)):
            divergences = divergences + p_1[i] * (p_1[i] / p_2[i]).log() + p_2[i] * (p_2[i] / p_1[i]).log()
    return cross_entropies / len(y) / 2 + weight * divergences / len(y) / 2


def distribution(row: Tensor) -> list[Tensor]:
    """``exp(z_i) / sum_j exp(z_j)``."""
    total = row.new_zeros(())
    for value in row:
        total = total + value.exp()
    return [value.exp() / total for value in row]
