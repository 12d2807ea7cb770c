import math

import numpy as np
import pytest
from scipy.stats import binom

from selfdistill.evaluation.conformal import Score, fit_conformal, nonconformity


@pytest.fixture(scope="module")
def outputs() -> tuple[np.ndarray, np.ndarray]:
    """What an over-confident network says of 4000 images of 12 classes, and their labels."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 12)) * random.uniform(0.5, 3, size=(4000, 1))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (truth.cumsum(axis=1) < random.random((4000, 1))).sum(axis=1).clip(0, 11)
    surer = np.exp(2 * logits)
    return surer / surer.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("score", ["thr", "aps", "raps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_coverage_of_20_random_splits_is_as_asked_for(
    outputs: tuple[np.ndarray, np.ndarray], score: Score, coverage: float
) -> None:
    p, y = outputs
    random, hits, sizes = np.random.default_rng(1), [], []
    for _ in range(20):
        order = random.permutation(len(y))
        held_out, test = order[:500], order[500:]
        sets = fit_conformal(p[held_out], y[held_out], coverage, score).sets(p[test])
        hits.append(sets[np.arange(len(test)), y[test]].sum())
        sizes.append(sets.sum(axis=1).mean())
    # The threshold's own share is Beta(501 - l, l) distributed: of its mean over 20 splits, the sd is that / sqrt(20).
    rank = math.ceil(501 * coverage)
    sd = math.sqrt(rank * (501 - rank) / 501**2 / 502 / 20)
    low, high = binom.interval(0.999, 20 * 3500, rank / 501)
    assert low - 3.3 * sd * 70_000 <= sum(hits) <= high + 3.3 * sd * 70_000
    assert np.mean(sizes) < 8, "else all classes would do"


def test_the_scores_by_hand() -> None:
    p = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]
    assert nonconformity(p, "thr") == pytest.approx(np.array([[0.5, 0.7, 0.8], [0.9, 0.9, 0.2]]))
    assert nonconformity(p, "aps") == pytest.approx(np.array([[0.5, 0.8, 1.0], [0.9, 1.0, 0.8]]))
    seven = np.full((1, 7), 1 / 7)
    penalties = nonconformity(seven, "raps") - nonconformity(seven, "aps")
    assert penalties == pytest.approx(np.array([[0, 0, 0, 0, 0, 0.01, 0.02]]))


def test_the_threshold_is_the_order_statistic_and_few_images_are_refused() -> None:
    right = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2])
    p = np.stack([right, 1 - right], axis=1)
    assert fit_conformal(p, np.zeros(9), 0.9, "thr").threshold == pytest.approx(0.8)
    assert fit_conformal(p, np.zeros(9), 0.5, "thr").threshold == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least 11 images, not 9"):
        fit_conformal(p, np.zeros(9), 0.91, "thr")
    for coverage in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^coverage: "):
            fit_conformal(p, np.zeros(9), coverage)
