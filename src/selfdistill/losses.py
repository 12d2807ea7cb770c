r"""The divergences as pure functions: Eq. 1 (posterior), 3, 6 and 7 (symmetric KL), and those of the other methods.

Every divergence sums over the classes, averages over the batch, leaves the factor :math:`T^2` to the caller and
computes in float32 at least, also under autocast.

Source: Self-Knowledge Distillation via Dropout, Eq. 1, 3, 6, 7; reduction and temperature as in the authors' code.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Direction = Literal["both", "forward", "reverse"]


def kl(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Kullback-Leibler divergence between two tempered posteriors.

    .. math::
        D_{KL}(p \| q) = \frac{1}{B} \sum_{b=1}^{B} \sum_{i=1}^{C} p_{bi} \log \frac{p_{bi}}{q_{bi}},
        \qquad p = \mathrm{softmax}(t / T), \quad q = \mathrm{softmax}(z / T) \quad \text{(Eq. 1)}

    where :math:`t` are the target logits, :math:`z` the logits and :math:`T` the temperature. The gradient flows
    through *both* arguments: detach the one that shall be a constant.

    Args:
        target_logits: :math:`t`, shape ``(B, C)``.
        logits: :math:`z`, shape ``(B, C)``.
        temperature: :math:`T > 0`.

    Returns:
        A scalar, at least 0, in nats.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.

    Example:
        >>> import torch
        >>> target, logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> round(kl(target, logits).item(), 4)
        0.3278
        >>> kl(target, target).item()
        0.0
    """
    if target_logits.shape != logits.shape:
        raise ValueError(
            f"kl compares logits of one shape, not {tuple(target_logits.shape)} with {tuple(logits.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    log_p = F.log_softmax(at_least_float32(target_logits) / temperature, dim=-1)
    log_q = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def symmetric_kl(a: Tensor, b: Tensor, temperature: float = 3.0, direction: Direction = "both") -> Tensor:
    r"""Symmetric KL between the posteriors of two logits: the SD-Dropout loss.

    .. math::
        \text{both:}\quad & D_{KL}(p_\theta \| q_\theta) + D_{KL}(q_\theta \| p_\theta) && \text{(Eq. 3)} \\
        \text{forward:}\quad & D_{KL}(p \| q_\theta) + D_{KL}(q \| p_\theta) && \text{(Eq. 6)} \\
        \text{reverse:}\quad & D_{KL}(p_\theta \| q) + D_{KL}(q_\theta \| p) && \text{(Eq. 7)}

    where :math:`p = \mathrm{softmax}(a/T)`, :math:`q = \mathrm{softmax}(b/T)`, and a posterior written without
    :math:`\theta` is a constant: no gradient passes through it. The three have one *value*; their gradients differ, and
    that of ``both`` is the sum of the other two (Lemma 1). No :math:`T^2` here: it belongs to the weight (Eq. 4).

    Args:
        a: logits under the first mask, shape ``(B, C)``.
        b: logits under the second mask, shape ``(B, C)``.
        temperature: :math:`T > 0`; the paper's runs use 3.
        direction: which gradient is let through.

    Returns:
        A scalar, at least 0, in nats.

    Raises:
        ValueError: an unknown direction, unequal shapes, or a temperature that is not positive.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> round(symmetric_kl(a, b).item(), 4)
        0.2311
    """
    if direction == "both":
        return kl(a, b, temperature) + kl(b, a, temperature)
    if direction == "forward":
        return kl(a.detach(), b, temperature) + kl(b.detach(), a, temperature)
    if direction == "reverse":
        return kl(a, b.detach(), temperature) + kl(b, a.detach(), temperature)
    raise ValueError(f"direction must be 'both', 'forward' or 'reverse', not {direction!r}")


def soft_kl(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Kullback-Leibler divergence of a tempered posterior from given probabilities.

    .. math::
        D_{KL}(q \| p) = \frac{1}{B} \sum_{b=1}^{B} \sum_{i=1}^{C} q_{bi} \log \frac{q_{bi}}{p_{bi}},
        \qquad p = \mathrm{softmax}(z / T)

    For targets that are no posterior of one network: a mean of several, or labels mixed with one. The gradient flows
    through both arguments.

    Args:
        target: :math:`q`, probabilities, shape ``(B, C)``; a probability of 0 adds 0.
        logits: :math:`z`, shape ``(B, C)``.
        temperature: :math:`T > 0`; of the logits alone, the target is taken as it is.

    Returns:
        A scalar, at least 0, in nats.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.

    Example:
        >>> import torch
        >>> round(soft_kl(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])).item(), 4)  # log 2
        0.6931
    """
    if target.shape != logits.shape:
        raise ValueError(f"soft_kl compares one shape, not {tuple(target.shape)} with {tuple(logits.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    log_p = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    return F.kl_div(log_p, at_least_float32(target), reduction="batchmean")


def mmd(a: Tensor, b: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy of two batches of features under the linear kernel (DDGSD).

    .. math::
        \mathrm{MMD}^2 = \Big\| \frac{1}{B} \sum_b a_b - \frac{1}{B} \sum_b b_b \Big\|_2^2

    The sum is over the D features, not their mean; the gradient flows through both arguments.

    Args:
        a: features, shape ``(B, D)``.
        b: features, shape ``(B', D)``.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the two have different numbers of features.

    Example:
        >>> import torch
        >>> mmd(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.zeros(2, 2)).item()
        4.0
    """
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"mmd compares features of one shape, not {tuple(a.shape)} with {tuple(b.shape)}")
    return (at_least_float32(a).mean(dim=0) - at_least_float32(b).mean(dim=0)).square().sum()


def at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32, others as they are; every loss is computed on these.

    bfloat16 keeps three digits: a KL of 1e-3 between neighbouring posteriors would be noise.

    Example:
        >>> import torch
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
