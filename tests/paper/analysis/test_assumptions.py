from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfdistill.data import load_data
from selfdistill.evaluation.images import Images
from selfdistill.paper.analysis.components import Components, measure_components
from selfdistill.paper.analysis.high_precision import bound
from selfdistill.paper.analysis.proposition1 import check_assumptions, measure_assumptions, r_1, ratios
from tests.paper.analysis.conftest import Trained, round_trip
from tests.reference import analysis as reference


def random_components(n: int = 40, classes: int = 6, spread: float = 1.0) -> Components:
    """Posteriors and norms that have nothing to do with each other: every case occurs."""
    log_p, log_q = torch.randn(2, n, classes, dtype=torch.float64).log_softmax(dim=2)
    log_dp, log_dq = spread * torch.randn(2, n, classes, dtype=torch.float64)
    return Components(log_p, log_q, log_dp, log_dq)


def each(components: Components) -> list[tuple[float, float, float, float]]:
    fields = (components.log_p, components.log_q, components.log_dp, components.log_dq)
    return list(zip(*(field.exp().flatten().tolist() for field in fields), strict=True))


def test_against_the_definitions() -> None:
    components = random_components()
    r, log_rho = ratios(components)
    bounds = r_1(log_rho.abs())
    first, second = check_assumptions(components)
    expected = [(reference.assumption_1(*one), *reference.r_and_r_1(*one)) for one in each(components)]
    assert first.flatten().tolist() == [holds for holds, _, _ in expected]
    assert r.flatten().tolist() == pytest.approx([value for _, value, _ in expected], rel=1e-9)
    assert bounds.flatten().tolist() == pytest.approx([value for _, _, value in expected], rel=1e-9)
    assert second.flatten().tolist() == [value <= most for _, value, most in expected]
    assert 0.2 < float(first.double().mean()) < 0.8


def test_the_summary_against_numpy() -> None:
    components = random_components()
    found = measure_assumptions(components)
    p, q = components.log_p.exp().numpy(), components.log_q.exp().numpy()
    expected = [reference.r_and_r_1(*one) for one in each(components)]
    first = np.array([reference.assumption_1(*one) for one in each(components)])
    weight = (p + q).flatten() / 2
    for averages, values in ((found.r, [r for r, _ in expected]), (found.r_1, [most for _, most in expected])):
        assert averages.mean == pytest.approx(np.mean(values))
        assert averages.median == pytest.approx(np.median(values))
        assert averages.weighted == pytest.approx(np.dot(weight, values) / 40)
    assert found.first == pytest.approx(first.mean())
    assert found.first_weighted == pytest.approx(np.dot(weight, first) / 40)
    within = np.array([r <= most for r, most in expected])
    assert found.second == pytest.approx(within.mean())
    assert found.both == pytest.approx((first & within).mean())
    assert round_trip(found) == found


def test_exchanging_the_masks_changes_nothing() -> None:
    one = random_components()
    other = Components(one.log_q, one.log_p, one.log_dq, one.log_dp)
    assert measure_assumptions(one) == measure_assumptions(other)


@pytest.mark.parametrize("log_rho", [0.0, 1e-12, 1e-6, 0.01, 1.0, 30.0, 300.0])
def test_r_1_to_the_last_digit(log_rho: float) -> None:
    with localcontext() as context:
        context.prec = 160
        expected = float(bound(Decimal(log_rho).exp()))
    assert float(r_1(torch.tensor(log_rho, dtype=torch.float64))) == pytest.approx(expected, rel=1e-14, abs=0)


def test_equal_probabilities_fulfil_no_assumption() -> None:
    zero = torch.zeros(1, 1, dtype=torch.float64)
    first, second = check_assumptions(Components(zero - 1, zero - 1, zero, zero - 1))
    assert (bool(first), bool(second)) == (False, True)


@pytest.mark.parametrize("weights", ["head", "all"])
def test_two_classes_never_both_fulfil_assumption_1(weights: str) -> None:
    """p_2 = 1 - p_1, so ∇p_2 = -∇p_1: the norms are equal, and one probability rises where the other falls."""
    data = load_data("digits", classes=2, per_class=2, test_per_class=10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.Tanh(), nn.Linear(16, 2))
    components = measure_components(model, Images(data.test, data, "cpu"), weights=weights)  # type: ignore[arg-type]
    first, _ = check_assumptions(components)
    assert first.sum(dim=1).tolist() == [1] * 20
    assert measure_assumptions(components).first == 0.5


def test_a_sure_network_fails_for_the_class_it_is_sure_of() -> None:
    """Above one half p (1 - p) falls as p rises: with a linear head the likelier class has the smaller gradient."""
    logits = torch.tensor([[9.0, 0.0, -1.0], [6.0, 0.0, -1.0]], dtype=torch.float64)
    log_p = logits.log_softmax(dim=1)
    norms = (log_p.exp() * (1 - log_p.exp())).log()
    first, _ = check_assumptions(Components(log_p[:1], log_p[1:], norms[:1], norms[1:]))
    assert first.tolist() == [[False, True, True]]


def test_on_a_trained_network(trained: Trained) -> None:
    found = measure_assumptions(measure_components(trained.model, trained.images))
    assert (found.n, found.classes, found.weights) == (200, 10, "head")
    assert 0.5 < found.first_weighted < found.first < 1  # the class it is sure of weighs most and fails most
    assert max(found.first + found.second - 1, 0) <= found.both <= min(found.first, found.second)
    assert found.r.median < found.r.mean


def test_an_average_of_ratios_is_that_of_the_rare_classes() -> None:
    tiny: Tensor = torch.tensor([[0.0, -30.0, -31.0]], dtype=torch.float64)
    other = torch.tensor([[0.1, -20.0, -35.0]], dtype=torch.float64)
    log_p, log_q = tiny.log_softmax(dim=1), other.log_softmax(dim=1)
    found = measure_assumptions(Components(log_p, log_q, log_p, log_q))
    assert found.r.mean > 1
    assert found.r.weighted < 1e-6
