"""Proposition 1 at high precision, on random posteriors: no rounding decides a sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from typing import Any

import torch

from selfdistill.paper.analysis.lemma2 import bound


def difference(p: Decimal, q: Decimal, dp: Decimal, dq: Decimal) -> Decimal:
    """D_i of probabilities p and q whose gradients have the norms dp and dq (Eq. 10, 18), in the context's precision.

    D_i = |log(p / q)| dq + |log(q / p)| dp - (|1 - p / q| dq + |1 - q / p| dp).

    Example:
        >>> one, two = Decimal("0.1"), Decimal("0.2")
        >>> difference(two, one, two, one) > 0, difference(two, one, one, two) > 0  # the second: Assumption 1 fails
        (True, False)
    """
    reverse = abs((p / q).ln()) * dq + abs((q / p).ln()) * dp
    return reverse - (abs(1 - p / q) * dq + abs(1 - q / p) * dp)


@dataclass(frozen=True)
class Exact:
    """Signs of D_i on random posteriors, by what is assumed of the component.

    Attributes:
        components: classes times posteriors.
        digits: precision of the arithmetic.
        seed: of the posteriors.
        assumed: components for which Assumptions 1 and 2 both hold.
        positive_if_assumed: those of them with D_i > 0; all, says the proposition.
        first_fails: components for which Assumption 1 fails.
        positive_if_first_fails: those of them with D_i > 0; none.
        second_fails: components for which Assumption 1 holds and Assumption 2 does not.
        positive_if_second_fails: those of them with D_i > 0; those with r between r_1 and r*.
    """

    components: int
    digits: int
    seed: int
    assumed: int
    positive_if_assumed: int
    first_fails: int
    positive_if_first_fails: int
    second_fails: int
    positive_if_second_fails: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Exact:
        """The inverse of `to_dict`, exactly."""
        return cls(**values)


def check_proposition1(*, posteriors: int = 300, classes: int = 10, digits: int = 60, seed: int = 0) -> Exact:
    """Draw pairs of posteriors near and far from each other, with a linear head's gradients, and look at the signs.

    A pair is softmax(a / 3) and softmax(b / 3) with a normal of deviation 3 and b - a normal of a deviation between
    0.001 and 3; the norms are 2 p_i (1 - p_i) / 3 times a factor of its own for each of the two masks.

    Args:
        posteriors: pairs, >= 1.
        classes: C >= 2.
        digits: precision, >= 30.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> found = check_proposition1(posteriors=20)
        >>> found.assumed == found.positive_if_assumed > 0, found.first_fails > found.positive_if_first_fails == 0
        (True, True)
    """
    for name, value, least in (("posteriors", posteriors, 1), ("classes", classes, 2), ("digits", digits, 30)):
        if value < least:
            raise ValueError(f"{name}: {value}, expected at least {least}")
    generator = torch.Generator().manual_seed(seed)
    a = 3 * torch.randn(posteriors, classes, generator=generator, dtype=torch.float64)
    apart = 3 * 10 ** (-3 * torch.rand(posteriors, 1, generator=generator, dtype=torch.float64))
    b = a + apart * torch.randn(posteriors, classes, generator=generator, dtype=torch.float64)
    factors = torch.exp(0.1 * torch.randn(2, posteriors, generator=generator, dtype=torch.float64))
    counts = {name: [0, 0] for name in ("assumed", "first_fails", "second_fails")}
    with localcontext() as context:
        context.prec = digits
        for z, w, reach_u, reach_v in zip(a.tolist(), b.tolist(), *factors.tolist(), strict=True):
            under_u, under_v = _with_norms(z, reach_u), _with_norms(w, reach_v)
            for (p, dp), (q, dq) in zip(under_u, under_v, strict=True):
                case = counts[_case(p, q, dp, dq)]
                case[0] += 1
                case[1] += difference(p, q, dp, dq) > 0
    return Exact(
        posteriors * classes, digits, seed, *counts["assumed"], *counts["first_fails"], *counts["second_fails"]
    )


def _case(p: Decimal, q: Decimal, dp: Decimal, dq: Decimal) -> str:
    if p < q:
        p, q, dp, dq = q, p, dq, dp
    if not (p > q and dp > dq):
        return "first_fails"
    return "assumed" if (p / q).ln() <= bound(dp / dq) else "second_fails"


def _with_norms(logits: list[float], factor: float) -> list[tuple[Decimal, Decimal]]:
    """Each class's probability at T = 3 and its gradient's norm."""
    powers = [(Decimal(z) / 3).exp() for z in logits]
    total = sum(powers)
    return [(power / total, 2 * power * (total - power) / total**2 / 3 * Decimal(factor)) for power in powers]
