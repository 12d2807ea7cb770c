import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.evaluation.grad_cam import grad_cam
from selfdistill.models import build
from tests import nets


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def literal(maps: Tensor, weights: Tensor) -> list[list[float]]:
    """Of one image whose head is linear in the mean of its maps: dz_c / dA^k_ij is w_ck / (H W) everywhere."""
    k, height, width = maps.shape
    a = [sum(float(w) / (height * width) for _ in range(height * width)) / (height * width) for w in weights]
    return [[max(0.0, sum(a[n] * float(maps[n, i, j]) for n in range(k))) for j in range(width)] for i in range(height)]


def test_against_a_literal_loop(model: nn.Sequential) -> None:
    x, classes = torch.randn(3, 3, 10, 12), torch.tensor([0, 3, 3])
    model(torch.randn(16, 3, 10, 12))  # statistics for the BatchNorm
    found = grad_cam(model, x, classes, layer="2")
    maps = model.eval()[:3](x)
    for one, of_image, c in zip(maps, found, classes.tolist(), strict=True):
        expected = torch.tensor(literal(one.detach(), model[5].weight[c].detach()))
        resized = F.interpolate(expected[None, None], size=(10, 12), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(of_image, resized / resized.max(), rtol=1e-4, atol=1e-6)


def test_it_finds_the_place_of_the_evidence() -> None:
    # Class 1 is what is bright in the first channel; a spot in a corner is where the map must be largest.
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    model[0].weight.data = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    model[3].weight.data = torch.tensor([[-1.0], [1.0]])
    x = torch.zeros(1, 3, 8, 8)
    x[0, 0, 6, 1] = 1.0
    for_one, for_zero = (grad_cam(model, x, torch.tensor([c]), layer="0")[0] for c in (1, 0))
    assert divmod(int(for_one.argmax()), 8) == (6, 1)
    assert float(for_one.max()) == 1.0
    assert not for_zero.any()  # nothing speaks for the other class


def test_the_model_is_left_as_it_was_found(model: nn.Sequential) -> None:
    model.train().requires_grad_(False)
    statistics = model[1].running_mean.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert grad_cam(model, torch.randn(2, 3, 8, 8), torch.tensor([0, 1]), layer="0").dtype == torch.float32
    assert model.training
    assert torch.equal(model[1].running_mean, statistics)
    assert [p.grad for p in model.parameters()] == [None] * 6
    assert not any(module._forward_hooks for module in model.modules())


def test_the_deepest_stage_is_the_default() -> None:
    model = build("resnet10_cifar", 5, width=4)
    x, classes = torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    torch.testing.assert_close(grad_cam(model, x, classes), grad_cam(model, x, classes, layer="layer4"))


def test_what_has_no_map_is_refused(model: nn.Sequential) -> None:
    x, classes = torch.randn(1, 3, 8, 8), torch.tensor([0])
    for layer in ("5", "no_such", None):
        with pytest.raises(ValueError, match=r"^layer"):
            grad_cam(model, x, classes, layer=layer)
    with pytest.raises(ValueError, match=r"^layer"):
        grad_cam(nets.mlp(), torch.randn(1, 8), classes)
    assert not any(module._forward_hooks for module in model.modules())
