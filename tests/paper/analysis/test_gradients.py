from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from selfdistill.data import load_data
from selfdistill.evaluation.images import Images
from selfdistill.losses import kl, symmetric_kl
from selfdistill.models import build
from selfdistill.paper.analysis.directions import Comparison, compare_gradients, measure_gradients, weight_gradients
from selfdistill.paper.analysis.masks import Conditions, drop_twice
from tests.paper.analysis.conftest import Trained, round_trip


@pytest.fixture
def pair() -> Tensor:
    return drop_twice(torch.rand(6, 8, dtype=torch.float64))


def detach_one_side(a: Tensor, b: Tensor, temperature: float, direction: str) -> Tensor:
    """Eq. 6 or 7, the constant side detached."""
    if direction == "forward":
        return kl(a.detach(), b, temperature) + kl(b.detach(), a, temperature)
    return kl(a, b.detach(), temperature) + kl(b, a.detach(), temperature)


def flat(gradient: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_against_detaching_by_hand(pair: Tensor, temperature: float) -> None:
    head = nn.Linear(8, 5).double()
    u, v = pair
    weights = list(head.parameters())
    found = weight_gradients(head(u), head(v), weights, temperature)
    for direction, gradient in zip(("forward", "reverse"), found, strict=True):
        expected = torch.autograd.grad(detach_one_side(head(u), head(v), temperature, direction), weights)
        torch.testing.assert_close(flat(gradient), flat(expected))
    assert all(weight.grad is None for weight in weights)


def test_the_sum_matches_finite_differences_of_both(pair: Tensor) -> None:
    head = nn.Linear(8, 5).double()
    u, v = pair
    forward, reverse = weight_gradients(head(u), head(v), list(head.parameters()))
    both = torch.autograd.grad(symmetric_kl(head(u), head(v)), list(head.parameters()))
    torch.testing.assert_close(flat(forward) + flat(reverse), flat(both), rtol=1e-12, atol=1e-15)
    for row, column in ((0, 0), (3, 7), (4, 2)):
        values = []
        for step in (1e-5, -1e-5):
            moved = head.weight.detach().clone()
            moved[row, column] += step
            a, b = (x @ moved.T + head.bias.detach() for x in (u, v))
            values.append(float(kl(a, b, 3.0) + kl(b, a, 3.0)))
        numeric = (values[0] - values[1]) / 2e-5
        assert float(forward[0][row, column] + reverse[0][row, column]) == pytest.approx(numeric, rel=1e-6, abs=1e-10)


def test_the_forward_gradient_of_a_bias_is_zero(pair: Tensor) -> None:
    # (p - q) / T for the one mask and (q - p) / T for the other: only the reverse divergence moves a bias.
    head = nn.Linear(8, 5).double()
    forward, reverse = weight_gradients(head(pair[0]), head(pair[1]), [head.bias])
    assert float(forward[0].abs().max()) < 1e-16
    assert float(reverse[0].abs().max()) > 1e-4


def test_compare_by_hand() -> None:
    found = compare_gradients(
        [torch.tensor([[3.0]]), torch.tensor([0.0])], [torch.tensor([[3.0]]), torch.tensor([-4.0])]
    )
    assert found == Comparison(weights=2, cosine=pytest.approx(0.6), forward=3.0, reverse=7.0, both=10.0)
    same, opposite = torch.randn(5), torch.randn(5)
    assert compare_gradients([same], [2 * same]).cosine == pytest.approx(1.0)
    assert compare_gradients([opposite], [-opposite]).both == 0.0
    assert compare_gradients([torch.zeros(3)], [torch.ones(3)]).cosine is None


def literal(trained: Trained, size: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """(forward, reverse) of all weights for each whole batch: the network taken apart by hand."""
    model, found = trained.model, []
    x = torch.cat([x for x, _ in trained.images.batches()])
    for first in range(0, len(x) - size + 1, size):
        features = model[:6](x[first : first + size])
        u, v = drop_twice(features, Conditions(seed=seed), first=first)
        weights = list(model.parameters())
        found.append(
            tuple(
                flat(
                    torch.autograd.grad(detach_one_side(model[6](u), model[6](v), 3.0, way), weights, retain_graph=True)
                )
                for way in ("forward", "reverse")
            )
        )
    return found


def test_a_network_against_its_parts_by_hand(trained: Trained) -> None:
    images = replace(trained.images, batch_size=64)
    found = measure_gradients(trained.model, images, Conditions(seed=5))
    expected = literal(trained, 64, 5)
    assert (found.n, found.batch_size) == (192, 64)  # 200 images: the last 8 fill no batch
    for part, start in ((found.whole, 0), (found.head, -330)):
        pairs = [(forward[start:].double(), reverse[start:].double()) for forward, reverse in expected]
        assert part.weights == len(pairs[0][0])
        cosines = [float(f @ r / f.norm() / r.norm()) for f, r in pairs]
        assert part.cosine == pytest.approx(sum(cosines) / 3, rel=1e-4)
        for name, values in (
            ("forward", [f for f, _ in pairs]),
            ("reverse", [r for _, r in pairs]),
            ("both", [f + r for f, r in pairs]),
        ):
            assert getattr(part, name) == pytest.approx(sum(float(v.abs().sum()) for v in values) / 3, rel=1e-4)
    assert round_trip(found) == found


def test_the_masks_are_the_seeds(trained: Trained) -> None:
    one, again, other = (measure_gradients(trained.model, trained.images, Conditions(seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert one.whole.forward != other.whole.forward
    assert one.batch_size == 200  # fewer images than a batch of 512


@pytest.mark.parametrize("name", ["resnet10_cifar", "densenet121_cifar"])
def test_a_model_of_the_library_is_left_as_it_was_found(name: str) -> None:
    data = load_data("digits", per_class=2, test_per_class=1)
    model = build(name, 10, width=4).train()
    model.conv1.eval() if name == "resnet10_cifar" else None
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure_gradients(model, Images(data.test, data, "cpu"))
    assert found.whole.weights == sum(weight.numel() for weight in model.parameters())
    assert found.head.weights < found.whole.weights
    assert 0 < found.head.forward < found.whole.forward
    assert [module.training for module in model.modules()] == modes
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_frozen_weights_are_left_out(trained: Trained) -> None:
    trained.model[:6].requires_grad_(False)
    try:
        found = measure_gradients(trained.model, trained.images)
    finally:
        trained.model.requires_grad_()
    assert found.whole == found.head
    assert found.whole.weights == 330


def test_a_head_of_zeros_has_no_directions() -> None:
    data = load_data("digits", per_class=2, test_per_class=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 10))
    for weight in model[3].parameters():
        nn.init.zeros_(weight)
    found = measure_gradients(model, Images(data.test, data, "cpu"))
    assert found.whole == Comparison(weights=found.whole.weights, cosine=None, forward=0.0, reverse=0.0, both=0.0)
