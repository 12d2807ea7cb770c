import math
from decimal import Decimal, localcontext

import mpmath
import pytest

from selfdistill.paper.analysis.high_precision import bound, check_lemma2, margin, margin_curvature, margin_slope
from tests.reference.analysis import k, printed_slope, zero_of_k

RHOS = ("1.0001", "1.01", "1.5", "2", "3", "10", "1000", "1e6", "1e20")


def mp(value: Decimal) -> mpmath.mpf:
    return mpmath.mpf(str(value))


def close(found: Decimal, expected: mpmath.mpf, relative: str = "1e-20") -> bool:
    return abs(mp(found) - expected) <= mpmath.mpf(relative) * abs(expected)


def l_of(rho: mpmath.mpf) -> mpmath.mpf:
    """k(r_1) by way of k alone, nothing simplified."""
    r = mpmath.log(rho) + mpmath.log(mpmath.log(rho + mpmath.e - 1))
    return (1 + rho) * r - ((mpmath.exp(r) - 1) + rho * (1 - mpmath.exp(-r)))


@pytest.mark.parametrize("text", RHOS)
def test_l_and_its_derivatives_match_numerical_ones(text: str) -> None:
    with localcontext() as context, mpmath.workdps(80):
        context.prec = 60
        rho, x = Decimal(text), mpmath.mpf(text)
        assert close(bound(rho), mpmath.log(x) + mpmath.log(mpmath.log(x + mpmath.e - 1)))
        assert close(k(bound(rho), rho), l_of(x))
        assert close(margin(rho), l_of(x))
        assert close(margin_slope(rho), mpmath.diff(l_of, x), "1e-12")
        assert close(margin_curvature(rho), mpmath.diff(l_of, x, 2), "1e-8")


def test_at_one_only_the_third_derivative_of_l_is_nonzero() -> None:
    """Lemma 2 as printed has l'(1) = 1 and l(0) = 0."""
    with localcontext() as context, mpmath.workdps(80):
        context.prec = 60
        one = Decimal(1)
        for function in (margin, margin_slope, margin_curvature):
            assert abs(function(one)) < Decimal("1e-55")
        excess = Decimal("1e-12")
        assert float(margin_curvature(1 + excess) / excess) == pytest.approx(0.49442, abs=1e-5)  # l'''(1)
        assert float(margin(1 + excess) / excess**3) == pytest.approx(0.49442 / 6, abs=1e-5)
        assert l_of(mpmath.mpf("1e-6")) != 0
        assert mpmath.log(mpmath.mpf("1e-30")) < -60  # l has no value at 0: log rho has none


@pytest.mark.parametrize("text", RHOS)
def test_the_printed_derivative_is_not_the_derivative(text: str) -> None:
    """Eq. 25 has log L / (rho L) for log L, and - 1 / (rho L) too much; it is negative where l' is positive."""
    with localcontext() as context, mpmath.workdps(80):
        context.prec = 60
        rho = Decimal(text)
        log = (rho - 1 + Decimal(1).exp()).ln()
        slip = log.ln() * (1 / (rho * log) - 1) - 1 / (rho * log)
        assert abs(printed_slope(rho) - margin_slope(rho) - slip) < Decimal("1e-50")
        assert printed_slope(rho) < 0 < margin_slope(rho)
        assert float(printed_slope(Decimal(1))) == pytest.approx(-1)


def test_k_rises_to_log_rho_and_falls_to_its_zero_beyond_r_1() -> None:
    """k is positive on (0, r*), largest at log rho with (1 + rho) log rho - 2 rho + 2, and r_1 < r*."""
    with localcontext() as context:
        context.prec = 60
        for text in ("1.001", "1.5", "2", "10", "1e6"):
            rho = Decimal(text)
            top, zero = rho.ln(), zero_of_k(rho)
            assert k(Decimal(0), rho) == 0
            assert abs(k(top, rho) - ((1 + rho) * top - 2 * rho + 2)) < Decimal("1e-50")
            assert top < bound(rho) < zero
            rising = [k(top * step / 20, rho) for step in range(21)]
            falling = [k(top + (zero - top) * step / 20, rho) for step in range(20)]
            assert rising == sorted(rising)
            assert falling == sorted(falling, reverse=True)
            assert min(rising[1:] + falling) > 0
            assert abs(k(zero, rho)) < Decimal("1e-50")
            assert k(zero * Decimal("1.001"), rho) < 0  # r_1 is sufficient; not any r will do


@pytest.mark.parametrize("rho", ["0.1", "0.9", "1"])
def test_where_assumption_1_fails_k_is_negative(rho: str) -> None:
    assert max(k(Decimal(step) / 10, Decimal(rho)) for step in range(1, 40)) < 0


@pytest.mark.parametrize(
    ("rho", "expected"),
    [("1.5", 5.98e-3), ("2", 0.03192), ("3", 0.14142), ("5", 0.52381), ("10", 2.03017), ("100", 58.736)],
)
def test_sample_values(rho: str, expected: float) -> None:
    assert float(margin(Decimal(rho))) == pytest.approx(expected, rel=1e-3)


def test_over_the_whole_grid() -> None:
    found = check_lemma2()
    assert found.points == 901
    assert (found.positive_margin, found.positive_slope, found.positive_curvature) == (901, 901, 901)
    assert found.at_one == pytest.approx((0, 0, 0), abs=1e-55)
    with localcontext(prec=60):
        rhos = [1 + Decimal(10) ** power for power in range(-12, 7)]
        sharp = [float(bound(rho) / zero_of_k(rho)) for rho in rhos]
        assert all(printed_slope(rho) < 0 for rho in rhos)
    assert sharp == sorted(sharp)
    assert sharp[0] == pytest.approx((1 + 1 / math.e) / 1.5, abs=1e-6)
    assert sharp[-1] == pytest.approx(0.99282, abs=1e-5)


def series(t: float) -> tuple[float, float]:
    """G(t) = sum_n n (n + 1 - c) / (n + 1) t^n and t G'(t)."""
    c = math.e - 1
    terms = [n * (n + 1 - c) / (n + 1) * t**n for n in range(1, 200)]
    return sum(terms), sum(n * term for n, term in enumerate(terms, 1))


def steepness(log: float) -> tuple[float, float]:
    """(- d log B / d L, B) with B = (c - 1) / L^2 + 2 / L^3, of L."""
    c = math.e - 1
    return (2 * (c - 1) * log + 6) / ((c - 1) * log**2 + 2 * log), (c - 1) / log**2 + 2 / log**3


def test_the_proof_that_l_rises_for_every_rho_above_one() -> None:
    """The three comparisons that docs/proofs.md ends with, and each identity on the way to them."""
    c = math.e - 1
    assert series(c / math.e)[0] == pytest.approx(steepness(1.0)[1]) == pytest.approx(math.e)
    with localcontext() as context:
        context.prec = 40
        for text in ("1.2", "2", "7", "300"):
            rho = Decimal(text)
            x = float(rho) + c
            log, t = math.log(x), c / x
            phi = math.log(log) + 1 / log - 1
            psi = math.log1p(-t) + t + 1 / (x - c) - ((c - 1) / log + 1 / log**2) / x
            assert float(margin_slope(rho)) == pytest.approx(phi + psi, rel=1e-9)

            def chi(at: float) -> float:
                log = math.log(at)
                return at * math.log1p(-c / at) + c + at / (at - c) - (c - 1) / log - 1 / log**2

            assert x * psi == pytest.approx(chi(x), rel=1e-9)
            numeric = (chi(x + 1e-4) - chi(x - 1e-4)) / 2e-4
            assert numeric == pytest.approx(t / c * (steepness(log)[1] - series(t)[0]), rel=1e-3)

    def elasticity(log: float) -> float:
        value, slope = series(c * math.exp(-log))
        return slope / value

    for left, right in ((1.0, 1.5), (1.5, 2.2), (2.2, 2.6)):
        # Both fall as L grows: the least of the one over the interval against the most of the other.
        assert elasticity(right) > steepness(left)[0] + 0.1
    assert steepness(2.6)[0] < 1 < elasticity(50.0) + 1e-9
