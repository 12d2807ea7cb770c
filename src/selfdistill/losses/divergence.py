"""Kullback-Leibler divergence of a posterior (Eq. 1), of given probabilities, and the discrepancy of features."""

import torch.nn.functional as F
from torch import Tensor

from selfdistill.losses.precision import at_least_float32


def kl(target_logits: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Kullback-Leibler divergence between two tempered posteriors.

    .. math::
        D_{KL}(p \| q) = \frac{1}{B} \sum_{b=1}^{B} \sum_{i=1}^{C} p_{bi} \log \frac{p_{bi}}{q_{bi}},
        \qquad p = \mathrm{softmax}(t / T), \quad q = \mathrm{softmax}(z / T) \quad \text{(Eq. 1)}

    where :math:`t` are the target logits, :math:`z` the logits and :math:`T` the temperature. A class of :math:`p = 0`
    adds 0. The gradient flows through *both* arguments: detach the one that shall be a constant.

    Args:
        target_logits: :math:`t`, shape ``(B, C)``.
        logits: :math:`z`, shape ``(B, C)``.
        temperature: :math:`T > 0`.

    Returns:
        A scalar, at least 0, in nats; infinite where q is 0 and p is not.

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
    p = log_p.exp()
    return (p * (log_p - log_q).masked_fill(p == 0, 0)).sum() / len(p)


def soft_kl(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Kullback-Leibler divergence of a tempered posterior from given probabilities.

    .. math::
        D_{KL}(q \| p) = \frac{1}{B} \sum_{b=1}^{B} \sum_{i=1}^{C} q_{bi} \log \frac{q_{bi}}{p_{bi}},
        \qquad p = \mathrm{softmax}(z / T)

    For targets that are not the posterior of one network: a mean of several, or labels mixed with one. The gradient
    flows through both arguments.

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
    return F.kl_div(log_p.masked_fill(target == 0, 0), at_least_float32(target), reduction="batchmean")


def mmd(a: Tensor, b: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy of two batches of features under the linear kernel (DDGSD).

    .. math::
        \mathrm{MMD}^2 = \left\| \frac{1}{B} \sum_b a_b - \frac{1}{B} \sum_b b_b \right\|_2^2

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
