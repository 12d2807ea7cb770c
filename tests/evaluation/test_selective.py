import numpy as np
import pytest
import torch
from scipy.stats import binom

from selfdistill.evaluation.selective import abstention_threshold, aurc, risk_coverage, selective_risk
from tests.reference import selective as reference

CASES = {
    "distinct": ([0.9, 0.1, 0.5, 0.7, 0.3], [True, False, True, False, True]),
    "ties": ([0.5, 0.9, 0.5, 0.5, 0.2, 0.2], [True, False, False, True, True, False]),
    "constant": ([0.5] * 6, [True, False, False, True, True, True]),
    "all right": ([0.4, 0.4, 0.8], [True] * 3),
    "all wrong": ([0.4, 0.4, 0.8], [False] * 3),
    "one": ([0.3], [False]),
}


@pytest.mark.parametrize("case", CASES)
def test_against_every_order_that_confidence_allows(case: str) -> None:
    confidence, correct = CASES[case]
    expected = reference.risks(confidence, correct)
    assert selective_risk(confidence, correct).tolist() == pytest.approx(expected, abs=1e-12)
    assert aurc(confidence, correct) == pytest.approx(sum(expected) / len(expected), abs=1e-12)


def test_by_hand() -> None:
    assert selective_risk([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]).tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert aurc([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_constant_confidence_gives_the_error_rate() -> None:
    assert selective_risk([0.2] * 8, [1, 1, 1, 0, 1, 1, 1, 0]).tolist() == pytest.approx([0.25] * 8)


def test_neither_the_order_of_rows_nor_a_rising_function_of_confidence_matters() -> None:
    random = np.random.default_rng(0)
    confidence, correct = random.random(400).round(1), random.random(400) < 0.7
    expected = selective_risk(confidence, correct)
    order = random.permutation(400)
    np.testing.assert_allclose(selective_risk(confidence[order], correct[order]), expected, atol=1e-12)
    np.testing.assert_allclose(selective_risk(np.exp(20 * confidence), correct), expected, atol=1e-12)
    tensors = torch.tensor(confidence), torch.tensor(correct)
    np.testing.assert_allclose(selective_risk(*tensors), expected, atol=1e-12)


def test_a_good_order_beats_chance_and_chance_a_bad_one() -> None:
    random = np.random.default_rng(1)
    correct = random.random(2000) < 0.8
    noise = random.random(2000)
    error = 1 - correct.mean()
    assert aurc(noise + correct, correct) < 0.2 * error
    assert aurc(noise, correct) == pytest.approx(error, abs=0.03)
    assert aurc(noise - correct, correct) > 1.5 * error


def test_the_curve_ends_at_the_error_rate_and_thinning_keeps_aurc() -> None:
    random = np.random.default_rng(2)
    confidence, correct = random.random(1003), random.random(1003) < 0.6
    whole, thin = risk_coverage(confidence, correct, points=10**6), risk_coverage(confidence, correct, points=10)
    assert (whole.n, len(whole.coverage), len(thin.coverage)) == (1003, 1003, 10)
    assert whole.aurc == thin.aurc == aurc(confidence, correct)
    assert thin.coverage[-1] == 1.0
    assert thin.risk[-1] == pytest.approx(1 - correct.mean())
    for coverage, risk in zip(thin.coverage, thin.risk, strict=True):
        assert risk == whole.risk[round(coverage * 1003) - 1]


@pytest.mark.parametrize(
    ("confidence", "correct", "points", "message"),
    [
        ([], [], 1, r"^confidence: shape \(0,\), expected \(N,\) with N >= 1$"),
        ([[0.1, 0.9]], [1], 1, r"^confidence: shape \(1, 2\)"),
        ([0.1, 0.9], [1], 1, r"^correct: shape \(1,\), expected \(2,\), one for each confidence$"),
        ([0.1, np.nan], [1, 0], 1, "^confidence: 1 of 2 are not finite"),
        ([0.1, 0.9], [1, 7], 1, "^correct: 7, expected true or false"),
        ([0.1, 0.9], [1, np.nan], 1, "^correct: nan, expected true or false"),
        ([0.1, 0.9], [1, 0], 0, "^points: 0, expected at least 1$"),
    ],
)
def test_bad_input_is_one_clear_line(confidence: object, correct: object, points: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        risk_coverage(confidence, correct, points)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_the_threshold_that_a_risk_allows_by_hand() -> None:
    # 8 images: 3 steps, each with delta / 3. The first looks at the 5 surest, the others at more.
    confidence, correct = [8, 7, 6, 5, 4, 3, 2, 1], [1, 1, 1, 1, 1, 1, 0, 0]
    of_6 = abstention_threshold(confidence, correct, risk=0.45, delta=0.2)
    assert (of_6.threshold, of_6.coverage) == (3, 6 / 8)
    assert binom.cdf(0, 6, of_6.bound) == pytest.approx(0.2 / 3)
    of_7 = abstention_threshold(confidence, correct, risk=0.5, delta=0.2)
    assert (of_7.threshold, of_7.coverage) == (2, 7 / 8)
    assert binom.cdf(1, 7, of_7.bound) == pytest.approx(0.2 / 3)
    with_one_error = abstention_threshold([4, 4, 3, 2, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1, 1, 1], risk=0.6, delta=0.2)
    assert with_one_error.threshold == 1, "equal confidences are answered together"
    assert binom.cdf(1, 8, with_one_error.bound) == pytest.approx(0.2 / 3)


def test_the_risk_holds_in_95_percent_of_the_draws() -> None:
    # Confidence c is uniform on [0, 1] and right with probability c: from t on the true risk is (1 - t) / 2.
    random, broken, answered = np.random.default_rng(0), 0, []
    for _ in range(1000):
        confidence = random.random(2000)
        found = abstention_threshold(confidence, random.random(2000) < confidence, risk=0.2)
        broken += (1 - found.threshold) / 2 > 0.2
        answered.append(found.coverage)
    assert broken <= binom.ppf(0.999, 1000, 0.05)
    assert np.mean(answered) > 0.3, "else it would hold by answering little; 0.4 is the most"


@pytest.mark.parametrize("risk", [0.0, 1.0, float("nan")])
def test_a_risk_out_of_range_is_refused(risk: float) -> None:
    with pytest.raises(ValueError, match=r"^risk: "):
        abstention_threshold([0.5], [1], risk)


def test_a_risk_that_no_threshold_reaches_says_how_many_images_it_takes() -> None:
    with pytest.raises(ValueError, match="at least 90 sure and right ones"):
        abstention_threshold(np.arange(64), np.ones(64), risk=0.05183)
