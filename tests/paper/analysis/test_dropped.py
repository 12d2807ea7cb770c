import pytest
import torch
from torch import nn

from selfdistill.evaluate.agreement import read_features
from selfdistill.evaluate.gradient import scoring
from selfdistill.paper.analysis.dropped import chosen, dropped_pair, learned, pair_logits, pass_twice_dropped, tapped
from selfdistill.tap import Tap
from tests import nets
from tests.paper.analysis.conftest import Trained


@pytest.mark.parametrize("p", [0.2, 0.5, 0.7])
def test_masks_are_those_of_dropout(p: float) -> None:
    pair = dropped_pair(torch.ones(400, 64), p=p)
    assert pair.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    kept = (pair > 0).double()
    noise = (p * (1 - p) / kept[0].numel()) ** 0.5
    assert kept.mean(dim=(1, 2)).tolist() == pytest.approx([1 - p] * 2, abs=5 * noise)
    u, v = (kept - (1 - p)).flatten(1) / (p * (1 - p)) ** 0.5
    for one, other in ((u, v), (u[:-64], u[64:]), (u[:-1], u[1:])):  # the two masks, two images, two features
        assert abs(float((one * other).mean())) < 5 / len(one) ** 0.5


def test_a_mask_depends_on_seed_position_and_feature_only() -> None:
    state = torch.get_rng_state()
    whole = dropped_pair(torch.ones(10, 8), seed=3)
    parts = [dropped_pair(part, seed=3, first=first) for first, part in ((0, torch.ones(7, 8)), (7, torch.ones(3, 8)))]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(dropped_pair(torch.ones(10, 8, 1, 1), seed=3).flatten(2), whole)
    assert not torch.equal(dropped_pair(torch.ones(10, 8), seed=4), whole)
    assert torch.equal(state, torch.get_rng_state())


def test_the_type_and_the_graph_are_kept() -> None:
    features = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
    pair = dropped_pair(features)
    assert pair.dtype == torch.float64
    (slope,) = torch.autograd.grad(pair.sum(), features)
    assert torch.equal(slope, pair.sum(dim=0))


def test_both_copies_go_through_the_head_once() -> None:
    head, pair = nn.Linear(8, 3), torch.randn(2, 5, 8)
    assert torch.equal(pair_logits(head, pair)[1], head(pair.flatten(0, 1))[5:])


@pytest.mark.parametrize("net", ["conv", "attention", "mlp"])
def test_a_dropped_pass_classifies_the_dropped_features(net: str) -> None:
    model, (x, y) = nets.NETS[net](), nets.batch(net)
    reading = read_features(model, [(x, y)])
    tap = Tap(model, nets.HEADS[net])
    with scoring(model, x), torch.no_grad():
        logits = pass_twice_dropped(model, tap, x, seed=1, first=4)
        for found, dropped in zip(logits, dropped_pair(reading.features, seed=1, first=4), strict=True):
            torch.testing.assert_close(found, reading.head(dropped))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0.0}, r"^p: 0.0, expected a probability in \(0, 1\); without dropout the two posteriors are one$"),
        ({"p": 1.0}, "^p: 1.0"),
        ({"seed": -1}, "^seed: -1, expected a whole number >= 0$"),
    ],
)
def test_bad_masks_are_one_clear_line(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dropped_pair(torch.ones(2, 4), **arguments)  # type: ignore[arg-type]


def test_images_and_weights_that_are_not_there(trained: Trained) -> None:
    assert len(chosen(trained.images, 7)) == 7
    with pytest.raises(ValueError, match=r"^max_images: 0, expected at least 1$"):
        chosen(trained.images, 0)
    with pytest.raises(ValueError, match=r"^images: there is none to measure$"):
        chosen(trained.images.part(0, 0), 5)
    with pytest.raises(ValueError, match=r"^head: none of its weights takes a gradient"):
        learned(nn.Linear(2, 2).requires_grad_(False), "head")
    with (
        pytest.raises(ValueError, match="head='nowhere' is not a submodule"),
        tapped(trained.model, trained.images, "nowhere"),
    ):
        pass
