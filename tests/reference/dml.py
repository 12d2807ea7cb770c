"""DML as run for the paper: two networks on the same images learn from each other's posterior, each a constant."""

from torch import Tensor


def loss_total(z_1: Tensor, z_2: Tensor, y: list[int], *, weight: float, temperature: float) -> Tensor:
    """``0.5 [CE(z_1) + CE(z_2)] + lambda * T**2 * [KL(sg p_2 || p_1) + KL(sg p_1 || p_2)]``."""
    label_loss = 0.5 * (label_loss_of(z_1, y) + label_loss_of(z_2, y))  # averaged, where the divergences are summed
    mutual = kl_from_peer(z_2, z_1, temperature) + kl_from_peer(z_1, z_2, temperature)
    return label_loss + weight * temperature**2 * mutual


def kl_from_peer(z_peer: Tensor, z_own: Tensor, temperature: float) -> Tensor:
    """``1/B sum_b sum_i p_peer log(p_peer / p_own)`` at temperature T; no gradient into the peer."""
    p_peer, p_own = softened(z_peer.detach(), temperature), softened(z_own, temperature)
    batch, classes = z_own.shape
    return sum(
        (p_peer[b][i] * (p_peer[b][i] / p_own[b][i]).log() for b in range(batch) for i in range(classes)),
        start=z_own.new_zeros(()),
    ) / len(z_own)


def label_loss_of(z: Tensor, y: list[int]) -> Tensor:
    """``-1/B sum_b log p_b(y_b)``."""
    p = softened(z, 1.0)
    return sum((-p[b][label].log() for b, label in enumerate(y)), start=z.new_zeros(())) / len(y)


def softened(z: Tensor, temperature: float) -> list[list[Tensor]]:
    """``softmax(z / T)`` of each row."""
    rows = []
    for row in z:
        powers = [(value / temperature).exp() for value in row]
        rows.append([power / sum(powers) for power in powers])
    return rows
