"""Lemma 1, Assumptions 1 and 2 and Proposition 1 for one class or one image, written down term by term."""

from collections.abc import Callable
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
