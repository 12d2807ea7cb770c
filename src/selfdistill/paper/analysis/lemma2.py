"""Lemma 2 and k(r), the scalar functions in the proof of Proposition 1, in decimal arithmetic of any precision.

With E = rho + e - 1 and L = log E throughout. Near rho = 1 everything here vanishes to the second or third order, which
binary floats cannot follow: 60 digits reach rho - 1 = 1e-12 with 20 to spare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, localcontext
from typing import Any


def k(r: Decimal, rho: Decimal) -> Decimal:
    """k(r) = (1 + rho) r - ((e^r - 1) + rho (1 - e^-r)): D_i over the norm of the smaller one's gradient (Eq. 23).

    In the context's precision, as everything here.

    Example:
        >>> k(Decimal(0), Decimal(2)), k(Decimal(1), Decimal(2)) > 0, k(Decimal("1.04"), Decimal(2)) > 0
        (Decimal('0'), True, False)
    """
    return (1 + rho) * r - ((r.exp() - 1) + rho * (1 - (-r).exp()))


def bound(rho: Decimal) -> Decimal:
    """r_1 = log rho + log L, what Assumption 2 asks r to stay below; rho >= 1.

    Example:
        >>> round(bound(Decimal(2)), 5)
        Decimal('0.96566')
    """
    return rho.ln() + _logarithm(rho).ln()


def margin(rho: Decimal) -> Decimal:
    """l(rho) = k(r_1) = (rho + 1)(log rho + log L) - rho (L + 1) + 1 / L + 1 (Eq. 24).

    Example:
        >>> round(margin(Decimal(2)), 5)
        Decimal('0.03192')
    """
    log = _logarithm(rho)
    return (rho + 1) * (rho.ln() + log.ln()) - rho * (log + 1) + 1 / log + 1


def margin_slope(rho: Decimal) -> Decimal:
    """l'(rho) = log rho + log L + (rho + 1)(1 / rho + 1 / (E L)) - (L + 1) - rho / E - 1 / (E L^2), not Eq. 25.

    Example:
        >>> round(margin_slope(Decimal(2)), 4)
        Decimal('0.0729')
    """
    e, log = _shifted(rho), _logarithm(rho)
    return rho.ln() + log.ln() + (rho + 1) * (1 / rho + 1 / (e * log)) - (log + 1) - rho / e - 1 / (e * log**2)


def margin_curvature(rho: Decimal) -> Decimal:
    """l''(rho), the derivative of `margin_slope`.

    2 / rho + 2 / (E L) - (rho + 1)(1 / rho^2 + (L + 1) / (E L)^2) - 2 / E + rho / E^2 + (L + 2) / (E^2 L^3).

    Example:
        >>> round(margin_curvature(Decimal(2)), 4)
        Decimal('0.0811')
    """
    e, log = _shifted(rho), _logarithm(rho)
    falling = (rho + 1) * (1 / rho**2 + (log + 1) / (e * log) ** 2)
    return 2 / rho + 2 / (e * log) - falling - 2 / e + rho / e**2 + (log + 2) / (e**2 * log**3)


def printed_slope(rho: Decimal) -> Decimal:
    """Eq. 25 as it is printed, which is not l': it is off by log L (1 / (rho L) - 1) - 1 / (rho L).

    Example:
        >>> round(printed_slope(Decimal(2)), 4), round(printed_slope(Decimal(1)), 4)
        (Decimal('-0.4765'), Decimal('-1.0000'))
    """
    e, log = _shifted(rho), _logarithm(rho)
    first = -1 / (e * log**2) - 1 / (rho * log) - rho / e + (rho + 1) / (e * log) + 1
    return first + 1 / rho - log - 1 + rho.ln() + log.ln() / (rho * log)


def zero_of_k(rho: Decimal) -> Decimal:
    """r* > 0 with k(r*) = 0, for rho > 1: k is positive on (0, r*) and negative beyond.

    Newton's steps from 1.1 r_1, which is beyond r* since r_1 / r* > 0.91; k is concave there, so they fall towards r*.

    Example:
        >>> round(zero_of_k(Decimal(2)), 5)
        Decimal('1.03566')
    """
    r = bound(rho) * Decimal("1.1")
    while True:
        slope = (1 - r.exp()) + rho * (1 - (-r).exp())
        following = r - k(r, rho) / slope
        if not following < r:
            return r
        r = following


@dataclass(frozen=True)
class Lemma2Row:
    """The scalar functions at one rho, rounded to floats.

    Attributes:
        excess: rho - 1.
        bound: r_1.
        sharp: r_1 / r*, below 1: how much of the range in which k > 0 Assumption 2 uses.
        margin: l(rho) = k(r_1).
        slope: l'(rho).
        curvature: l''(rho).
        printed: Eq. 25 as printed.
    """

    excess: float
    bound: float
    sharp: float
    margin: float
    slope: float
    curvature: float
    printed: float


@dataclass(frozen=True)
class Lemma2:
    """Lemma 2 over a grid of rho - 1, evenly spaced in its logarithm.

    Attributes:
        digits: precision of the arithmetic.
        points: of the grid.
        positive_margin: points with l(rho) > 0.
        positive_slope: points with l'(rho) > 0.
        positive_curvature: points with l''(rho) > 0.
        at_one: l(1), l'(1) and l''(1), each 0 but for rounding.
        rows: one for each power of ten.
    """

    digits: int
    points: int
    positive_margin: int
    positive_slope: int
    positive_curvature: int
    at_one: tuple[float, float, float]
    rows: tuple[Lemma2Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return asdict(self) | {"at_one": list(self.at_one), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Lemma2:
        """The inverse of `to_dict`, exactly."""
        first, second, third = values["at_one"]
        rows = tuple(Lemma2Row(**row) for row in values["rows"])
        return cls(**(dict(values) | {"at_one": (first, second, third), "rows": rows}))


def check_lemma2(*, least: int = -12, most: int = 6, per_decade: int = 50, digits: int = 60) -> Lemma2:
    """Evaluate l, l' and l'' for rho - 1 from 10^least to 10^most.

    Args:
        least: exponent of the smallest rho - 1.
        most: exponent of the largest, > least.
        per_decade: points for each power of ten, >= 1.
        digits: precision, at least 10 - 3 * least: l is about 0.08 (rho - 1)^3 near 1.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> found = check_lemma2(least=-2, most=2, per_decade=3)
        >>> found.points, found.positive_margin, found.positive_slope, found.positive_curvature
        (13, 13, 13, 13)
    """
    if not least < most:
        raise ValueError(f"least: {least}, expected less than most={most}")
    if per_decade < 1:
        raise ValueError(f"per_decade: {per_decade}, expected at least 1")
    if digits < 10 - 3 * least:
        raise ValueError(f"digits: {digits}, but rho - 1 = 1e{least} needs at least {10 - 3 * least}")
    points = (most - least) * per_decade + 1
    with localcontext() as context:
        context.prec = digits
        grid = [1 + Decimal(10) ** (least + Decimal(step) / per_decade) for step in range(points)]
        one = Decimal(1)
        return Lemma2(
            digits=digits,
            points=points,
            positive_margin=sum(margin(rho) > 0 for rho in grid),
            positive_slope=sum(margin_slope(rho) > 0 for rho in grid),
            positive_curvature=sum(margin_curvature(rho) > 0 for rho in grid),
            at_one=(float(margin(one)), float(margin_slope(one)), float(margin_curvature(one))),
            rows=tuple(_row(rho) for rho in grid[::per_decade]),
        )


def _row(rho: Decimal) -> Lemma2Row:
    return Lemma2Row(
        excess=float(rho - 1),
        bound=float(bound(rho)),
        sharp=float(bound(rho) / zero_of_k(rho)),
        margin=float(margin(rho)),
        slope=float(margin_slope(rho)),
        curvature=float(margin_curvature(rho)),
        printed=float(printed_slope(rho)),
    )


def _shifted(rho: Decimal) -> Decimal:
    """E = rho + e - 1."""
    return rho - 1 + Decimal(1).exp()


def _logarithm(rho: Decimal) -> Decimal:
    """L = log E, 1 at rho = 1."""
    return _shifted(rho).ln()
