"""DDGSD as run for the paper: two distorted views of one image say the same, and have the same mean features."""

from torch import Tensor


def loss_total(
    z_a: Tensor, z_b: Tensor, f_a: Tensor, f_b: Tensor, y: list[int], *, weight: float, temperature: float, mu: float
) -> Tensor:
    """``CE(z_a) + CE(z_b) + lambda * T**2 * [KL(sg p_b || p_a) + KL(sg p_a || p_b)] + mu * MMD(f_a, f_b)``."""
    cross_entropies = cross_entropy(z_a, y) + cross_entropy(z_b, y)  # summed, not averaged
    divergences = divergence(z_b, z_a, temperature) + divergence(z_a, z_b, temperature)
    return cross_entropies + weight * temperature**2 * divergences + mu * mean_discrepancy(f_a, f_b)


def divergence(teaching: Tensor, learning: Tensor, temperature: float) -> Tensor:
    """``KL(sg softmax(teaching / T) || softmax(learning / T))``, mean over the images."""
    result = learning.new_zeros(())
    constant = teaching.detach()
    for b in range(len(learning)):
        for i in range(learning.shape[1]):
            target = tempered(constant, b, i, temperature)
            result = result + target * (target / tempered(learning, b, i, temperature)).log()
    return result / len(learning)


def mean_discrepancy(f_a: Tensor, f_b: Tensor) -> Tensor:
    """``|| mean_batch f_a - mean_batch f_b ||**2``: the sum over channels of squared differences, no constant side."""
    result = f_a.new_zeros(())
    for channel in range(f_a.shape[1]):
        mean_a, mean_b = f_a.new_zeros(()), f_b.new_zeros(())
        for b in range(len(f_a)):
            mean_a, mean_b = mean_a + f_a[b, channel] / len(f_a), mean_b + f_b[b, channel] / len(f_b)
        result = result + (mean_a - mean_b) ** 2
    return result


def cross_entropy(z: Tensor, y: list[int]) -> Tensor:
    """``-1/B sum_b log p_b(y_b)``."""
    result = z.new_zeros(())
    for b in range(len(z)):
        result = result - tempered(z, b, y[b], 1.0).log() / len(z)
    return result


def tempered(z: Tensor, b: int, i: int, temperature: float) -> Tensor:
    """``p_bi = exp(z_bi / T) / sum_j exp(z_bj / T)``."""
    below = z.new_zeros(())
    for j in range(z.shape[1]):
        below = below + (z[b, j] / temperature).exp()
    return (z[b, i] / temperature).exp() / below
