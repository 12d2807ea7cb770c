"""The symmetric KL, both ways or one (Eq. 3, 6, 7), with its gradient in closed form (Lemma 1)."""

from functools import reduce
from operator import add
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill.losses.precision import at_least_float32

Direction = Literal["both", "forward", "reverse"]


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
            # Equal probabilities add 0: of a class that is masked with -inf the logarithms' difference is none.
            sums.append(((p[0] - p[1]) * (log_p[0] - log_p[1]).masked_fill(p[0] == p[1], 0)).sum())
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
    log_ratio = (log_p - log_q).masked_fill(p == 0, 0)
    beyond_mean = log_ratio - (p * log_ratio).sum(dim=-1, keepdim=True)
    return p * beyond_mean if direction == "reverse" else torch.addcmul(p - q, p, beyond_mean)
