import math

import numpy as np
import pytest
import torch
from pytorch_ood.detector import ASH, DICE, ReAct, ViM
from torch import nn

from selfdistill.evaluation.ood.linear_head import fit_linear_head, read_linear_head
from selfdistill.tap import Head

C, D = 5, 40


@pytest.fixture
def training() -> torch.Tensor:
    """Features as they are behind a ReLU."""
    return torch.randn(300, D, generator=torch.Generator().manual_seed(0)).add(0.5).relu().double()


@pytest.fixture
def unseen() -> torch.Tensor:
    return 1.5 * torch.randn(30, D, generator=torch.Generator().manual_seed(1)).add(0.3).relu().double()


@pytest.fixture
def head() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    return torch.randn(C, D, generator=random).double(), torch.randn(C, generator=random).double()


def _energy(z: list[float]) -> float:
    return math.log(sum(math.exp(one) for one in z))


def test_each_score_against_a_literal_loop(
    training: torch.Tensor, unseen: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor]
) -> None:
    w, b = head[0].numpy(), head[1].numpy()
    fitted = fit_linear_head(training, *head)
    ceiling = np.quantile(training.numpy().ravel(), 0.9)
    shares = sorted((w[c, d] * training[:, d].mean().item(), c, d) for c in range(C) for d in range(D))
    kept = {(c, d) for _, c, d in shares[-C * D // 10 :]}
    origin = -np.linalg.pinv(w) @ b
    centred = training.numpy() - origin
    basis = np.linalg.svd(centred, full_matrices=True)[2][D // 2 :]  # rows; the last ones vary least
    lengths = [math.sqrt(sum(float(direction @ f) ** 2 for direction in basis)) for f in centred]
    logits = training.numpy() @ w.T + b
    alpha = logits.max(axis=1).mean() / np.mean(lengths)
    for at, f in enumerate(unseen.numpy()):
        react = [sum(w[c, d] * min(f[d], ceiling) for d in range(D)) + b[c] for c in range(C)]
        dice = [sum(w[c, d] * f[d] for d in range(D) if (c, d) in kept) + b[c] for c in range(C)]
        largest = sorted(range(D), key=lambda d: f[d])[-14:]  # 35 % of 40
        factor = math.exp(f.sum() / sum(f[d] for d in largest))
        ash = [sum(w[c, d] * f[d] * factor for d in largest) + b[c] for c in range(C)]
        plain = [sum(w[c, d] * f[d] for d in range(D)) + b[c] for c in range(C)]
        residual = math.sqrt(sum(float(direction @ (f - origin)) ** 2 for direction in basis))
        for name, expected in (("react", _energy(react)), ("dice", _energy(dice)), ("ash", _energy(ash))):
            assert getattr(fitted, name)(unseen)[at] == pytest.approx(expected, rel=1e-9), name
        assert fitted.vim(unseen)[at] == pytest.approx(_energy(plain) - alpha * residual, rel=1e-9)


def test_the_scores_are_those_of_pytorch_ood(
    training: torch.Tensor, unseen: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor]
) -> None:
    # Theirs are higher for unknown images, take maps for ReAct and ASH, and are float32.
    w, b, labels = head[0].float(), head[1].float(), torch.zeros(len(training), dtype=torch.int64)
    known, others = training.float(), unseen.float()

    def classify(maps: torch.Tensor) -> torch.Tensor:
        return maps.flatten(1) @ w.T + b

    maps = others[:, :, None, None]
    react = ReAct(lambda x: x, classify).fit_feature_maps(known[:, :, None, None], labels)
    ash = ASH(lambda x: x, classify, percentile=0.65)
    dice = DICE(None, w, b, p=0.9).fit_features(known, labels)
    vim = ViM(None, d=D // 2, w=w, b=b).fit_features(known, labels)
    fitted = fit_linear_head(training, *head)
    theirs = {
        "react": react.predict_feature_maps(maps),
        "ash": ash.predict_feature_maps(maps),
        "dice": dice.predict_features(others),
        "vim": vim.predict_features(others),
    }
    for name, scores in theirs.items():
        np.testing.assert_allclose(getattr(fitted, name)(unseen), -scores, rtol=1e-4, atol=1e-4, err_msg=name)


def test_features_of_zeros_have_scores(training: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor]) -> None:
    fitted = fit_linear_head(training, *head)
    expected = _energy(head[1].tolist())
    for name in ("react", "dice", "ash"):
        assert getattr(fitted, name)(np.zeros((1, D))) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(D,), (D, 1, 1)])
def test_the_head_is_read_whatever_its_layers(shape: tuple[int, ...]) -> None:
    layer: nn.Module = nn.Linear(D, C) if len(shape) == 1 else nn.Conv2d(D, C, 1)
    features = torch.randn(3, *shape)
    found = read_linear_head(Head(nn.Sequential(nn.Dropout(0.5), layer)), features)
    assert found is not None
    with torch.no_grad():
        np.testing.assert_allclose(found[0], layer.weight.flatten(1), atol=1e-6)  # type: ignore[operator, union-attr]
        np.testing.assert_allclose(found[1], layer.bias, atol=1e-6)  # type: ignore[arg-type]


def test_a_head_with_a_hidden_layer_is_not_linear() -> None:
    head = nn.Sequential(nn.Linear(D, 20), nn.ReLU(), nn.Linear(20, C))
    assert read_linear_head(Head(head), torch.randn(10, D)) is None


@pytest.mark.parametrize(
    ("features", "weight", "argument"),
    [(np.ones((9, 4)), np.ones((2, 3)), "weight"), (np.ones((9, 4)), np.eye(2, 4), "features")],
)
def test_what_cannot_be_fitted_is_named(features: np.ndarray, weight: np.ndarray, argument: str) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: "):
        fit_linear_head(features, weight, np.zeros(2))


def test_other_features_are_refused(training: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^features: "):
        fit_linear_head(training, *head).react(np.ones((2, 3)))
