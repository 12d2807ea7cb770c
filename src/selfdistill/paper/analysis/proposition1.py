"""Proposition 1 on a network: for how many components is the reverse derivative larger than the forward one?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from selfdistill.paper.analysis.assumptions import holding, mean_of
from selfdistill.paper.analysis.components import Components, Weights


def reverse_and_forward(components: Components) -> tuple[Tensor, Tensor]:
    """The two sums of which D_i is the difference (Eq. 10, 18), the norms of the gradients put in.

        reverse_i = |log(p_i / q_i)| ||∇q_i|| + |log(q_i / p_i)| ||∇p_i||
        forward_i = |1 - p_i / q_i| ||∇q_i|| + |1 - q_i / p_i| ||∇p_i||

    Both are without cancellation; their difference loses digits where p_i and q_i are close, see `differences`.

    Returns:
        (reverse, forward), (N, C), float64.

    Example:
        >>> x = torch.tensor([[1.0]], dtype=torch.float64)  # p = e q, and unit gradients: 2 and (e - 1) + (1 - 1 / e)
        >>> reverse_and_forward(Components(x - 2, x - 3, 0 * x, 0 * x, "head", 0.5, 3.0, 0))
        (tensor([[2.]], dtype=torch.float64), tensor([[2.3504]], dtype=torch.float64))
    """
    r, larger, smaller = _ordered(components)
    return r * (larger + smaller), r.expm1() * smaller - torch.expm1(-r) * larger


def differences(components: Components) -> Tensor:
    """D_i = reverse_i - forward_i = (r + e^-r - 1) ||∇larger|| - (e^r - 1 - r) ||∇smaller||, (N, C), float64 (Eq. 22).

    r = |log(p_i / q_i)|, and larger is the one of p_i and q_i that is larger. D_i / ||∇smaller|| is k(r) (Eq. 23).

    Example:
        >>> x = torch.tensor([[1.0]], dtype=torch.float64)
        >>> differences(Components(x - 2, x - 3, 0 * x, 0 * x, "head", 0.5, 3.0, 0))  # rho = 1: Assumption 1 fails
        tensor([[-0.3504]], dtype=torch.float64)
    """
    r, larger, smaller = _ordered(components)
    return (r + torch.expm1(-r)) * larger - (r.expm1() - r) * smaller


def _ordered(components: Components) -> tuple[Tensor, Tensor, Tensor]:
    apart = components.log_p - components.log_q
    dp, dq = components.log_dp.exp(), components.log_dq.exp()
    return apart.abs(), torch.where(apart > 0, dp, dq), torch.where(apart > 0, dq, dp)


@dataclass(frozen=True)
class Proposition1:
    """Proposition 1 on a network. Shares are fractions of components, a component being one class of one image.

    Attributes:
        weights: what the gradients are taken with respect to.
        n: images.
        classes: C.
        p: probability that a feature is dropped.
        temperature: T.
        seed: of the masks.
        positive: share with D_i > 0.
        assumed: share for which Assumptions 1 and 2 both hold.
        positive_if_assumed: share with D_i > 0 among those; the proposition says 1. None: there is none, as below.
        positive_if_first_fails: among those for which Assumption 1 fails; 0, since k(r) < 0 for rho <= 1.
        positive_if_second_fails: among those for which Assumption 1 holds and Assumption 2 does not: either way.
        positive_images: share of the images with D = D_1 + .. + D_C > 0 (Eq. 21).
        reverse: mean over images of the first two norms of Eq. 20, the sums over i of reverse_i.
        forward: of the last two. Both are bounds on the norms of Lemma 1's gradients, not those norms, which
            `selfdistill.paper.analysis.gradients` measures: the norm of a sum is at most the sum of the norms.
    """

    weights: Weights
    n: int
    classes: int
    p: float
    temperature: float
    seed: int
    positive: float
    assumed: float
    positive_if_assumed: float | None
    positive_if_first_fails: float | None
    positive_if_second_fails: float | None
    positive_images: float
    reverse: float
    forward: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Proposition1:
        """The inverse of `to_dict`, exactly."""
        return cls(**values)


def proposition1(components: Components) -> Proposition1:
    """Count the components and images whose D_i and D are positive, by what Proposition 1 says of them.

    Args:
        components: of some images; see `selfdistill.paper.analysis.components.measure_components`.

    Example:
        >>> from torch import nn
        >>> from selfdistill.paper.analysis.components import measure_components
        >>> from selfdistill.data import load_data
        >>> from selfdistill.evaluate.images import Images
        >>> data = load_data("digits", per_class=2, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> found = proposition1(measure_components(model, Images(data.test, data, "cpu")))
        >>> found.positive_if_assumed, found.positive_if_first_fails
        (1.0, 0.0)
    """
    reverse, forward = reverse_and_forward(components)
    difference = differences(components)
    positive = difference > 0
    first, second = holding(components)

    def among(chosen: Tensor) -> float | None:
        return mean_of(positive[chosen]) if bool(chosen.any()) else None

    return Proposition1(
        weights=components.weights,
        n=positive.shape[0],
        classes=positive.shape[1],
        p=components.p,
        temperature=components.temperature,
        seed=components.seed,
        positive=mean_of(positive),
        assumed=mean_of(first & second),
        positive_if_assumed=among(first & second),
        positive_if_first_fails=among(~first),
        positive_if_second_fails=among(first & ~second),
        positive_images=mean_of(difference.sum(dim=1) > 0),
        reverse=mean_of(reverse.sum(dim=1)),
        forward=mean_of(forward.sum(dim=1)),
    )
