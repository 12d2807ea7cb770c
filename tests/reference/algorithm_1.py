"""Algorithm 1 of the paper, line by line, with the masks given: ``u`` and ``v`` hold 0 or 1 / (1 - beta).

Tensors, so that autograd gives its gradient; the sums are loops. Eq. 4's T**2 is in (the algorithm leaves it out).
"""

from collections.abc import Callable

from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def loss_total(
    backbone: Layer,
    classifier: Layer,
    x: Tensor,
    y: list[int],
    u: Tensor,
    v: Tensor,
    *,
    weight: float,
    temperature: float,
    direction: str = "both",
) -> Tensor:
    """``loss_ce + lambda * T**2 * loss_kd``."""
    feat = backbone(x)
    output = classifier(feat)
    loss_ce = ce_loss(output, y)
    feat_dps = [feat * u, feat * v]
    output_dp1, output_dp2 = [classifier(feat_dps[i]) for i in range(2)]
    loss_kd = loss_kd_of(output_dp1, output_dp2, temperature, direction)
    return loss_ce + weight * temperature**2 * loss_kd


def loss_kd_of(output_dp1: Tensor, output_dp2: Tensor, temperature: float, direction: str) -> Tensor:
    """Eq. 3 ("both"), Eq. 6 ("forward": the posterior before the bar is a constant), Eq. 7 ("reverse": after it)."""
    constant_1, constant_2 = output_dp1.detach(), output_dp2.detach()
    if direction == "forward":
        pairs = [(constant_1, output_dp2), (constant_2, output_dp1)]
    elif direction == "reverse":
        pairs = [(output_dp1, constant_2), (output_dp2, constant_1)]
    else:
        pairs = [(output_dp1, output_dp2), (output_dp2, output_dp1)]
    return kl_div_loss(*pairs[0], temperature) + kl_div_loss(*pairs[1], temperature)


def kl_div_loss(p_logits: Tensor, q_logits: Tensor, temperature: float) -> Tensor:
    """``1/B sum_b sum_i p_bi log(p_bi / q_bi)``."""
    total = p_logits.new_zeros(())
    for b in range(len(p_logits)):
        p, q = _softmax(p_logits[b] / temperature), _softmax(q_logits[b] / temperature)
        for i in range(len(p)):
            total = total + p[i] * (p[i] / q[i]).log()
    return total / len(p_logits)


def ce_loss(output: Tensor, y: list[int]) -> Tensor:
    """``-1/B sum_b log p_b(y_b)``."""
    total = output.new_zeros(())
    for b, label in enumerate(y):
        total = total - _softmax(output[b])[label].log()
    return total / len(y)


def _softmax(z: Tensor) -> Tensor:
    return z.exp() / z.exp().sum()
