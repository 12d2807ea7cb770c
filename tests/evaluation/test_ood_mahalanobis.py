import numpy as np
import pytest
import torch
from pytorch_ood.detector import Mahalanobis as TheirMahalanobis
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import EmpiricalCovariance

from selfdistill.evaluation.ood.mahalanobis import fit_mahalanobis


@pytest.fixture
def training() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(300) % 4
    mixing = random.normal(size=(6, 6))
    return 3 * np.eye(4, 6)[labels] + random.normal(size=(300, 6)) @ mixing + 50, labels


def test_against_a_literal_loop(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = training
    means = [np.mean([f for f, y in zip(features, labels, strict=True) if y == c], axis=0) for c in range(4)]
    covariance = np.zeros((6, 6))
    for f, y in zip(features, labels, strict=True):
        covariance += np.outer(f - means[y], f - means[y]) / len(features)
    precision = np.linalg.inv(covariance)
    unseen = features[:20] + 2
    expected = [-min(mahalanobis(f, mean, precision) ** 2 for mean in means) for f in unseen]
    np.testing.assert_allclose(fit_mahalanobis(features, labels).scores(unseen), expected, rtol=1e-9)


def test_the_covariance_against_scikit_learn(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = training
    fitted = fit_mahalanobis(features, labels)
    centred = features - np.stack([features[labels == c].mean(axis=0) for c in range(4)])[labels]
    precision = EmpiricalCovariance(assume_centered=True).fit(centred).precision_
    np.testing.assert_allclose(fitted.whitening @ fitted.whitening.T, precision, rtol=1e-9, atol=1e-12)


def test_the_order_against_pytorch_ood(training: tuple[np.ndarray, np.ndarray]) -> None:
    # Theirs is half the distance under the summed covariance, in float32, and higher for outliers.
    features, labels = training
    features = features - 50  # far from the origin float32 would lose it
    theirs = TheirMahalanobis(None).fit_features(torch.tensor(features, dtype=torch.float32), torch.tensor(labels))
    unseen = features[:40] * 1.5
    expected = -2 * len(features) * theirs.predict_features(torch.tensor(unseen, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(fit_mahalanobis(features, labels).scores(unseen), expected, rtol=1e-3)


def test_by_hand() -> None:
    # Two classes at 0 and 10, spread 1 along the first axis and 2 along the second.
    first = [[-1.0, 2.0], [1.0, -2.0], [1.0, 2.0], [-1.0, -2.0]]
    both = first + [[a + 10, b] for a, b in first]
    fitted = fit_mahalanobis(both, [0] * 4 + [1] * 4)
    assert fitted.scores([[0.0, 0.0], [3.0, 0.0], [10.0, 4.0], [5.0, 2.0]]).tolist() == pytest.approx(
        [0.0, -9.0, -4.0, -26.0], abs=1e-9
    )


def test_a_unit_that_never_fires_counts_for_nothing(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = training
    silent = np.concatenate([features, np.zeros((300, 2)), features[:, :1]], axis=1)  # and one that repeats another
    fitted = fit_mahalanobis(silent, labels)
    assert fitted.whitening.shape == (9, 6)
    unseen = np.concatenate([features[:9] + 1, np.full((9, 2), 7.0), features[:9, :1] + 1], axis=1)
    np.testing.assert_allclose(
        fitted.scores(unseen), fit_mahalanobis(features, labels).scores(features[:9] + 1), rtol=1e-6
    )


def test_scale_and_shift_of_the_features_do_not_matter(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = training
    expected = fit_mahalanobis(features, labels).scores(features[:30])
    moved = 1e-3 * features @ np.random.default_rng(1).normal(size=(6, 6)) + 7
    np.testing.assert_allclose(fit_mahalanobis(moved, labels).scores(moved[:30]), expected, rtol=1e-6)


def test_a_class_without_features_is_left_out_and_maps_are_read(training: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = training
    expected = fit_mahalanobis(features, labels).scores(features)
    np.testing.assert_array_equal(fit_mahalanobis(features, 10 * labels).scores(features), expected)
    maps = torch.tensor(features)[:, :, None, None]
    np.testing.assert_array_equal(fit_mahalanobis(maps, torch.tensor(labels)).scores(maps), expected)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        ([1.0, 2.0], [0, 0], r"^features: shape \(2,\), expected \(N, D\)"),
        ([[1.0], [2.0]], [0], r"^labels: shape \(1,\), expected \(2,\) class indices"),
        ([[np.nan], [2.0]], [0, 0], "^features: 1 of 2 rows are not finite"),
        ([[1.0], [2.0]], [0, 1], "^features: none varies within a class; fit on more images per class$"),
    ],
)
def test_bad_input_is_one_clear_line(features: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fit_mahalanobis(features, labels)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_features_of_another_width_are_refused() -> None:
    fitted = fit_mahalanobis([[-1.0], [1.0]], [0, 0])
    with pytest.raises(ValueError, match=r"^features: "):
        fitted.scores([[1.0, 2.0]])
