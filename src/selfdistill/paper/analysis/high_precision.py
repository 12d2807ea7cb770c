"""Lemma 2 and Proposition 1 in decimal arithmetic, so that no rounding decides a sign.

With E = rho + e - 1 and L = log E throughout. Near rho = 1 the functions of Lemma 2 vanish to the second or third
order, which binary floats cannot follow: 60 digits reach rho - 1 = 1e-12 with 20 to spare.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, localcontext

import torch

DIGITS = 60


def bound(rho: Decimal) -> Decimal:
    """Return r_1 = log rho + log L, what Assumption 2 asks r to stay below; rho >= 1.

    Example:
        >>> round(bound(Decimal(2)), 5)
        Decimal('0.96566')
    """
    return rho.ln() + _logarithm(rho).ln()


def margin(rho: Decimal) -> Decimal:
    """Return l(rho) = k(r_1) = (rho + 1)(log rho + log L) - rho (L + 1) + 1 / L + 1 (Eq. 24).

    Example:
        >>> round(margin(Decimal(2)), 5)
        Decimal('0.03192')
    """
    log = _logarithm(rho)
    return (rho + 1) * (rho.ln() + log.ln()) - rho * (log + 1) + 1 / log + 1


def margin_slope(rho: Decimal) -> Decimal:
    """Return l'(rho), which is not Eq. 25.

    log rho + log L + (rho + 1)(1 / rho + 1 / (E L)) - (L + 1) - rho / E - 1 / (E L^2).

    Example:
        >>> round(margin_slope(Decimal(2)), 4)
        Decimal('0.0729')
    """
    e, log = _shift(rho), _logarithm(rho)
    return rho.ln() + log.ln() + (rho + 1) * (1 / rho + 1 / (e * log)) - (log + 1) - rho / e - 1 / (e * log**2)


def margin_curvature(rho: Decimal) -> Decimal:
    """Return l''(rho), the derivative of `margin_slope`.

    2 / rho + 2 / (E L) - (rho + 1)(1 / rho^2 + (L + 1) / (E L)^2) - 2 / E + rho / E^2 + (L + 2) / (E^2 L^3).

    Example:
        >>> round(margin_curvature(Decimal(2)), 4)
        Decimal('0.0811')
    """
    e, log = _shift(rho), _logarithm(rho)
    falling = (rho + 1) * (1 / rho**2 + (log + 1) / (e * log) ** 2)
    return 2 / rho + 2 / (e * log) - falling - 2 / e + rho / e**2 + (log + 2) / (e**2 * log**3)


def _shift(rho: Decimal) -> Decimal:
    return rho - 1 + Decimal(1).exp()


def _logarithm(rho: Decimal) -> Decimal:
    return _shift(rho).ln()


@dataclass(frozen=True)
class Lemma2:
    """Lemma 2 over a grid of rho - 1 from 1e-12 to 1e6, evenly spaced in its logarithm.

    Attributes:
        digits: precision of the arithmetic.
        points: of the grid.
        positive_margin: points with l(rho) > 0.
        positive_slope: points with l'(rho) > 0.
        positive_curvature: points with l''(rho) > 0.
        at_one: l(1), l'(1) and l''(1), each 0 but for rounding.
    """

    digits: int
    points: int
    positive_margin: int
    positive_slope: int
    positive_curvature: int
    at_one: tuple[float, float, float]


def check_lemma2(per_decade: int = 50) -> Lemma2:
    """Evaluate l, l' and l'' on so many points for each power of ten.

    Example:
        >>> found = check_lemma2(per_decade=1)
        >>> found.points, found.positive_margin, found.positive_slope, found.positive_curvature
        (19, 19, 19, 19)
    """
    least, most = -12, 6
    with localcontext(prec=DIGITS):
        steps = range((most - least) * per_decade + 1)
        grid = [1 + Decimal(10) ** (least + Decimal(step) / per_decade) for step in steps]
        one = Decimal(1)
        return Lemma2(
            digits=DIGITS,
            points=len(grid),
            positive_margin=sum(margin(rho) > 0 for rho in grid),
            positive_slope=sum(margin_slope(rho) > 0 for rho in grid),
            positive_curvature=sum(margin_curvature(rho) > 0 for rho in grid),
            at_one=(float(margin(one)), float(margin_slope(one)), float(margin_curvature(one))),
        )


def difference(p: Decimal, q: Decimal, dp: Decimal, dq: Decimal) -> Decimal:
    """Return D_i of probabilities p and q whose gradients have the norms dp and dq (Eq. 10, 18).

    D_i = |log(p / q)| dq + |log(q / p)| dp - (|1 - p / q| dq + |1 - q / p| dp).

    Example:
        >>> one, two = Decimal("0.1"), Decimal("0.2")
        >>> difference(two, one, two, one) > 0, difference(two, one, one, two) > 0  # the second: Assumption 1 fails
        (True, False)
    """
    reverse = abs((p / q).ln()) * dq + abs((q / p).ln()) * dp
    return reverse - (abs(1 - p / q) * dq + abs(1 - q / p) * dp)


@dataclass(frozen=True)
class RandomPosteriors:
    """Signs of D_i on random posteriors, by what holds for the component.

    Attributes:
        assumed: components for which Assumptions 1 and 2 both hold.
        positive_if_assumed: those of them with D_i > 0; all, says the proposition.
        first_fails: components for which Assumption 1 fails.
        positive_if_first_fails: those of them with D_i > 0; none.
        second_fails: components for which Assumption 1 holds and Assumption 2 does not.
        positive_if_second_fails: those of them with D_i > 0; those with r between r_1 and the zero of k.
    """

    assumed: int
    positive_if_assumed: int
    first_fails: int
    positive_if_first_fails: int
    second_fails: int
    positive_if_second_fails: int


def check_proposition1(posteriors: int = 300, classes: int = 10) -> RandomPosteriors:
    """Draw pairs of posteriors near and far from each other, with a linear head's gradients, and look at the signs.

    A pair is softmax(a / 3) and softmax(b / 3) with a normal of sd 3 and b - a normal of an sd between 0.001 and 3; the
    norms are 2 p_i (1 - p_i) / 3 times a factor of its own for each of the two masks.

    Args:
        posteriors: pairs, >= 1.
        classes: C >= 2.

    Example:
        >>> found = check_proposition1(posteriors=20)
        >>> found.assumed == found.positive_if_assumed > 0, found.first_fails > found.positive_if_first_fails == 0
        (True, True)
    """
    generator = torch.Generator().manual_seed(0)
    a = 3 * torch.randn(posteriors, classes, generator=generator, dtype=torch.float64)
    apart = 3 * 10 ** (-3 * torch.rand(posteriors, 1, generator=generator, dtype=torch.float64))
    b = a + apart * torch.randn(posteriors, classes, generator=generator, dtype=torch.float64)
    factors = torch.exp(0.1 * torch.randn(2, posteriors, generator=generator, dtype=torch.float64))
    counts: Counter[str] = Counter()
    with localcontext(prec=DIGITS):
        for z, w, reach_u, reach_v in zip(a.tolist(), b.tolist(), *factors.tolist(), strict=True):
            for (p, dp), (q, dq) in zip(_with_norms(z, reach_u), _with_norms(w, reach_v), strict=True):
                case = _case(p, q, dp, dq)
                counts[case] += 1
                counts[f"positive_if_{case}"] += difference(p, q, dp, dq) > 0
    return RandomPosteriors(**{name: counts[name] for name in RandomPosteriors.__dataclass_fields__})


def _case(p: Decimal, q: Decimal, dp: Decimal, dq: Decimal) -> str:
    if p < q:
        p, q, dp, dq = q, p, dq, dp
    if not (p > q and dp > dq):
        return "first_fails"
    return "assumed" if (p / q).ln() <= bound(dp / dq) else "second_fails"


def _with_norms(logits: list[float], factor: float) -> list[tuple[Decimal, Decimal]]:
    """Return each class's probability at T = 3 and its gradient's norm."""
    powers = [(Decimal(z) / 3).exp() for z in logits]
    total = sum(powers)
    return [(power / total, 2 * power * (total - power) / total**2 / 3 * Decimal(factor)) for power in powers]
