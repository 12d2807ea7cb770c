import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn.functional import cross_entropy

from selfdistill.losses import symmetric_kl

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def auto_weight(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("auto_weight")


def literal(features: list[float], weight: list[list[float]], label: int) -> float:
    """(sum_j a_j)^2 / sum_j a_j^2 of one image, a feature and a class at a time."""
    others = [row for c, row in enumerate(weight) if c != label]
    shares = [f * (weight[label][j] - sum(row[j] for row in others) / len(others)) for j, f in enumerate(features)]
    return sum(shares) ** 2 / sum(share**2 for share in shares)


def test_effective_features_against_a_literal_loop(auto_weight: ModuleType) -> None:
    features, weight, labels = torch.randn(6, 8), torch.randn(5, 8), torch.tensor([0, 1, 2, 3, 4, 0])
    found = auto_weight.effective_features(features, weight, labels).tolist()
    expected = [literal(f, weight.tolist(), y) for f, y in zip(features.tolist(), labels.tolist(), strict=True)]
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_closed_form_balances_cross_entropy_and_the_penalty(auto_weight: ModuleType) -> None:
    # D equal features of 1 carry the margin between the true class and the nine others; p is 1/2.
    classes, features, target = 10, 4096, 0.5
    weight = auto_weight.closed_form(features, classes, target)

    def pulls(m: float) -> tuple[float, float]:
        margin = torch.tensor(m, requires_grad=True)
        head = torch.cat([margin[None, None].expand(1, features) / features, torch.zeros(classes - 1, features)])
        y = torch.zeros(1, dtype=torch.long)
        (of_ce,) = torch.autograd.grad(cross_entropy((head @ torch.ones(features))[None], y), margin, retain_graph=True)
        masks = 2 * (torch.rand(4000, 2, features, generator=torch.Generator().manual_seed(0)) < 0.5).float()
        z_u, z_v = (masks @ head.T).unbind(1)
        penalty = 9 * symmetric_kl(z_u, z_v, temperature=3.0)
        (of_penalty,) = torch.autograd.grad(penalty, margin)
        return float(of_ce), float(of_penalty)

    m = math.log((classes - 1) * math.exp(-target) / (1 - math.exp(-target)))
    of_ce, of_penalty = pulls(m)
    assert weight * of_penalty == pytest.approx(-of_ce, rel=0.1)
