"""Assumptions 1 and 2 (Table 8) and Proposition 1 on a network: for how many components do they hold?

A component is one class of one image. Shares are fractions of the n * classes components.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import torch
from torch import Tensor

from selfdistill.paper.analysis.components import Components, Weights
from selfdistill.paper.analysis.masks import Conditions


def r_1(log_rho: Tensor) -> Tensor:
    """Return r_1 = log rho + log log(rho + e - 1), of log rho >= 0: what Assumption 2 asks r to stay below.

    Args:
        log_rho: any shape, float64, >= 0.

    Example:
        >>> r_1(torch.tensor([0.0, math.log(2)], dtype=torch.float64))
        tensor([0.0000, 0.9657], dtype=torch.float64)
    """
    return log_rho + torch.log1p(torch.log1p(log_rho.expm1() / math.e))  # log(rho + e - 1) = 1 + log1p((rho - 1) / e)


def ratios(components: Components) -> tuple[Tensor, Tensor]:
    """Return r = |log(p_i / q_i)| and log rho, rho the gradient's norm of the larger probability over the smaller's.

    The paper writes r = log(p_i / q_i) and rho = ||∇p_i|| / ||∇q_i|| > 1, which is meant after p and q have changed
    places where p_i < q_i. Assumption 1 is then log rho > 0, of components whose two probabilities differ.

    Returns:
        Two tensors (N, C), float64: r >= 0, and log rho of either sign.

    Example:
        >>> one, two = (torch.tensor([[x]], dtype=torch.float64) for x in (0.1, 0.4))
        >>> ratios(Components(one, two, two, one))
        (tensor([[0.3000]], dtype=torch.float64), tensor([[-0.3000]], dtype=torch.float64))
    """
    apart = components.log_p - components.log_q
    return apart.abs(), (components.log_dp - components.log_dq) * apart.sign()


def check_assumptions(components: Components) -> tuple[Tensor, Tensor]:
    """Return where Assumption 1 holds, and where r <= r_1; (N, C), of truth values.

    Assumption 2 speaks of rho > 1. Where Assumption 1 fails r_1 is taken of 1 / rho, so that there is one to compare.
    """
    r, log_rho = ratios(components)
    return log_rho > 0, r <= r_1(log_rho.abs())


class Averages(msgspec.Struct, frozen=True):
    """Averages over images and classes.

    Attributes:
        mean: the plain one, which ratios of tiny probabilities dominate.
        median: over images and classes.
        weighted: each class weighted by (p_i + q_i) / 2, then the mean over images.
    """

    mean: float
    median: float
    weighted: float


class Assumptions(Conditions, frozen=True, kw_only=True):
    """One row of Table 8.

    Attributes:
        weights: what the gradients are taken with respect to; the paper does not say.
        n: images.
        classes: C.
        first: share of components for which Assumption 1 holds. With two classes it holds for at most one of them.
        first_weighted: the same, each class weighted by (p_i + q_i) / 2.
        second: share with r <= r_1.
        both: share for which both hold.
        r: of |log(p_i / q_i)|.
        r_1: of the bound, rho being the larger gradient's norm over the smaller's.
    """

    weights: Weights
    n: int
    classes: int
    first: float
    first_weighted: float
    second: float
    both: float
    r: Averages
    r_1: Averages


def measure_assumptions(components: Components) -> Assumptions:
    """Count where the assumptions hold, and average r and r_1."""
    r, log_rho = ratios(components)
    first, second = check_assumptions(components)
    weight = (components.log_p.exp() + components.log_q.exp()) / 2

    def weighted_mean(values: Tensor) -> float:
        return float((values.double() * weight).sum(dim=1).mean())

    def average(values: Tensor) -> Averages:
        # numpy's median: torch's is the lower of the two middle values
        return Averages(_mean(values), float(np.median(values.numpy())), weighted_mean(values))

    return Assumptions(
        **msgspec.structs.asdict(components.conditions),
        weights=components.weights,
        n=r.shape[0],
        classes=r.shape[1],
        first=_mean(first),
        first_weighted=weighted_mean(first),
        second=_mean(second),
        both=_mean(first & second),
        r=average(r),
        r_1=average(r_1(log_rho.abs())),
    )


def reverse_and_forward(components: Components) -> tuple[Tensor, Tensor]:
    """Return the two sums of which D_i is the difference (Eq. 10, 18), the norms of the gradients put in.

        reverse_i = |log(p_i / q_i)| ||∇q_i|| + |log(q_i / p_i)| ||∇p_i||
        forward_i = |1 - p_i / q_i| ||∇q_i|| + |1 - q_i / p_i| ||∇p_i||

    Both are without cancellation; their difference loses digits where p_i and q_i are close, see `differences`.

    Returns:
        (reverse, forward), (N, C), float64.

    Example:
        >>> x = torch.tensor([[1.0]], dtype=torch.float64)  # p = e q, and unit gradients: 2 and (e - 1) + (1 - 1 / e)
        >>> reverse_and_forward(Components(x - 2, x - 3, 0 * x, 0 * x))
        (tensor([[2.]], dtype=torch.float64), tensor([[2.3504]], dtype=torch.float64))
    """
    r, larger, smaller = _by_size(components)
    return r * (larger + smaller), r.expm1() * smaller - torch.expm1(-r) * larger


def differences(components: Components) -> Tensor:
    """Return D_i = reverse_i - forward_i = (r + e^-r - 1) ||∇larger|| - (e^r - 1 - r) ||∇smaller|| (Eq. 22).

    r = |log(p_i / q_i)|, and larger is the one of p_i and q_i that is larger. D_i / ||∇smaller|| is k(r) (Eq. 23).

    Returns:
        (N, C), float64.

    Example:
        >>> x = torch.tensor([[1.0]], dtype=torch.float64)
        >>> differences(Components(x - 2, x - 3, 0 * x, 0 * x))  # rho = 1: Assumption 1 fails
        tensor([[-0.3504]], dtype=torch.float64)
    """
    r, larger, smaller = _by_size(components)
    return (r + torch.expm1(-r)) * larger - (r.expm1() - r) * smaller


def _by_size(components: Components) -> tuple[Tensor, Tensor, Tensor]:
    """Return r, and the gradient's norms of the larger and of the smaller probability."""
    apart = components.log_p - components.log_q
    dp, dq = components.log_dp.exp(), components.log_dq.exp()
    return apart.abs(), torch.where(apart > 0, dp, dq), torch.where(apart > 0, dq, dp)


class Proposition1(Conditions, frozen=True, kw_only=True):
    """Proposition 1 on a network.

    Attributes:
        weights: what the gradients are taken with respect to.
        n: images.
        classes: C.
        positive: share with D_i > 0.
        assumed: share for which Assumptions 1 and 2 both hold.
        positive_if_assumed: share with D_i > 0 among those; the proposition says 1. None without any, as below.
        positive_if_first_fails: among those for which Assumption 1 fails; 0, since k(r) < 0 for rho <= 1.
        positive_if_second_fails: among those for which Assumption 1 holds and Assumption 2 does not: either way.
        positive_images: share of the images with D = D_1 + .. + D_C > 0 (Eq. 21).
        reverse: mean over images of the first two norms of Eq. 20, the sums over i of reverse_i.
        forward: of the last two. Both are bounds on the norms of Lemma 1's gradients, not those norms, which
            `selfdistill.paper.analysis.directions` measures: the norm of a sum is at most the sum of the norms.
    """

    weights: Weights
    n: int
    classes: int
    positive: float
    assumed: float
    positive_if_assumed: float | None
    positive_if_first_fails: float | None
    positive_if_second_fails: float | None
    positive_images: float
    reverse: float
    forward: float


def measure_proposition1(components: Components) -> Proposition1:
    """Count the components and images whose D_i and D are positive, by what Proposition 1 says of them."""
    reverse, forward = reverse_and_forward(components)
    difference = differences(components)
    positive = difference > 0
    first, second = check_assumptions(components)

    def share_among(chosen: Tensor) -> float | None:
        return _mean(positive[chosen]) if bool(chosen.any()) else None

    return Proposition1(
        **msgspec.structs.asdict(components.conditions),
        weights=components.weights,
        n=positive.shape[0],
        classes=positive.shape[1],
        positive=_mean(positive),
        assumed=_mean(first & second),
        positive_if_assumed=share_among(first & second),
        positive_if_first_fails=share_among(~first),
        positive_if_second_fails=share_among(first & ~second),
        positive_images=_mean(difference.sum(dim=1) > 0),
        reverse=_mean(reverse.sum(dim=1)),
        forward=_mean(forward.sum(dim=1)),
    )


def _mean(values: Tensor) -> float:
    """Return the mean in float64; of truth values, the share that is true."""
    return float(values.double().mean())
