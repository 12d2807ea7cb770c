from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from selfdistill.paper.analysis.components import linear_reach, log_gradient_norms, measure_reach
from tests.reference import analysis as reference


def log_posterior(logits: Tensor, temperature: float) -> Tensor:
    return (logits.detach() / temperature).log_softmax(dim=-1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_closed_form_is_jacrev_of_a_linear_head(bias: bool, temperature: float) -> None:
    head = nn.Linear(6, 5, bias=bias).double()
    features = torch.randn(3, 6, dtype=torch.float64)
    features[0, :4] = 0  # dropped
    found = log_gradient_norms(log_posterior(head(features), temperature), linear_reach(head, features), temperature)
    for f, row in zip(features, found.exp().tolist(), strict=True):
        jacobian = reference.posterior_jacobian(
            head, lambda w, f=f: torch.func.functional_call(head, w, (f,)), temperature
        )
        assert row == pytest.approx([reference.l1(slope) for slope in jacobian], rel=1e-10)


def test_a_convolution_over_one_pixel_is_a_linear_head() -> None:
    head = nn.Conv2d(6, 5, 1)
    linear = nn.Linear(6, 5)
    maps = torch.randn(2, 3, 6, 1, 1)
    assert torch.equal(linear_reach(head, maps), linear_reach(linear, maps.flatten(2)))


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(6, 5)),
        parametrizations.weight_norm(nn.Linear(6, 5)),
        nn.Conv2d(6, 6, 1, groups=2),
        nn.Conv2d(6, 6, 3),
    ],
    ids=["stack", "weight_norm", "groups", "3x3"],
)
def test_no_closed_form_where_it_would_be_wrong(head: nn.Module) -> None:
    assert linear_reach(head, torch.zeros(2, 6)) is None


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_class_after_class_is_jacrev_of_all_weights(temperature: float) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(4, dtype=torch.float64)
    logits = net(x)
    log_p = log_posterior(logits, temperature)
    found = log_gradient_norms(log_p, measure_reach(logits, log_p, list(net.parameters())), temperature)
    jacobian = reference.posterior_jacobian(net, lambda w: torch.func.functional_call(net, w, (x,)), temperature)
    assert found.exp().tolist() == pytest.approx([reference.l1(slope) for slope in jacobian], rel=1e-10)
    torch.testing.assert_close(
        measure_reach(logits, log_p, list(net.parameters())).flatten(), found.exp() / slope_of(log_p, temperature)
    )


def slope_of(log_p: Tensor, temperature: float) -> Tensor:
    p = log_p.exp()
    return p * (1 - p) / temperature


def test_a_weight_that_does_nothing_adds_nothing() -> None:
    head, f, idle = nn.Linear(2, 3).double(), torch.randn(2).double(), nn.Parameter(torch.ones(2))
    logits = head(f)
    log_p = log_posterior(logits, 3.0)
    with_it = measure_reach(logits, log_p, [*head.parameters(), idle])
    torch.testing.assert_close(with_it, linear_reach(head, f).expand(3))


def test_a_network_that_is_all_but_sure_keeps_its_gradients() -> None:
    """1 - p_i is 1e-40 for the first class: in floats p_i (1 - p_i) would be 0, and so would ∇p_i by autograd."""
    logits = torch.tensor([90.0, -2.0, -3.0], dtype=torch.float64)
    found = log_gradient_norms(log_posterior(logits, 1.0), torch.ones(1), 1.0)
    with localcontext() as context:
        context.prec = 80
        powers = [Decimal(z).exp() for z in logits.tolist()]
        total = sum(powers)
        expected = [float((power / total * (total - power) / total).ln()) for power in powers]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    weights = nn.Parameter(torch.ones(3))
    reaches = measure_reach(logits.float() * weights, log_posterior(logits, 1.0), [weights])
    share = float(powers[1] / (powers[1] + powers[2]))
    assert float(reaches[0]) == pytest.approx(90 + 2 * share + 3 * (1 - share), rel=1e-6)
