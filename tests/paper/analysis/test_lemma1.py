import copy

import pytest
import torch
from torch import Tensor, nn

from selfdistill.data import load_data
from selfdistill.evaluation.images import Images
from selfdistill.losses import kl, symmetric_kl
from selfdistill.paper.analysis import directions
from selfdistill.paper.analysis.directions import Direction, check_lemma1, lemma1_sum, logit_gradients
from tests.paper.analysis.conftest import Trained, round_trip
from tests.reference import analysis as reference
from tests.reference import losses

T = 3.0


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    a, b = 3 * torch.randn(2, 4, 5, dtype=torch.float64)
    return a, b


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_against_finite_differences_of_the_paper_equations(logits: tuple[Tensor, Tensor], direction: str) -> None:
    a, b = (z.tolist() for z in logits)

    def divergence(moved: losses.Rows, fixed_moved: losses.Rows, fixed: losses.Rows) -> float:
        """Eq. 6 or 7 where ``a`` moves: in each of its two terms either side may be the constant one."""
        if direction == "forward":
            return losses.kl(fixed, moved, T)  # of KL(p || q_θ) + KL(q || p_θ) the second moves with p's logits
        return losses.kl(moved, fixed, T)

    step, rows = 1e-5, len(a)
    on_a, on_b = logit_gradients(*logits, T, direction)  # type: ignore[arg-type]
    for slope, one, other in ((on_a, a, b), (on_b, b, a)):
        for row in range(rows):
            for i in range(5):
                up, down = copy.deepcopy(one), copy.deepcopy(one)
                up[row][i] += step
                down[row][i] -= step
                numeric = (divergence(up, one, other) - divergence(down, one, other)) / (2 * step)
                assert float(slope[row, i]) == pytest.approx(rows * numeric, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("direction", ["forward", "reverse", "both"])
def test_it_is_the_gradient_that_trains(logits: tuple[Tensor, Tensor], direction: str) -> None:
    a, b = (z.requires_grad_() for z in logits)
    found = torch.autograd.grad(symmetric_kl(a, b, T, direction), [a, b])  # type: ignore[arg-type]
    ways = ("forward", "reverse") if direction == "both" else (direction,)
    of_ways = [logit_gradients(a.detach(), b.detach(), T, way) for way in ways]  # type: ignore[arg-type]
    for one, other in zip(found, map(sum, zip(*of_ways, strict=True)), strict=True):
        torch.testing.assert_close(4 * one, other)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_no_logit_shift_matters(logits: tuple[Tensor, Tensor], direction: Direction) -> None:
    for slope in logit_gradients(*logits, T, direction):
        torch.testing.assert_close(slope.sum(dim=1), torch.zeros(4).double(), rtol=0, atol=1e-15)
    same, _ = logit_gradients(logits[0], logits[0] + 7, T, direction)
    torch.testing.assert_close(same, torch.zeros(4, 5).double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_printed_lemma_term_by_term(direction: str) -> None:
    """Eq. 8 and 9 with every ∂p_i / ∂θ by jacrev, against the gradient of Eq. 6 and 7 by detaching."""
    module = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)).double()
    u, v = torch.randn(2, 6, dtype=torch.float64)
    dp, dq = (
        reference.posterior_jacobian(module, lambda w, x=x: torch.func.functional_call(module, w, (x,)), T)
        for x in (u, v)
    )
    a, b = module(u)[None], module(v)[None]
    p, q = ((z[0] / T).softmax(0).tolist() for z in (a, b))
    printed = reference.lemma_1(p, q, dp, dq, direction)
    if direction == "forward":
        value = kl(a.detach(), b, T) + kl(b.detach(), a, T)
    else:
        value = kl(a, b.detach(), T) + kl(b, a.detach(), T)
    weights = dict(module.named_parameters())
    automatic = torch.autograd.grad(value, list(weights.values()), retain_graph=True)
    scalar = lemma1_sum((a / T).softmax(1), (b / T).softmax(1), direction)  # type: ignore[arg-type]
    summed = torch.autograd.grad(scalar, list(weights.values()))
    for name, expected, found in zip(weights, automatic, summed, strict=True):
        torch.testing.assert_close(printed[name], expected)
        torch.testing.assert_close(found, expected)


def test_on_a_trained_network(trained: Trained) -> None:
    found = check_lemma1(trained.model, trained.images.spaced(50))
    assert (found.n, found.classes, found.temperature) == (50, 10, 3.0)
    errors = [found.forward_logits, found.forward_weights, found.reverse_logits, found.reverse_weights, found.both]
    assert max(errors) < 1e-13
    assert round_trip(found) == found
    assert all(weight.grad is None for weight in trained.model.parameters())
    assert trained.model[6].weight.dtype == torch.float32


def test_a_wrong_lemma_is_seen(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged: dict[str, Direction] = {"forward": "reverse", "reverse": "forward"}
    monkeypatch.setattr(directions, "lemma1_sum", lambda p, q, way: lemma1_sum(p, q, exchanged[way]))
    found = check_lemma1(trained.model, trained.images.spaced(20))
    assert min(found.forward_weights, found.reverse_weights) > 0.1
    assert max(found.forward_logits, found.both) < 1e-13


def test_a_head_of_zeros_has_nothing_to_compare() -> None:
    data = load_data("digits", per_class=2, test_per_class=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 10))
    for weight in model[3].parameters():
        nn.init.zeros_(weight)
    with pytest.raises(ValueError, match="head of zeros"):
        check_lemma1(model, Images(data.test, data, "cpu"))
