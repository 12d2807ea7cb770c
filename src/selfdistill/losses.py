r"""The divergences as pure functions: Eq. 1 (posterior), 3, 6 and 7 (symmetric KL), and those of the other methods.

Every divergence sums over the classes, averages over the batch, leaves the factor :math:`T^2` to the caller and
computes in float32 at least, also under autocast.

Source: Self-Knowledge Distillation via Dropout, Eq. 1, 3, 6, 7; reduction and temperature as in the authors' code.
"""

from functools import reduce
from operator import add
from typing import Any, Literal

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
    if a.shape != b.shape:
        raise ValueError(f"symmetric_kl compares logits of one shape, not {tuple(a.shape)} with {tuple(b.shape)}")
    return symmetric_kl_of_samples(torch.stack((a, b)), temperature, direction)


def symmetric_kl_of_samples(samples: Tensor, temperature: float = 3.0, direction: Direction = "both") -> Tensor:
    """:func:`symmetric_kl` of logits that stand in one tensor already, ``(2, B, C)``; nothing is copied.

    Raises:
        ValueError: an unknown direction, another shape, or a temperature that is not positive.

    Example:
        >>> import torch
        >>> samples = torch.tensor([[[3.0, 0.0]], [[0.0, 0.0]]])
        >>> round(symmetric_kl_of_samples(samples).item(), 4)
        0.2311
    """
    if direction not in ("both", "forward", "reverse"):
        raise ValueError(f"direction must be 'both', 'forward' or 'reverse', not {direction!r}")
    if samples.dim() != 3 or samples.shape[0] != 2:
        raise ValueError(f"symmetric_kl_of_samples takes logits (2, B, C), not {tuple(samples.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    value: Tensor = _SymmetricKL.apply(samples, temperature, direction)
    return value


class _SymmetricKL(torch.autograd.Function):
    r"""Eq. 3, 6 and 7 of two logits z ``(2, B, C)``, with the gradient in closed form (Lemma 1).

    .. math::
        L = \frac{1}{B} \sum_{bi} (p - q)_{bi} \log \frac{p_{bi}}{q_{bi}}, \qquad
        T B \, \frac{\partial L}{\partial z_{bi}}
            = \underbrace{(p - q)_{bi}}_{\text{forward}}
            + \underbrace{p_{bi} \Big( \log \frac{p_{bi}}{q_{bi}} - D_{KL}(p_b \| q_b) \Big)}_{\text{reverse}}

    where q is the posterior of the other logits. Nothing but z is kept for it: plain autograd keeps seven ``(B, C)``
    tensors, which weighs where there are many classes. L is a sum of terms that are never negative: nothing cancels.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, temperature: float, direction: Direction) -> Tensor:
        sums = []
        for part in _in_parts(z):
            log_p = _log_posterior(part, temperature)
            p = log_p.exp()
            sums.append(((p[0] - p[1]) * (log_p[0] - log_p[1])).sum())
        value: Tensor = reduce(add, sums) / z.shape[1]
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, Direction], output: Tensor) -> None:
        z, ctx.temperature, ctx.direction = inputs
        ctx.save_for_backward(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        scale: Tensor = gradient / (ctx.temperature * z.shape[1])

        def of_part(part: Tensor) -> Tensor:
            return scale * _times_temperature(_log_posterior(part, ctx.temperature), ctx.direction)

        parts = _in_parts(z)
        if len(parts) == 1:
            return of_part(z).to(z.dtype), None, None
        whole = torch.empty_like(z)
        for part, place in zip(parts, _in_parts(whole), strict=True):
            place.copy_(of_part(part))
        return whole, None, None


_PART = 2**20
"""Logits that are worked on at a time: what lives only meanwhile stays small beside very many."""


def _in_parts(z: Tensor) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling():  # a compiler keeps nothing meanwhile, and would unroll the parts
        return (z,)
    rows = max(1, _PART // (2 * z.shape[-1]))
    return torch.split(z, rows, dim=1) if z.shape[1] > rows else (z,)


def _log_posterior(z: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(at_least_float32(z) / temperature, dim=-1)


def _times_temperature(log_p: Tensor, direction: Direction) -> Tensor:
    """Lemma 1, times T: the forward part, the reverse part, or their sum."""
    p, log_q = log_p.exp(), log_p.flip(0)
    q = p.flip(0)
    if direction != "both":  # the other side is a constant, for a second derivative too
        q, log_q = q.detach(), log_q.detach()
    if direction == "forward":
        return p - q
    log_ratio = log_p - log_q
    beyond_mean = log_ratio - (p * log_ratio).sum(dim=-1, keepdim=True)
    return p * beyond_mean if direction == "reverse" else torch.addcmul(p - q, p, beyond_mean)


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
