from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_ood.detector import KNN
from torch import nn

from selfdistill.evaluation.images import Reading
from selfdistill.evaluation.ood.detectors import DETECTORS, OF_FEATURES, Detectors, fit_detectors
from selfdistill.evaluation.ood.neighbours import fit_neighbours
from selfdistill.tap import Head


@pytest.mark.parametrize("k", [1, 7, 300])
def test_the_distances_are_those_of_pytorch_ood(k: int) -> None:
    random = np.random.default_rng(0)
    training, unseen = (torch.tensor(random.normal(size=(n, 6)) + 1) for n in (300, 1500))
    theirs = KNN(None, k=k).fit_features(training, torch.zeros(300))
    expected = -theirs.predict_features(unseen).numpy()
    np.testing.assert_allclose(fit_neighbours(training, k).scores(unseen), expected, atol=1e-7)


def test_a_feature_of_nothing_but_zeros_has_a_distance() -> None:
    assert fit_neighbours([[0.0, 0.0], [0.0, 1.0]], k=1).scores([[0.0, 0.0], [0.0, 2.0]]).tolist() == [0, 0]
    assert fit_neighbours([[0.0, 3.0]], k=1).scores([[0.0, 0.0]]).tolist() == [-1]


@pytest.mark.parametrize("k", [0, 3])
def test_a_neighbour_that_is_not_there_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=r"^k: "):
        fit_neighbours([[1.0], [2.0]], k)


def test_detectors_come_back_and_95_percent_pass(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    training = torch.randn(200, 6, generator=random) + 3 * torch.eye(4, 6)[labels]
    logits, features = torch.randn(40, 4, generator=random), torch.randn(40, 6, generator=random)
    assert fit_detectors(logits).thresholds.keys() == {"energy", "max_softmax"}
    head = nn.Linear(6, 4)
    fitted = fit_detectors(logits, features, Reading(training @ head.weight.detach().T, training, labels, Head(head)))
    fitted.save(tmp_path)
    loaded = Detectors.load(tmp_path)
    assert loaded is not None
    assert loaded.thresholds == fitted.thresholds
    assert list(fitted.thresholds) == ["energy", "max_softmax", *OF_FEATURES]
    for name in ("energy", "max_softmax", *OF_FEATURES):
        scores = loaded.scores(name, logits, features)
        np.testing.assert_allclose(scores, fitted.scores(name, logits, features), atol=1e-5)
        assert (fitted.scores(name, logits, features) >= fitted.thresholds[name]).sum() == 38
    hidden = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    of_hidden = fit_detectors(logits, features, Reading(logits, training, labels, Head(hidden)))
    assert of_hidden.thresholds.keys() == {"energy", "max_softmax", "mahalanobis", "knn"}
    path = tmp_path / DETECTORS
    path.write_bytes(path.read_bytes()[:500])
    assert Detectors.load(tmp_path) is None
    assert Detectors.load(tmp_path / "nowhere") is None
