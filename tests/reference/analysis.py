"""Lemma 1, Assumptions 1 and 2 and Proposition 1 for one class or one image, written down term by term."""

from collections.abc import Callable
from decimal import Decimal
from math import e, log

import torch
from torch import Tensor, nn

Dictionary = dict[str, Tensor]


def posterior_jacobian(
    module: nn.Module, logits: Callable[[Dictionary], Tensor], temperature: float
) -> list[Dictionary]:
    """``∂p_i / ∂θ`` for each class i of one image, by forward definition: ``jacrev`` of the softmax itself.

    ``logits`` takes the module's parameters to logits ``(C,)``.
    """
    parameters = {name: weight.detach() for name, weight in module.named_parameters()}
    jacobian = torch.func.jacrev(lambda weights: torch.softmax(logits(weights) / temperature, dim=0))(parameters)
    classes = len(next(iter(jacobian.values())))
    return [{name: jacobian[name][i] for name in jacobian} for i in range(classes)]


def l1(gradient: Dictionary) -> float:
    """``||.||_1`` of all weights as one vector."""
    return sum(float(part.abs().sum()) for part in gradient.values())


def lemma_1(p: list[float], q: list[float], dp: list[Dictionary], dq: list[Dictionary], direction: str) -> Dictionary:
    """The right side of Eq. 8 ("forward") or Eq. 9 ("reverse")."""
    total = {name: torch.zeros_like(part) for name, part in dp[0].items()}
    for i in range(len(p)):
        for name in total:
            if direction == "forward":
                total[name] += (1 - p[i] / q[i]) * dq[i][name] + (1 - q[i] / p[i]) * dp[i][name]
            else:
                total[name] += log(p[i] / q[i]) * dp[i][name] + log(q[i] / p[i]) * dq[i][name]
    return total


def assumption_1(p: float, q: float, dp: float, dq: float) -> bool:
    """``(|p / q| - 1)(|dp / dq| - 1) > 0``."""
    return (p / q - 1) * (dp / dq - 1) > 0


def r_and_r_1(p: float, q: float, dp: float, dq: float) -> tuple[float, float]:
    """``r = |log(p / q)|`` and ``r_1 = log rho + log log(rho + (e - 1))``, rho the larger norm over the smaller."""
    rho = max(dp / dq, dq / dp)
    return abs(log(p / q)), log(rho) + log(log(rho + (e - 1)))


def reverse_and_forward(p: float, q: float, dp: float, dq: float) -> tuple[float, float]:
    """The first and the last two terms of Eq. 10."""
    return abs(log(p / q)) * dq + abs(log(q / p)) * dp, abs(1 - p / q) * dq + abs(1 - q / p) * dp


def k(r: Decimal, rho: Decimal) -> Decimal:
    """``k(r) = (1 + rho) r - ((e^r - 1) + rho (1 - e^-r))``: D_i over the smaller one's gradient (Eq. 23)."""
    return (1 + rho) * r - ((r.exp() - 1) + rho * (1 - (-r).exp()))


def zero_of_k(rho: Decimal) -> Decimal:
    """``r* > 0`` with ``k(r*) = 0``, for rho > 1, by Newton's steps.

    They start at 1.1 r_1, which is beyond r* since r_1 / r* > 0.91; k is concave there, so they fall towards r*.
    """
    r = (rho.ln() + (rho - 1 + Decimal(1).exp()).ln().ln()) * Decimal("1.1")
    while True:
        following = r - k(r, rho) / ((1 - r.exp()) + rho * (1 - (-r).exp()))
        if not following < r:
            return r
        r = following


def printed_slope(rho: Decimal) -> Decimal:
    """Eq. 25 as it is printed, which is not l'; with E = rho + e - 1 and L = log E."""
    shifted = rho - 1 + Decimal(1).exp()
    logarithm = shifted.ln()
    first = -1 / (shifted * logarithm**2) - 1 / (rho * logarithm) - rho / shifted
    second = (rho + 1) / (shifted * logarithm) + 1 + 1 / rho - logarithm - 1 + rho.ln()
    return first + second + logarithm.ln() / (rho * logarithm)
