import numpy as np
import pytest
import torch
from msgspec.structs import asdict
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from selfdistill.evaluation.ood.metrics import ood_metrics, roc_curve
from selfdistill.records.evaluation import OODMetrics
from tests.reference import ood_metrics as reference


def draw(seed: int, n_in: int = 60, n_out: int = 45, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    in_distribution, ood = random.normal(1, 1, n_in), random.normal(0, 1.5, n_out)
    return (in_distribution, ood) if decimals is None else (in_distribution.round(decimals), ood.round(decimals))


CASES = {
    "distinct": draw(0),
    "ties": draw(1, decimals=1),
    "heavy ties": draw(2, decimals=0),
    "more ood": draw(3, n_in=40, n_out=130, decimals=1),
    "one each": (np.array([0.3]), np.array([0.7])),
    "constant": (np.full(12, 0.5), np.full(36, 0.5)),
    "apart": (np.arange(10.0, 30.0), np.arange(7.0)),
    "the wrong way round": (np.arange(7.0), np.arange(10.0, 30.0)),
    "twenty": (np.arange(20.0), np.array([0.5, 1.0, 1.5])),  # 19 of 20 is 95 % exactly
}


@pytest.mark.parametrize("case", CASES)
def test_against_brute_force(case: str) -> None:
    in_distribution, ood = (scores.tolist() for scores in CASES[case])
    found = ood_metrics(in_distribution, ood)
    flipped = [-score for score in in_distribution], [-score for score in ood]
    expected = OODMetrics(
        fpr_at_95_tpr=reference.fpr_at_95_tpr(in_distribution, ood),
        detection_error=reference.detection_error(in_distribution, ood),
        detection_error_at_95_tpr=reference.detection_error_at_95_tpr(in_distribution, ood),
        auroc=reference.auroc(in_distribution, ood),
        aupr_in=reference.aupr(in_distribution, ood, balanced=False),
        aupr_out=reference.aupr(flipped[1], flipped[0], balanced=False),
        balanced_aupr_in=reference.aupr(in_distribution, ood, balanced=True),
        balanced_aupr_out=reference.aupr(flipped[1], flipped[0], balanced=True),
        n_in=len(in_distribution),
        n_out=len(ood),
    )
    assert asdict(found) == pytest.approx(asdict(expected), abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_against_scikit_learn_in_both_conventions(case: str) -> None:
    in_distribution, ood = CASES[case]
    found = ood_metrics(in_distribution, ood)
    scores = np.concatenate([in_distribution, ood])
    is_in = np.concatenate([np.ones(len(in_distribution)), np.zeros(len(ood))])
    weight = np.where(is_in == 1, 1 / len(in_distribution), 1 / len(ood))
    fpr, tpr, _ = sklearn_roc_curve(is_in, scores, drop_intermediate=False)
    assert found.fpr_at_95_tpr == fpr[np.argmax(tpr >= 0.95)]
    assert found.detection_error == pytest.approx(((1 - tpr + fpr) / 2).min(), abs=1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(is_in, scores), abs=1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(1 - is_in, -scores), abs=1e-12)
    for ours, positive, values, weights in (
        (found.aupr_in, is_in, scores, None),
        (found.aupr_out, 1 - is_in, -scores, None),
        (found.balanced_aupr_in, is_in, scores, weight),
        (found.balanced_aupr_out, 1 - is_in, -scores, weight),
    ):
        assert ours == pytest.approx(average_precision_score(positive, values, sample_weight=weights), abs=1e-12)


def test_the_curve_against_scikit_learn() -> None:
    in_distribution, ood = CASES["ties"]
    is_in = np.concatenate([np.ones(len(in_distribution)), np.zeros(len(ood))])
    fpr, tpr, _ = sklearn_roc_curve(is_in, np.concatenate([in_distribution, ood]), drop_intermediate=False)
    ours = roc_curve(in_distribution, ood)
    np.testing.assert_array_equal(ours[0], fpr)
    np.testing.assert_array_equal(ours[1], tpr)


def test_by_hand() -> None:
    # Thresholds 4, 3, 2, 1: TPR 1/4, 1/2, 1, 1 and FPR 0, 0, 1/2, 1.
    found = ood_metrics([4, 3, 2, 2], [2, 1])
    assert (found.fpr_at_95_tpr, found.detection_error, found.detection_error_at_95_tpr) == (0.5, 0.25, 0.25)
    assert found.auroc == (2 * 2 + 2 * 1 + 2 * 0.5) / 8
    assert found.aupr_in == pytest.approx(1 / 4 + 1 / 4 + 1 / 2 * 4 / 5)
    assert found.aupr_out == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)
    assert found.balanced_aupr_in == pytest.approx(1 / 4 + 1 / 4 + 1 / 2 * 2 / 3)
    assert found.balanced_aupr_out == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_in_distribution_is_the_positive_class() -> None:
    # A twentieth of the in-distribution images score lowest of all. With "in" positive they may be given up and nothing
    # else is accepted; with "out" positive 95 % of the others are caught only together with all of those.
    in_distribution = np.concatenate([np.full(5, -1.0), np.full(95, 1.0)])
    ood = np.full(100, 0.0)
    assert ood_metrics(in_distribution, ood).fpr_at_95_tpr == 0.0
    assert ood_metrics(-ood, -in_distribution).fpr_at_95_tpr == 0.05
    swapped = ood_metrics(ood, in_distribution)
    assert swapped.auroc == pytest.approx(1 - ood_metrics(in_distribution, ood).auroc)


def test_two_detection_errors() -> None:
    # Far fewer are mistaken at the best threshold than where 95 % are accepted: 0.10 against (1 - 0.95 + 0.5) / 2.
    in_distribution = np.concatenate([np.full(80, 3.0), np.full(15, 1.0), np.full(5, -1.0)])
    ood = np.concatenate([np.full(50, 2.0), np.full(50, 0.0)])
    found = ood_metrics(in_distribution, ood)
    assert found.fpr_at_95_tpr == 0.5
    assert found.detection_error == pytest.approx(0.10)
    assert found.detection_error_at_95_tpr == pytest.approx(0.275)


@pytest.mark.parametrize(("n_in", "n_out"), [(10, 30), (30, 10), (5, 5)])
def test_constant_scores_know_nothing(n_in: int, n_out: int) -> None:
    found = ood_metrics(np.full(n_in, 0.1), np.full(n_out, 0.1))
    assert (found.fpr_at_95_tpr, found.detection_error, found.detection_error_at_95_tpr) == (1.0, 0.5, 0.5)
    assert found.auroc == 0.5
    assert (found.aupr_in, found.aupr_out) == (n_in / (n_in + n_out), n_out / (n_in + n_out))
    assert (found.balanced_aupr_in, found.balanced_aupr_out) == (0.5, 0.5)


@pytest.mark.parametrize("moved", [lambda s: 30 + s, lambda s: 0.01 + 1e-9 * s, lambda s: np.exp(s), lambda s: 1e6 * s])
def test_only_the_order_counts(moved: object) -> None:
    # Energies near 30 need no squashing into [0, 1], and scores at T = 1000 no grid of thresholds.
    in_distribution, ood = CASES["distinct"]
    assert ood_metrics(moved(in_distribution), moved(ood)) == ood_metrics(in_distribution, ood)  # type: ignore[operator]


def test_rates_do_not_depend_on_the_sizes_of_the_sets_but_aupr_by_counts_does() -> None:
    in_distribution, ood = CASES["distinct"]
    once, thrice = (asdict(ood_metrics(in_distribution, np.tile(ood, times))) for times in (1, 3))
    by_counts = {"aupr_in", "aupr_out", "n_out"}
    assert {k: v for k, v in once.items() if k not in by_counts} == pytest.approx(
        {k: v for k, v in thrice.items() if k not in by_counts}
    )
    assert thrice["aupr_in"] < once["aupr_in"] - 0.05
    assert thrice["aupr_out"] > once["aupr_out"] + 0.05


def test_order_of_the_rows_and_tensors() -> None:
    in_distribution, ood = CASES["ties"]
    expected = ood_metrics(in_distribution, ood)
    assert ood_metrics(in_distribution[::-1], ood[::-1]) == expected
    assert ood_metrics(torch.tensor(in_distribution), torch.tensor(ood)) == expected


@pytest.mark.parametrize(
    ("in_distribution", "ood", "message"),
    [
        ([], [1.0], r"^id_scores: shape \(0,\), expected \(N,\) with N >= 1$"),
        ([1.0], [[1.0, 2.0]], r"^ood_scores: shape \(1, 2\), expected"),
        ([1.0, np.nan], [1.0], "^id_scores: 1 of 2 scores are not finite"),
        ([1.0], [np.inf, -np.inf], "^ood_scores: 2 of 2 scores are not finite"),
    ],
)
def test_bad_input_is_one_clear_line(in_distribution: object, ood: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ood_metrics(in_distribution, ood)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
