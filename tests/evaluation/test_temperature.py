from math import exp, log

import numpy as np
import pytest
import torch

from selfdistill.evaluation.accuracy import negative_log_likelihood
from selfdistill.evaluation.calibration import calibration_gap, expected_calibration_error
from selfdistill.evaluation.temperature import fit_temperature, temperature_scaling


def draw(seed: int, n: int = 300, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are calibrated at temperature 1: each label is drawn from the row's own softmax."""
    random = np.random.default_rng(seed)
    z = 2 * random.normal(size=(n, classes))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return z, np.array([random.choice(classes, p=row) for row in p])


def literal_nll(z: list[list[float]], y: list[int], temperature: float) -> float:
    """Mean of -log softmax(z / T)_y, a loop for every sum."""
    total = 0.0
    for row, label in zip(z, y, strict=True):
        top = max(row)
        total += log(sum(exp((value - top) / temperature) for value in row)) + (top - row[label]) / temperature
    return total / len(y)


@pytest.mark.parametrize("scale", [0.3, 1.0, 7.0])
def test_against_a_literal_grid_search(scale: float) -> None:
    z, y = draw(1, n=60)
    rows, labels = (scale * z).tolist(), y.tolist()
    found = fit_temperature(scale * z, y)
    grid = [found * 1.001**k for k in range(-60, 61)] + [0.01 * 1.1**k for k in range(97)]  # near by, and everywhere
    assert min(grid, key=lambda t: literal_nll(rows, labels, t)) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("factor", [0.05, 0.5, 3.0, 20.0])
def test_multiplied_logits_have_a_multiplied_temperature(factor: float) -> None:
    z, y = draw(2)
    assert fit_temperature(factor * z, y) == pytest.approx(factor * fit_temperature(z, y), rel=1e-9)


def test_calibrated_logits_have_temperature_1() -> None:
    z, y = draw(3, n=20_000)
    assert fit_temperature(z, y) == pytest.approx(1.0, abs=0.03)
    assert fit_temperature(4 * z, y) == pytest.approx(4.0, abs=0.12)


def test_neither_a_shift_of_a_row_nor_huge_logits_nor_the_order_matter() -> None:
    z, y = draw(4)
    found = fit_temperature(z, y)
    shifts = 1e4 * np.arange(len(z))[:, None]
    assert fit_temperature(z + shifts, y) == pytest.approx(found, rel=1e-6)
    assert fit_temperature(torch.tensor(z).flip(0), torch.tensor(y).flip(0)) == pytest.approx(found, rel=1e-9)
    assert fit_temperature(1e4 * z, y) == 100.0  # it would be about 10 000; and nothing overflows


@pytest.mark.parametrize(
    ("z", "y", "expected"),
    [
        ([[1.0, 0.0], [0.0, 2.0]], [0, 1], 0.01),  # all right, the one just as the other
        ([[1e-3, 0.0], [0.0, 2.0]], [0, 1], 0.01),
        ([[1000.0, 0.0], [0.0, 2000.0]], [0, 1], 0.01),  # right, and the softmax is 1 and 0 at temperature 1
        ([[1.0, 0.0], [0.0, 2.0]], [1, 0], 100.0),  # all wrong
        ([[1000.0, 0.0], [0.0, 2000.0]], [1, 0], 100.0),
        ([[1.0, 0.0], [1.0, 0.0]], [0, 1], 100.0),  # no better than chance
        ([[3.0, 3.0], [-1.0, -1.0]], [0, 1], 1.0),  # no temperature makes a difference
    ],
)
def test_without_a_peak_it_is_a_bound(z: list[list[float]], y: list[int], expected: float) -> None:
    assert fit_temperature(z, y) == expected


def test_by_hand() -> None:
    # A share q of the rows right at a gap g: the best confidence is q, so g / T = log(q / (1 - q)).
    assert fit_temperature([[2.0, 0.0]] * 10, [0] * 9 + [1]) == pytest.approx(2 / log(9), rel=1e-9)


# Two folds


def test_each_half_is_scored_at_the_other_half_s_temperature() -> None:
    z, y = draw(5, n=101)
    z[::2] *= 5  # the halves want different temperatures
    scaled = temperature_scaling(z, y, bins=7)
    even = fit_temperature([z[i].tolist() for i in range(0, 101, 2)], [int(y[i]) for i in range(0, 101, 2)])
    odd = fit_temperature([z[i].tolist() for i in range(1, 101, 2)], [int(y[i]) for i in range(1, 101, 2)])
    assert even > 3 * odd
    assert scaled.temperatures == (even, odd)
    rows = [(z[i] / (odd if i % 2 == 0 else even)).tolist() for i in range(101)]
    p = [[exp(value) / sum(map(exp, row)) for value in row] for row in rows]
    assert (scaled.n, scaled.bins) == (101, 7)
    assert scaled.nll == pytest.approx(literal_nll(rows, y.tolist(), 1.0), abs=1e-12)
    assert scaled.ece == pytest.approx(expected_calibration_error(p, y, 7), abs=1e-12)
    assert scaled.gap == pytest.approx(calibration_gap(p, y), abs=1e-12)


@pytest.mark.parametrize("fold", [0, 1])
def test_no_image_sees_its_own_fold(fold: int) -> None:
    z, y = draw(6)
    changed = y.copy()
    changed[fold::2] = (changed[fold::2] + 1) % 5
    before, after = temperature_scaling(z, y), temperature_scaling(z, changed)
    assert after.temperatures[fold] != before.temperatures[fold]  # fitted on what was changed: scores the others
    assert after.temperatures[1 - fold] == before.temperatures[1 - fold]  # scores what was changed


def test_it_mends_an_over_confident_network() -> None:
    z, y = draw(7, n=4000)
    p = np.exp(6 * z) / np.exp(6 * z).sum(axis=1, keepdims=True)
    scaled = temperature_scaling(6 * z, y)
    assert expected_calibration_error(p, y) > 0.15
    assert scaled.ece < 0.03
    assert abs(scaled.gap) < 0.02
    assert scaled.nll < 0.5 * negative_log_likelihood(6 * z, y)


def test_the_caller_s_logits_stay_as_they_are() -> None:
    z, y = draw(8)
    kept = z.copy()
    temperature_scaling(3 * z, y)
    temperature_scaling(z, y)
    assert np.array_equal(z, kept)


@pytest.mark.parametrize(
    ("logits", "labels", "bins", "message"),
    [
        ([[0.0, 1.0]], [1], 10, r"^logits: 1 row, expected at least 2; a temperature is fitted on one half and scores"),
        (np.zeros((0, 2)), [], 10, r"^logits: shape \(0, 2\), expected \(N, C\)"),
        ([[0.0, np.nan], [0.0, 1.0]], [0, 1], 10, "^logits: 1 of 2 rows are not finite"),
        ([[0.0, 1.0], [0.0, 1.0]], [0, 2], 10, r"^labels: 2 is not a class index in 0\.\.1$"),
        ([[0.0, 1.0], [0.0, 1.0]], [0, 1], 0, "^bins: 0, expected at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(logits: object, labels: object, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        temperature_scaling(logits, labels, bins=bins)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
