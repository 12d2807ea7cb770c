"""L1 norms of the gradients of a posterior: for a linear head in closed form, otherwise one class after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def log_gradient_norms(log_p: Tensor, reach: Tensor, temperature: float) -> Tensor:
    """log ||∇θ p_i||_1 = log p_i + log(1 - p_i) - log T + log R_i.

    ∂p_i / ∂z_j = p_i (δ_ij - p_j) / T, so that ∇θ p_i = p_i (1 - p_i) / T * sum_j c_ij ∇θ z_j with c_ii = 1 and
    c_ij = -p_j / (1 - p_i). The reach R_i is the L1 norm of that sum, which no small probability makes small: see
    `linear_reach` and `reach`.

    Args:
        log_p: log posteriors at T, (..., C), float64.
        reach: R, (..., C) or (..., 1), > 0.
        temperature: T > 0.

    Returns:
        (..., C), float64, natural logarithms.

    Example:
        >>> p = torch.tensor([0.25, 0.75], dtype=torch.float64)
        >>> log_gradient_norms(p.log(), torch.tensor([2.0]), 3.0).exp()  # 2 * 0.25 * 0.75 / 3
        tensor([0.1250, 0.1250], dtype=torch.float64)
    """
    return log_p + _log_others(log_p) + reach.double().log() - math.log(temperature)


def linear_reach(head: nn.Module, features: Tensor) -> Tensor | None:
    """R = 2 (||f||_1 + 1) for every class of a linear head, or 2 ||f||_1 where it has no bias.

    ∂z_j / ∂W_jk = f_k and ∂z_j / ∂b_j = 1, so that R_i = (||f||_1 + 1) sum_j |c_ij|; the c_ij of each i sum to 2.

    Args:
        head: any module.
        features: f, its input, after the mask: (..., D), or maps (..., D, 1, 1) for a 1 x 1 convolution.

    Returns:
        (..., 1), float64; None where the head is no plain linear layer.

    Example:
        >>> linear_reach(nn.Linear(2, 3), torch.tensor([[1.0, -3.0]]))
        tensor([[10.]], dtype=torch.float64)
    """
    if type(head) is nn.Linear:  # no subclass: one that makes its weights of others has other gradients
        flat = features
    elif type(head) is nn.Conv2d and head.kernel_size == (1, 1) and head.groups == 1:
        flat = features.flatten(-3)
    else:
        return None
    return 2 * (flat.double().abs().sum(dim=-1, keepdim=True) + (head.bias is not None))


def reach(logits: Tensor, log_p: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """R_1 .. R_C of one image by as many backward passes; the graph is kept.

    Args:
        logits: z, (C,), with the graph that leads to the weights.
        log_p: its log posterior at T, (C,), float64.
        weights: θ.

    Returns:
        (C,), float64, on the CPU.

    Example:
        >>> head, f = nn.Linear(2, 3), torch.tensor([1.0, -3.0])
        >>> z = head(f)
        >>> reach(z, z.detach().double().log_softmax(0), [head.weight, head.bias])
        tensor([10.0000, 10.0000, 10.0000], dtype=torch.float64)
    """
    share = -(log_p[None, :] - _log_others(log_p)[:, None]).exp()  # c_ij: at most 1, however sure the network is
    norms = []
    for row in share.fill_diagonal_(1).to(logits):
        slopes = torch.autograd.grad(logits, weights, row, retain_graph=True, allow_unused=True)
        norms.append(sum(slope.abs().sum(dtype=torch.float64) for slope in slopes if slope is not None))
    return torch.stack([torch.as_tensor(norm, dtype=torch.float64) for norm in norms]).cpu()


def _log_others(log_p: Tensor) -> Tensor:
    """log(1 - p_i), also where p_i is 1 to the last bit: there it is the sum of the others."""
    top = log_p.argmax(dim=-1, keepdim=True)
    others = log_p.scatter(-1, top, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.log1p(-log_p.exp()).scatter(-1, top, others)
