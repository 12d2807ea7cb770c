"""What Assumptions 1, 2 and Proposition 1 compare: p_i, q_i and the L1 norms of their gradients, for every class i."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn

from selfdistill.evaluation.gradient import scoring
from selfdistill.evaluation.images import Images, read_features
from selfdistill.network import eager
from selfdistill.paper.analysis import masks
from selfdistill.paper.analysis.masks import PAPER, Conditions

Weights = Literal["head", "all"]
"""What a gradient is taken with respect to: the head's weights, or all."""


@dataclass(frozen=True, eq=False)
class Components:
    """N images under two masks each, class by class. Natural logarithms, (N, C), float64, on the CPU.

    Attributes:
        log_p: log posterior under the mask u, at T.
        log_q: under v.
        log_dp: log L1 norm of the gradient of p_i.
        log_dq: of q_i.
        weights: what the gradients are taken with respect to.
        conditions: the masks and T.
    """

    log_p: Tensor
    log_q: Tensor
    log_dp: Tensor
    log_dq: Tensor
    weights: Weights = "head"
    conditions: Conditions = PAPER


def measure_components(
    model: nn.Module, images: Images, weights: Weights = "head", conditions: Conditions = PAPER
) -> Components:
    """Measure both posteriors of each image and the norms of their gradients, in evaluation mode.

    With respect to a linear head's weights the norms have a closed form. With respect to all weights, or those of
    another head, each image takes a backward pass for each class and mask: on one core a ResNet-18 of CIFAR with
    100 classes takes about 20 seconds per image.

    Args:
        model: on the images' device.
        images: see `selfdistill.evaluation.images.Images`.
        weights: "head" or "all"; an image has the same masks either way.
        conditions: the masks and T.

    Raises:
        ValueError: images, a head or trainable weights are missing, the model is of half precision, a logit is not
            finite, or a mask leaves an image without a gradient.
    """
    parts = _head_parts if weights == "head" else _model_parts
    log_posteriors, log_norms = [], []
    for log_posterior, reaches in parts(model, images, conditions):
        log_posteriors.append(log_posterior)
        log_norms.append(log_gradient_norms(log_posterior, reaches, conditions.temperature))
    log_p, log_q = torch.cat(log_posteriors, dim=1)
    log_dp, log_dq = torch.cat(log_norms, dim=1)
    lost = int((torch.isneginf(log_dp) | torch.isneginf(log_dq)).any(dim=1).sum())
    if lost:
        raise ValueError(
            f"a mask leaves {lost} of {len(log_p)} images without a gradient (every feature dropped, and no bias); "
            "lower `p`"
        )
    return Components(log_p, log_q, log_dp, log_dq, weights, conditions)


def log_gradient_norms(log_p: Tensor, reach: Tensor, temperature: float) -> Tensor:
    """Return log ||∇θ p_i||_1 = log p_i + log(1 - p_i) - log T + log R_i.

    ∂p_i / ∂z_j = p_i (δ_ij - p_j) / T, so that ∇θ p_i = p_i (1 - p_i) / T * sum_j c_ij ∇θ z_j with c_ii = 1 and
    c_ij = -p_j / (1 - p_i). The reach R_i is the L1 norm of that sum, which no small probability makes small: see
    `linear_reach` and `measure_reach`.

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
    """Return R = 2 (||f||_1 + 1) for every class of a linear head, or 2 ||f||_1 if it has no bias.

    ∂z_j / ∂W_jk = f_k and ∂z_j / ∂b_j = 1, so that R_i = (||f||_1 + 1) sum_j |c_ij|; the c_ij of each i sum to 2.

    Args:
        head: any module.
        features: f, its input, after the mask: (..., D), or maps (..., D, 1, 1) for a 1 x 1 convolution.

    Returns:
        (..., 1), float64; None if the head is not a plain linear layer.

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


def measure_reach(logits: Tensor, log_p: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Measure R_1 .. R_C of one image by as many backward passes; the graph remains.

    Args:
        logits: z, (C,), with the graph that leads to the weights.
        log_p: its log posterior at T, (C,), float64.
        weights: θ.

    Returns:
        (C,), float64, on the CPU.

    Example:
        >>> head, f = nn.Linear(2, 3), torch.tensor([1.0, -3.0])
        >>> z = head(f)
        >>> measure_reach(z, z.detach().double().log_softmax(0), [head.weight, head.bias])
        tensor([10.0000, 10.0000, 10.0000], dtype=torch.float64)
    """
    share = -(log_p[None, :] - _log_others(log_p)[:, None]).exp()  # c_ij: at most 1, however sure the network is
    norms = []
    for row in share.fill_diagonal_(1).to(logits):
        slopes = torch.autograd.grad(logits, weights, row, retain_graph=True, allow_unused=True)
        norms.append(sum(slope.abs().sum(dtype=torch.float64) for slope in slopes if slope is not None))
    return torch.stack([torch.as_tensor(norm, dtype=torch.float64) for norm in norms]).cpu()


def _log_others(log_p: Tensor) -> Tensor:
    """Return log(1 - p_i), also where p_i is 1 to the last bit: there it is the sum of the others."""
    top = log_p.argmax(dim=-1, keepdim=True)
    others = log_p.scatter(-1, top, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.log1p(-log_p.exp()).scatter(-1, top, others)


_Parts = Iterator[tuple[Tensor, Tensor]]
"""Of some images after others: log posteriors (2, B, C) and R, (2, B, C) or (2, B, 1); float64, on the CPU."""


def _head_parts(model: nn.Module, images: Images, conditions: Conditions) -> _Parts:
    reading = read_features(model, images.batches())
    module = reading.head.module
    in_closed_form = linear_reach(module, reading.features[:1]) is not None
    rows = images.batch_size if in_closed_form else 1
    for first, features in zip(count(0, rows), torch.split(reading.features, rows)):
        pair = masks.drop_twice(features.to(images.device), conditions, first=first)
        with scoring(module, pair), torch.set_grad_enabled(not in_closed_form):
            logits = masks.classify_pair(reading.head, pair)
            reaches = linear_reach(module, pair)
            log_posterior = _log_posterior(logits, conditions)
            if reaches is None:
                reaches = _pair_reach(logits, log_posterior, masks.trainable_weights(module))
        yield log_posterior, reaches.cpu()


def _model_parts(model: nn.Module, images: Images, conditions: Conditions) -> _Parts:
    with masks.tap_head(model, images) as tap:
        weights = masks.trainable_weights(eager(model))
        for first, (x, _) in enumerate(replace(images, batch_size=1).batches()):
            with scoring(model, x), torch.enable_grad():
                logits = masks.forward_pair(model, tap, x, conditions, first=first)
                log_posterior = _log_posterior(logits, conditions)
                reaches = _pair_reach(logits, log_posterior, weights)
            yield log_posterior, reaches


def _pair_reach(logits: Tensor, log_posterior: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Return R, (2, 1, C), of one image under two masks."""
    return torch.stack([measure_reach(logits[u, 0], log_posterior[u, 0], weights)[None] for u in range(2)])


def _log_posterior(logits: Tensor, conditions: Conditions) -> Tensor:
    return (logits.detach().cpu().double() / conditions.temperature).log_softmax(dim=-1)
