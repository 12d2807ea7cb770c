"""CS-KD as run for the paper: an image learns what the network says now of another image of its class.

``z`` are the logits of the anchors, ``z_partner`` those of their partners, passed separately and in train mode.
"""

from torch import Tensor


def loss_total(z: Tensor, z_partner: Tensor, y: list[int], *, weight: float, temperature: float) -> Tensor:
    """``CE(z(x), y) + lambda * T**2 * KL(sg softmax(z(x') / T) || softmax(z(x) / T))``; anchors alone have labels."""
    return ce(z, y) + weight * temperature**2 * kl_to_partner(z, z_partner, temperature)


def kl_to_partner(z: Tensor, z_partner: Tensor, temperature: float) -> Tensor:
    """Sum over the classes, divided by the number of anchors; the partner's posterior is a constant."""
    total = z.new_zeros(())
    for anchor, partner in zip(z, z_partner.detach(), strict=True):
        p = posterior(anchor, temperature)
        q = posterior(partner, temperature)
        for i in range(len(p)):
            total = total + q[i] * (q[i].log() - p[i].log())
    return total / len(z)


def ce(z: Tensor, y: list[int]) -> Tensor:
    """``-1/B sum_b log p_b(y_b)``."""
    total = z.new_zeros(())
    for row, label in zip(z, y, strict=True):
        total = total - posterior(row, 1.0)[label].log()
    return total / len(z)


def posterior(row: Tensor, temperature: float) -> list[Tensor]:
    """``exp(z_i / T) / sum_j exp(z_j / T)``."""
    exponentials = [(value / temperature).exp() for value in row]
    return [each / sum(exponentials) for each in exponentials]
