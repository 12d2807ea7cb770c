"""Table 8: how often Assumption 1 holds, and how r compares with r_1 (Assumption 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfdistill.paper.analysis.components import Components, Weights


def r_1(log_rho: Tensor) -> Tensor:
    """r_1 = log rho + log log(rho + e - 1), of log rho >= 0: what Assumption 2 asks r to stay below.

    Args:
        log_rho: any shape, float64, >= 0.

    Example:
        >>> r_1(torch.tensor([0.0, math.log(2)], dtype=torch.float64))
        tensor([0.0000, 0.9657], dtype=torch.float64)
    """
    return log_rho + torch.log1p(torch.log1p(log_rho.expm1() / math.e))  # log(rho + e - 1) = 1 + log1p((rho - 1) / e)


def ratios(components: Components) -> tuple[Tensor, Tensor]:
    """r = |log(p_i / q_i)| and log rho, rho the gradient's norm of the larger probability over that of the smaller.

    The paper writes r = log(p_i / q_i) and rho = ||∇p_i|| / ||∇q_i|| > 1, which is meant after p and q have changed
    places where p_i < q_i. Assumption 1 is then log rho > 0, of components whose two probabilities differ.

    Returns:
        Two tensors (N, C), float64: r >= 0, and log rho of either sign.

    Example:
        >>> one, two = (torch.tensor([[x]], dtype=torch.float64) for x in (0.1, 0.4))
        >>> ratios(Components(one, two, two, one, "head", 0.5, 3.0, 0))
        (tensor([[0.3000]], dtype=torch.float64), tensor([[-0.3000]], dtype=torch.float64))
    """
    apart = components.log_p - components.log_q
    return apart.abs(), (components.log_dp - components.log_dq) * apart.sign()


def holding(components: Components) -> tuple[Tensor, Tensor]:
    """Where Assumption 1 holds, and where r <= r_1; (N, C), of truth values.

    Assumption 2 speaks of rho > 1. Where Assumption 1 fails r_1 is taken of 1 / rho, so that there is one to compare.
    """
    r, log_rho = ratios(components)
    return log_rho > 0, r <= r_1(log_rho.abs())


@dataclass(frozen=True)
class Averages:
    """Averages over images and classes.

    Attributes:
        mean: the plain one, which ratios of tiny probabilities dominate.
        median: over images and classes.
        weighted: each class weighted by (p_i + q_i) / 2, then the mean over images.
    """

    mean: float
    median: float
    weighted: float


@dataclass(frozen=True)
class Assumptions:
    """One row of Table 8. A component is one class of one image; shares are fractions of the n * classes components.

    Attributes:
        weights: what the gradients are taken with respect to; the paper does not say.
        n: images.
        classes: C.
        p: probability that a feature is dropped.
        temperature: T.
        seed: of the masks.
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
    p: float
    temperature: float
    seed: int
    first: float
    first_weighted: float
    second: float
    both: float
    r: Averages
    r_1: Averages

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Assumptions:
        """The inverse of `to_dict`, exactly."""
        return cls(**(dict(values) | {name: Averages(**values[name]) for name in ("r", "r_1")}))


def assumptions(components: Components) -> Assumptions:
    """Count where the assumptions hold, and average r and r_1.

    Args:
        components: of some images; see `selfdistill.paper.analysis.components.measure_components`.

    Example:
        >>> from torch import nn
        >>> from selfdistill.paper.analysis.components import measure_components
        >>> from selfdistill.data import load_data
        >>> from selfdistill.evaluate.images import Images
        >>> data = load_data("digits", per_class=2, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> row = assumptions(measure_components(model, Images(data.test, data, "cpu")))
        >>> row.n, row.classes, row.both <= min(row.first, row.second)
        (20, 10, True)
    """
    r, log_rho = ratios(components)
    first, second = holding(components)
    weight = (components.log_p.exp() + components.log_q.exp()) / 2

    def averages(values: Tensor) -> Averages:
        # numpy's median: torch's is the lower of the two middle values
        return Averages(mean_of(values), float(np.median(values.numpy())), _weighted(values, weight))

    return Assumptions(
        weights=components.weights,
        n=r.shape[0],
        classes=r.shape[1],
        p=components.p,
        temperature=components.temperature,
        seed=components.seed,
        first=mean_of(first),
        first_weighted=_weighted(first, weight),
        second=mean_of(second),
        both=mean_of(first & second),
        r=averages(r),
        r_1=averages(r_1(log_rho.abs())),
    )


def mean_of(values: Tensor) -> float:
    """The mean in float64; of truth values, the share that is true."""
    return float(values.double().mean())


def _weighted(values: Tensor, weight: Tensor) -> float:
    return float((values.double() * weight).sum(dim=1).mean())
