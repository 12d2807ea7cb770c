import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from selfdistill.evaluation.calibration import (
    adaptive_calibration_error,
    calibration_gap,
    class_reliability,
    classwise_calibration_error,
    expected_calibration_error,
    pool,
    reliability,
)


def equation_12(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The formula, read off the page: one pass over the bins, each open on the left and closed on the right."""
    n = len(labels)
    total = 0.0
    for m in range(1, bins + 1):
        members = [
            i
            for i in range(n)
            if (m - 1) / bins < probabilities[i].max() <= m / bins or (m == 1 and probabilities[i].max() == 0)
        ]
        if members:
            accuracy = sum(int(probabilities[i].argmax() == labels[i]) for i in members) / len(members)
            confidence = sum(probabilities[i].max() for i in members) / len(members)
            total += len(members) / n * abs(accuracy - confidence)
    return total


def draw(seed: int, n: int = 400, classes: int = 6, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(n, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p, random.integers(classes, size=n)


def two_classes(confidences: list[float], correct: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose larger probability is as given; the label is that class or the other."""
    p = np.array([[c, 1 - c] for c in confidences])
    return p, np.array([0 if right else 1 for right in correct])


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
@pytest.mark.parametrize("sharpness", [0.1, 2.0, 20.0])
def test_against_a_literal_loop(bins: int, sharpness: float) -> None:
    p, y = draw(1, sharpness=sharpness)
    assert expected_calibration_error(p, y, bins) == pytest.approx(equation_12(p, y, bins), abs=1e-14)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
def test_against_torchmetrics_clamped(sharpness: float) -> None:
    p, y = draw(2, n=3000, sharpness=sharpness)
    clamped = torch.tensor(p, dtype=torch.float32).clamp(max=1 - 1e-7)
    theirs = multiclass_calibration_error(clamped, torch.tensor(y), num_classes=6, n_bins=10, norm="l1")
    assert expected_calibration_error(p, y) == pytest.approx(float(theirs), abs=3e-6)


def test_confidences_of_exactly_one_have_no_bin_of_their_own() -> None:
    # Half of the images at exactly 1 (80 % right), half at .95 (99 % right): the bin (.9, 1] as a whole is off by
    # |.975 - .895| = .08. Torchmetrics counts an 11th bin and adds up |1 - .8| / 2 + |.95 - .99| / 2 = .12.
    n = 500
    p, y = two_classes([1.0] * n + [0.95] * n, [1] * 400 + [0] * 100 + [1] * 495 + [0] * 5)
    ours = expected_calibration_error(p, y)
    assert ours == pytest.approx(0.08, abs=1e-12)
    unclamped = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), num_classes=2, n_bins=10)
    assert float(unclamped) == pytest.approx(0.12, abs=1e-5)
    clamped = multiclass_calibration_error(torch.tensor(p).clamp(max=1 - 1e-6), torch.tensor(y), 2, n_bins=10)
    assert float(clamped) == pytest.approx(ours, abs=1e-5)


def test_the_specification_s_constructed_case() -> None:
    # Half at exactly 1: .060 by the formula, .140 with the hidden bin.
    p, y = two_classes([1.0] * 500 + [0.92] * 500, [1] * 400 + [0] * 100 + [1] * 500)
    assert expected_calibration_error(p, y) == pytest.approx(0.060, abs=1e-12)
    unclamped = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), num_classes=2, n_bins=10)
    assert float(unclamped) == pytest.approx(0.140, abs=1e-5)


@pytest.mark.parametrize("m", range(1, 11))
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(m: int) -> None:
    # 0.7 * 10 is above 7 in floating point; searching among the edges m / 10 is exact. Eleven classes: down to .1.
    top = m / 10
    p = np.full((1, 11), (1 - top) / 10)
    p[0, 3] = top
    assert reliability(p, [3]).count.index(1) == m - 1
    above = np.nextafter(top, 2)
    if above < 1:
        p[0, 3] = above
        assert reliability(p, [3]).count.index(1) == m


def test_reliability_by_hand() -> None:
    p, y = two_classes([0.6, 0.65, 0.9, 0.95, 1.0], [0, 1, 1, 1, 0])
    diagram = reliability(p, y)
    assert diagram.edges == tuple(m / 10 for m in range(11))
    assert diagram.count == (0, 0, 0, 0, 0, 1, 1, 0, 1, 2)
    assert diagram.confidence[5] == 0.6
    assert diagram.accuracy == (None,) * 5 + (0.0, 1.0, None, 1.0, 0.5)
    assert diagram.confidence[9] == pytest.approx(0.975)
    assert diagram.expected_calibration_error == pytest.approx((0.6 + 0.35 + 0.1 + 2 * 0.475) / 5)


def test_gap_is_signed_and_bounded_by_ece() -> None:
    assert calibration_gap(*two_classes([0.9, 0.9], [1, 0])) == pytest.approx(0.4)
    assert calibration_gap(*two_classes([0.6, 0.6], [1, 1])) == pytest.approx(-0.4)
    for seed in range(5):
        p, y = draw(seed)
        assert abs(calibration_gap(p, y)) <= expected_calibration_error(p, y) + 1e-12


def test_one_bin_is_the_absolute_gap() -> None:
    p, y = draw(3)
    assert expected_calibration_error(p, y, bins=1) == pytest.approx(abs(calibration_gap(p, y)), abs=1e-14)


def test_tensors_and_arrays_agree() -> None:
    p, y = draw(4)
    assert expected_calibration_error(torch.tensor(p), torch.tensor(y)) == expected_calibration_error(p, y)


def test_pooled_diagrams_are_the_diagram_of_all_rows() -> None:
    (p1, y1), (p2, y2) = draw(5), draw(6, n=150)
    pooled = pool([reliability(p1, y1), reliability(p2, y2)])
    whole = reliability(np.concatenate([p1, p2]), np.concatenate([y1, y2]))
    assert pooled.count == whole.count
    assert [v for v in pooled.accuracy if v is not None] == pytest.approx([v for v in whole.accuracy if v is not None])
    assert [v is None for v in pooled.confidence] == [v is None for v in whole.confidence]


def test_only_diagrams_on_the_same_bins_are_pooled() -> None:
    p, y = draw(7)
    with pytest.raises(ValueError, match="2 given, expected some with the same bin edges"):
        pool([reliability(p, y), reliability(p, y, bins=5)])
    with pytest.raises(ValueError, match="0 given"):
        pool([])


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "message"),
    [
        (
            [[0.5, 0.6]],
            [0],
            10,
            r"^probabilities: row 0 is not a probability vector \(smallest 0\.5, sum 1\.1\); pass soft",
        ),
        ([[0.5, 0.5], [1.2, -0.2]], [0, 0], 10, r"^probabilities: row 1 is not a probability vector \(smallest -0\.2"),
        ([[np.nan, 1.0]], [0], 10, r"^probabilities: row 0 is not a probability vector \(smallest nan"),
        ([[0.5, 0.5]], [2], 10, r"^labels: 2 is not a class index in 0\.\.1$"),
        ([[0.5, 0.5]], [np.nan], 10, r"^labels: nan is not a class index"),
        ([0.5, 0.5], [0], 10, r"^probabilities: shape \(2,\), expected \(N, C\)"),
        ([[0.5, 0.5]], [[0, 1]], 10, r"^labels: shape \(1, 2\), expected \(1,\)"),
        ([[0.5, 0.5]], [0], 0, r"^bins: 0, expected at least 1"),
    ],
)
def test_bad_input_is_one_clear_line(probabilities: object, labels: object, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        expected_calibration_error(probabilities, labels, bins)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


# Bins of equally many rows


def equal_mass(confidence: list[float], correct: list[int], bins: int) -> float:
    """Every row goes to bin floor(M k / N), k its place; the rows are in one order that confidence allows."""
    n = len(confidence)
    order = sorted(range(n), key=lambda i: confidence[i])
    total = 0.0
    for m in range(bins):
        members = [i for k, i in enumerate(order) if m * n <= bins * k < (m + 1) * n]
        if members:
            accuracy = sum(correct[i] for i in members) / len(members)
            mean = sum(confidence[i] for i in members) / len(members)
            total += len(members) / n * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 11, 57, 400])
@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_adaptive_against_a_literal_loop(n: int, bins: int) -> None:
    p, y = draw(9, n=n)
    # Two in three are right whatever they say: the unsure rows too often, the sure ones too seldom.
    y = np.where(np.arange(n) % 3 > 0, p.argmax(axis=1), y)
    confidence, correct = p.max(axis=1).tolist(), (p.argmax(axis=1) == y).astype(int).tolist()
    assert len(set(confidence)) == n
    if n > 9 and bins > 2:  # gaps of both signs: the bins matter
        assert equal_mass(confidence, correct, bins) > equal_mass(confidence, correct, 1) + 0.01
    assert adaptive_calibration_error(p, y, bins) == pytest.approx(equal_mass(confidence, correct, bins), abs=1e-14)


def test_adaptive_ties_count_with_their_mean_over_all_orders() -> None:
    # The tied rows have an accuracy of 1/2; one of them is in the first bin and three in the second.
    confidence, correct = [0.6, 0.6, 0.9, 0.9, 0.9, 0.9, 1.0, 1.0, 1.0], [1, 0, 1, 0, 0, 1, 1, 1, 0]
    expected = (abs(1 + 0.5 - 2.1) + abs(1.5 - 2.7) + abs(2 - 3)) / 9
    assert adaptive_calibration_error(*two_classes(confidence, correct), 3) == pytest.approx(expected, abs=1e-14)
    random = np.random.default_rng(0)
    found = set()
    for _ in range(20):
        order = random.permutation(9)
        rows = two_classes([confidence[i] for i in order], [correct[i] for i in order])
        found.add(adaptive_calibration_error(*rows, 3))
    assert len(found) == 1  # to the last bit


def test_adaptive_constant_confidence_is_the_absolute_gap() -> None:
    p, y = two_classes([0.8] * 25, [1] * 7 + [0] * 18)
    assert adaptive_calibration_error(p, y) == pytest.approx(0.8 - 7 / 25, abs=1e-14)
    assert adaptive_calibration_error(*two_classes([1.0], [1])) == 0.0


def test_adaptive_sees_what_equal_widths_average_away() -> None:
    # In (.9, 1] as a whole the network is calibrated; its surer half is not, nor is the other.
    p, y = two_classes([0.92] * 50 + [0.98] * 50, [1] * 50 + [1] * 45 + [0] * 5)
    assert expected_calibration_error(p, y) == pytest.approx(0.0, abs=1e-12)
    assert adaptive_calibration_error(p, y) == pytest.approx(0.08, abs=1e-12)


def test_adaptive_is_at_least_the_gap_and_reads_tensors() -> None:
    for seed in range(5):
        p, y = draw(seed)
        found = adaptive_calibration_error(p, y)
        assert abs(calibration_gap(p, y)) - 1e-12 <= found <= 1
        assert adaptive_calibration_error(torch.tensor(p), torch.tensor(y)) == found


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins", "message"),
    [
        ([[0.5, 0.6]], [0], 10, "^probabilities: row 0 is not a probability vector"),
        ([[0.5, 0.5]], [2], 10, r"^labels: 2 is not a class index in 0\.\.1$"),
        (np.zeros((0, 2)), [], 10, r"^probabilities: shape \(0, 2\), expected \(N, C\)"),
        ([[0.5, 0.5]], [0], 0, "^bins: 0, expected at least 1"),
    ],
)
def test_bad_input_to_adaptive_is_one_clear_line(
    probabilities: object, labels: object, bins: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adaptive_calibration_error(probabilities, labels, bins)  # type: ignore[arg-type]


def test_rows_may_sum_to_one_within_a_thousandth() -> None:
    assert reliability([[0.9999, 0.0006]], [0]).count[-1] == 1


@pytest.mark.parametrize("bins", [1, 10])
def test_classwise_error_against_a_literal_loop(bins: int) -> None:
    p, y = draw(5, classes=4)
    of_classes = []
    for c in range(4):
        total = 0.0
        for m in range(1, bins + 1):
            members = [i for i in range(len(y)) if (m - 1) / bins < p[i, c] <= m / bins]
            if members:
                share = sum(int(y[i] == c) for i in members) / len(members)
                total += len(members) / len(y) * abs(share - sum(p[i, c] for i in members) / len(members))
        of_classes.append(total)
    assert [d.expected_calibration_error for d in class_reliability(p, y, bins)] == pytest.approx(of_classes, abs=1e-12)
    assert classwise_calibration_error(p, y, bins) == pytest.approx(sum(of_classes) / 4, abs=1e-12)


def test_a_probability_of_zero_is_in_the_first_bin() -> None:
    first, second = class_reliability([[1.0, 0.0], [1.0, 0.0]], [0, 0], bins=4)
    assert first.count == (0, 0, 0, 2)
    assert second.count == (2, 0, 0, 0)
