import pytest
import torch
from torch import nn

from selfdistill.errors import ArgumentError
from selfdistill.evaluation.gradient import scoring
from selfdistill.evaluation.images import read_features
from selfdistill.paper.analysis.masks import (
    Conditions,
    classify_pair,
    drop_twice,
    forward_pair,
    trainable_weights,
)
from selfdistill.tap import Tap
from tests import nets


@pytest.mark.parametrize("p", [0.2, 0.5, 0.7])
def test_masks_are_those_of_dropout(p: float) -> None:
    pair = drop_twice(torch.ones(400, 64), Conditions(p=p))
    assert pair.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    drawn = (pair > 0).double()
    noise = (p * (1 - p) / drawn[0].numel()) ** 0.5
    assert drawn.mean(dim=(1, 2)).tolist() == pytest.approx([1 - p] * 2, abs=5 * noise)
    u, v = (drawn - (1 - p)).flatten(1) / (p * (1 - p)) ** 0.5
    for one, other in ((u, v), (u[:-64], u[64:]), (u[:-1], u[1:])):  # the two masks, two images, two features
        assert abs(float((one * other).mean())) < 5 / len(one) ** 0.5


def test_a_mask_depends_on_seed_position_and_feature_only() -> None:
    state, seed3 = torch.get_rng_state(), Conditions(seed=3)
    whole = drop_twice(torch.ones(10, 8), seed3)
    parts = [drop_twice(part, seed3, first=first) for first, part in ((0, torch.ones(7, 8)), (7, torch.ones(3, 8)))]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(drop_twice(torch.ones(10, 8, 1, 1), seed3).flatten(2), whole)
    assert not torch.equal(drop_twice(torch.ones(10, 8), Conditions(seed=4)), whole)
    assert torch.equal(state, torch.get_rng_state())


def test_a_pair_has_the_type_and_the_graph_of_its_features() -> None:
    features = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    pair = drop_twice(features)
    assert pair.dtype == torch.float64
    (slope,) = torch.autograd.grad(pair.sum(), features)
    assert torch.equal(slope, pair.sum(dim=0))


def test_both_copies_go_through_the_head_once() -> None:
    head, pair = nn.Linear(8, 3), torch.randn(2, 5, 8)
    assert torch.equal(classify_pair(head, pair)[1], head(pair.flatten(0, 1))[5:])


@pytest.mark.parametrize("net", ["conv", "attention", "mlp"])
def test_a_dropped_pass_classifies_the_dropped_features(net: str) -> None:
    model, (x, y) = nets.NETS[net](), nets.batch(net)
    reading = read_features(model, [(x, y)])
    tap = Tap(model, nets.HEADS[net])
    with scoring(model, x), torch.no_grad():
        logits = forward_pair(model, tap, x, Conditions(seed=1), first=4)
        for found, dropped in zip(logits, drop_twice(reading.features, Conditions(seed=1), first=4), strict=True):
            torch.testing.assert_close(found, reading.head(dropped))


@pytest.mark.parametrize(("name", "value"), [("p", 0.0), ("p", 1.0), ("temperature", 0.0), ("seed", -1)])
def test_a_condition_outside_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ArgumentError) as error:
        Conditions(**{name: value})  # type: ignore[arg-type]
    assert error.value.argument == name


def test_a_frozen_module_has_no_trainable_weights() -> None:
    with pytest.raises(ValueError, match="requires_grad_"):
        trainable_weights(nn.Linear(2, 2).requires_grad_(False))
