import json
from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor

from selfdistill.paper.analysis.assumptions import holding
from selfdistill.paper.analysis.components import Components, measure_components
from selfdistill.paper.analysis.exact import Exact, check_proposition1, difference
from selfdistill.paper.analysis.gradients import measure_gradients
from selfdistill.paper.analysis.lemma1 import lemma1
from selfdistill.paper.analysis.lemma2 import k
from selfdistill.paper.analysis.norms import linear_reach, log_gradient_norms
from selfdistill.paper.analysis.proposition1 import Proposition1, differences, proposition1, reverse_and_forward
from tests.paper.analysis.conftest import Trained
from tests.paper.analysis.test_assumptions import each, random_components
from tests.reference import analysis as reference


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
    components = Components(log_p, log_p + apart, log_p, log_p + 1.2 * apart, "head", 0.5, 3.0, 0)
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


@pytest.mark.parametrize(("classes", "seed"), [(10, 0), (100, 1)])
def test_at_high_precision_on_random_posteriors(classes: int, seed: int) -> None:
    found = check_proposition1(posteriors=3000 // classes, classes=classes, seed=seed)
    assert found.components == found.assumed + found.first_fails + found.second_fails == 3000
    assert min(found.assumed, found.first_fails, found.second_fails) > 100
    assert found.positive_if_assumed == found.assumed
    assert found.positive_if_first_fails == 0
    assert 0 < found.positive_if_second_fails < found.second_fails  # between r_1 and r*, and beyond r*
    assert Exact.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found == check_proposition1(posteriors=3000 // classes, classes=classes, seed=seed)


@pytest.mark.parametrize("weights", ["head", "all"])
def test_on_a_trained_network(trained: Trained, weights: str) -> None:
    components = measure_components(
        trained.model,
        trained.images,
        weights=weights,  # type: ignore[arg-type]
        max_images=200 if weights == "head" else 20,
    )
    found = proposition1(components)
    assert found.positive_if_assumed == 1.0
    assert found.positive_if_first_fails == 0.0
    assert 0 < found.positive_if_second_fails < 1
    assert 0.5 < found.assumed < found.positive < 1
    first, second = holding(components)
    positive = [difference(*(Decimal(value) for value in one)) > 0 for one in each(components)]
    assert found.positive == pytest.approx(sum(positive) / len(positive), abs=1e-12)
    assert found.assumed == pytest.approx(float((first & second).double().mean()))
    reverse, forward = reverse_and_forward(components)
    assert found.positive_images == pytest.approx(float((reverse.sum(1) > forward.sum(1)).double().mean()))
    assert found.reverse - found.forward == pytest.approx(float(differences(components).sum(1).mean()))
    assert Proposition1.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_what_does_not_occur_is_none() -> None:
    one = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    found = proposition1(Components(one, one.flip(1), one, one.flip(1), "head", 0.5, 3.0, 0))
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
    components = Components(log_p[:1], log_p[1:], norms[:1], norms[1:], "head", 0.5, 3.0, 0)
    first, second = holding(components)
    assert bool((first & second).all())
    assert bool((differences(components) > 0).all())

    def l1_norm(direction: str) -> float:
        on_u, on_v = lemma1(logits[:1], logits[1:], 3.0, direction)  # type: ignore[arg-type]
        gradient: Tensor = on_u.T @ dropped[:1] + on_v.T @ dropped[1:]
        return float(gradient.abs().sum())

    assert l1_norm("forward") == pytest.approx(10.375, abs=1e-3)
    assert l1_norm("reverse") == pytest.approx(2.300, abs=1e-3)
    bound_on_reverse, bound_on_forward = (float(part.sum()) for part in reverse_and_forward(components))
    assert bound_on_reverse > bound_on_forward > 10.375


def test_the_norms_of_eq_20_bound_those_of_fig_4(trained: Trained) -> None:
    images = trained.images.spaced(20)
    found = proposition1(measure_components(trained.model, images, weights="all"))
    whole = measure_gradients(trained.model, replace(images, batch_size=20)).whole
    assert whole.reverse <= found.reverse
    assert whole.forward <= found.forward


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"posteriors": 0}, "^posteriors: 0, expected at least 1$"),
        ({"classes": 1}, "^classes: 1"),
        ({"digits": 16}, "^digits: 16"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_proposition1(**arguments)
