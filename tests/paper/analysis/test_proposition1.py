from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor

from selfdistill.paper.analysis.components import Components, linear_reach, log_gradient_norms, measure_components
from selfdistill.paper.analysis.directions import Direction, logit_gradients, measure_gradients
from selfdistill.paper.analysis.high_precision import check_proposition1, difference
from selfdistill.paper.analysis.proposition1 import (
    check_assumptions,
    differences,
    measure_proposition1,
    reverse_and_forward,
)
from tests.paper.analysis.conftest import Trained, round_trip
from tests.paper.analysis.test_assumptions import each, random_components
from tests.reference import analysis as reference
from tests.reference.analysis import k


def test_against_the_four_terms_as_printed() -> None:
    components = random_components()
    expected = [reference.reverse_and_forward(*one) for one in each(components)]
    reverse, forward = (part.flatten().tolist() for part in reverse_and_forward(components))
    assert reverse == pytest.approx([one for one, _ in expected])
    assert forward == pytest.approx([one for _, one in expected])
    assert differences(components).flatten().tolist() == pytest.approx(
        [a - b for a, b in expected], rel=1e-9, abs=1e-12
    )


def test_against_sixty_digits_where_probabilities_are_close() -> None:
    """Signs and eight digits, also where the two sums agree to ten."""
    log_p = torch.randn(200, 5, dtype=torch.float64).log_softmax(dim=1)
    apart = 10 ** (-5 * torch.rand(200, 5, dtype=torch.float64))
    components = Components(log_p, log_p + apart, log_p, log_p + 1.2 * apart)
    found = differences(components).flatten().tolist()
    with localcontext() as context:
        context.prec = 60
        fields = (components.log_p, components.log_q, components.log_dp, components.log_dq)
        exact = [
            difference(*(Decimal(value).exp() for value in one))
            for one in zip(*(field.flatten().tolist() for field in fields), strict=True)
        ]
    assert [value > 0 for value in found] == [value > 0 for value in exact]
    assert found == pytest.approx([float(value) for value in exact], rel=1e-4)


def test_d_over_the_smaller_gradient_is_k() -> None:
    p, q, dp, dq = Decimal("0.3"), Decimal("0.2"), Decimal("0.07"), Decimal("0.05")
    assert abs(difference(p, q, dp, dq) / dq - k((p / q).ln(), dp / dq)) < Decimal("1e-26")
    assert abs(difference(q, p, dq, dp) - difference(p, q, dp, dq)) < Decimal("1e-26")


@pytest.mark.parametrize("classes", [10, 100])
def test_at_high_precision_on_random_posteriors(classes: int) -> None:
    found = check_proposition1(posteriors=3000 // classes, classes=classes)
    assert found.assumed + found.first_fails + found.second_fails == 3000
    assert min(found.assumed, found.first_fails, found.second_fails) > 100
    assert found.positive_if_assumed == found.assumed
    assert found.positive_if_first_fails == 0
    assert 0 < found.positive_if_second_fails < found.second_fails  # between r_1 and r*, and beyond r*


@pytest.mark.parametrize("weights", ["head", "all"])
def test_on_a_trained_network(trained: Trained, weights: str) -> None:
    components = measure_components(
        trained.model,
        trained.images.spaced(200 if weights == "head" else 20),
        weights,  # type: ignore[arg-type]
    )
    found = measure_proposition1(components)
    assert found.positive_if_assumed == 1.0
    assert found.positive_if_first_fails == 0.0
    assert 0 < found.positive_if_second_fails < 1
    assert 0.5 < found.assumed < found.positive < 1
    first, second = check_assumptions(components)
    positive = [difference(*(Decimal(value) for value in one)) > 0 for one in each(components)]
    assert found.positive == pytest.approx(sum(positive) / len(positive), abs=1e-12)
    assert found.assumed == pytest.approx(float((first & second).double().mean()))
    reverse, forward = reverse_and_forward(components)
    assert found.positive_images == pytest.approx(float((reverse.sum(1) > forward.sum(1)).double().mean()))
    assert found.reverse - found.forward == pytest.approx(float(differences(components).sum(1).mean()))
    assert round_trip(found) == found


def test_what_does_not_occur_is_none() -> None:
    one = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    found = measure_proposition1(Components(one, one.flip(1), one, one.flip(1)))
    assert (found.positive_if_first_fails, found.positive_if_second_fails) == (None, None)


def test_the_assumptions_do_not_enlarge_reverse_gradients() -> None:
    """Both assumptions hold for each of four classes, D_i > 0 for each, and the forward gradient's L1 norm is larger.

    A linear head without bias, f = (3, 2, 3), u = (0, 1, 1), v = (1, 0, 0), p = 0.5, T = 3. Eq. 20 adds up the norms of
    terms whose sum is the gradient: it bounds the norms that Fig. 4 shows, and does not order them.
    """
    weight = torch.tensor([[2, 0, -1], [2, 1, -2], [0, -1, 2], [0, 0, 1]], dtype=torch.float64)
    dropped = 2 * torch.tensor([[0, 2, 3], [3, 0, 0]], dtype=torch.float64)
    logits = dropped @ weight.T
    log_p = (logits / 3).log_softmax(dim=1)
    head = torch.nn.Linear(3, 4, bias=False)
    norms = log_gradient_norms(log_p, linear_reach(head, dropped), 3.0)
    components = Components(log_p[:1], log_p[1:], norms[:1], norms[1:])
    first, second = check_assumptions(components)
    assert bool((first & second).all())
    assert bool((differences(components) > 0).all())

    def l1_norm(direction: Direction) -> float:
        on_u, on_v = logit_gradients(logits[:1], logits[1:], 3.0, direction)
        gradient: Tensor = on_u.T @ dropped[:1] + on_v.T @ dropped[1:]
        return float(gradient.abs().sum())

    assert l1_norm("forward") == pytest.approx(10.375, abs=1e-3)
    assert l1_norm("reverse") == pytest.approx(2.300, abs=1e-3)
    bound_on_reverse, bound_on_forward = (float(part.sum()) for part in reverse_and_forward(components))
    assert bound_on_reverse > bound_on_forward > 10.375


def test_the_norms_of_eq_20_bound_those_of_fig_4(trained: Trained) -> None:
    images = trained.images.spaced(20)
    found = measure_proposition1(measure_components(trained.model, images, "all"))
    whole = measure_gradients(trained.model, replace(images, batch_size=20)).whole
    assert whole.reverse <= found.reverse
    assert whole.forward <= found.forward
