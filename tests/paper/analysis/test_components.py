import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.data import load_data
from selfdistill.evaluation.images import Images
from selfdistill.models import build
from selfdistill.paper.analysis.components import Components, measure_components
from selfdistill.paper.analysis.masks import Conditions, drop_twice
from tests.paper.analysis.conftest import Trained
from tests.reference import analysis as reference

FIELDS = ("log_p", "log_q", "log_dp", "log_dq")


def small(per_class: int = 1) -> Images:
    data = load_data("digits", per_class=2, test_per_class=per_class)
    return Images(data.test, data, "cpu")


def assert_same(one: Components, other: Components, tolerance: float = 1e-5) -> None:
    for field in FIELDS:
        torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=tolerance, atol=tolerance)


class Masked(nn.Module):
    """A Sequential with one mask between its backbone and its head, ``[cut:]``."""

    def __init__(self, model: nn.Sequential, cut: int, mask: Tensor) -> None:
        super().__init__()
        self.backbone, self.head, self.mask = model[:cut], model[cut:], mask

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x) * self.mask)[0]


def assert_literal(found: Components, model: nn.Sequential, cut: int, images: Images, image: int) -> None:
    """One image of ``found`` against the softmax, and jacrev of it, of the network with its masks by hand."""
    x = torch.cat([x for x, _ in images.batches()])[image : image + 1]
    masks = drop_twice(torch.ones_like(model[:cut](x)), found.conditions, first=image)
    for mask, log_p, log_dp in zip(masks, (found.log_p, found.log_q), (found.log_dp, found.log_dq), strict=False):
        masked = Masked(model, cut, mask)
        of = masked if found.weights == "all" else masked.head
        dropped = (masked.backbone(x) * mask).detach()

        def logits(weights: dict[str, Tensor], masked: Masked = masked, dropped: Tensor = dropped) -> Tensor:
            if found.weights == "all":
                return torch.func.functional_call(masked, weights, (x,))
            return torch.func.functional_call(masked.head, weights, (dropped,))[0]

        posterior = torch.softmax(masked(x).detach().double() / found.conditions.temperature, dim=0)
        torch.testing.assert_close(log_p[image].exp(), posterior, rtol=1e-5, atol=1e-8)
        jacobian = reference.posterior_jacobian(of, logits, found.conditions.temperature)
        expected = [reference.l1(slope) for slope in jacobian]
        assert log_dp[image].exp().tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("weights", ["head", "all"])
def test_a_trained_network_against_jacrev(trained: Trained, weights: str, temperature: float) -> None:
    found = measure_components(
        trained.model,
        trained.images.spaced(4),
        weights,  # type: ignore[arg-type]
        Conditions(p=0.3, temperature=temperature, seed=2),
    )
    assert found.log_p.shape == (4, 10)
    for image in (0, 3):
        assert_literal(found, trained.model, 6, trained.images.spaced(4), image)


class Squared(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight**2, self.bias)


def test_a_head_that_makes_its_weights_of_others_is_differentiated() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Tanh(), Squared(8, 10))
    images = small().spaced(3)
    assert_literal(measure_components(model, images), model, 3, images, 1)


def test_the_two_ways_agree_where_all_weights_are_the_heads() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    closed, passed = (measure_components(model, small(), weights) for weights in ("head", "all"))  # type: ignore[arg-type]
    assert_same(closed, passed)


def test_neither_batches_nor_company_matter(trained: Trained) -> None:
    whole = measure_components(trained.model, trained.images)
    images = Images(trained.images.split, trained.images.data, "cpu", batch_size=7)
    assert_same(measure_components(trained.model, images), whole, 1e-4)
    assert_same(measure_components(trained.model, trained.images), whole, 0)
    other = measure_components(trained.model, trained.images, conditions=Conditions(seed=1))
    assert not torch.equal(other.log_p, whole.log_p)
    assert len(whole.log_p) == 200
    # The same masks whichever weights: those of a set's first image are its position's.
    alone = measure_components(trained.model, trained.images.part(0, 2), weights="all")
    torch.testing.assert_close(alone.log_q, whole.log_q[:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["head", "all"])
@pytest.mark.parametrize("name", ["resnet10_cifar", "densenet121_cifar"])
def test_a_model_of_the_library_is_left_as_it_was_found(name: str, weights: str) -> None:
    model = build(name, 10, width=4).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure_components(model, small().spaced(1), weights)  # type: ignore[arg-type]
    assert all(bool(getattr(found, field).isfinite().all()) for field in FIELDS)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_a_mask_that_leaves_nothing_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2), nn.ReLU(), nn.Linear(2, 10, bias=False))
    with pytest.raises(ValueError, match=r"lower `p`"):
        measure_components(model, small(2))


def test_a_frozen_model_is_refused_for_all_weights(trained: Trained) -> None:
    trained.model.requires_grad_(False)
    try:
        with pytest.raises(ValueError, match="requires_grad_"):
            measure_components(trained.model, trained.images.spaced(1), "all")
        assert measure_components(trained.model, trained.images.spaced(1)).log_p.shape == (1, 10)
    finally:
        trained.model.requires_grad_()
