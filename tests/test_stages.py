"""Stages are found by their names in the networks that have them, and asked for in all others."""

import pytest
import torch
from torch import nn

from selfdistill import BYOT, SelfDistiller
from selfdistill.models import build
from selfdistill.stages import find_stages
from tests.nets import ConvNet, batch

LAYERS = ("layer1", "layer2", "layer3", "layer4")
TRANSITIONS = tuple(f"features.transition{number}" for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("name", "stages", "strides"),
    [
        ("resnet10_cifar", LAYERS, [8, 4, 2]),
        ("densenet121_cifar", (*TRANSITIONS, "features.norm5"), [4, 2, 1]),
        ("torchvision:resnet50", LAYERS, [8, 4, 2]),
        ("torchvision:densenet121", (*TRANSITIONS, "features.norm5"), [4, 2, 1]),
        ("timm:resnet18", LAYERS, [8, 4, 2]),
        ("timm:convnext_atto", tuple(f"stages.{number}" for number in range(4)), [8, 4, 2]),
    ],
)
def test_stages_and_the_strides_of_the_branches(name: str, stages: tuple[str, ...], strides: list[int]) -> None:
    width = {"width": 4} if name.endswith("_cifar") else {}
    model = build(name, 3, **width)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, 64)
    distiller = SelfDistiller(model, BYOT(), example_input=x)
    assert distiller.stages == stages
    kernels = [branch.maps[3] for branch in distiller.method.branches]  # type: ignore[union-attr, index]
    assert [kernel.stride for kernel in kernels] == [(stride, stride) for stride in strides]
    assert [kernel.kernel_size for kernel in kernels] == [(stride, stride) for stride in strides]


@pytest.mark.parametrize("side", [16, 28, 33])
def test_branches_at_any_size(side: int) -> None:
    x = torch.randn(2, 3, side, side)
    distiller = SelfDistiller(build("resnet10_cifar", 3, width=4), BYOT(), example_input=x)
    distiller(x, torch.tensor([0, 1])).loss.backward()


def test_one_image_is_enough_where_batchnorm_sees_more_than_one_value() -> None:
    x, y = torch.randn(1, 3, 32, 32), torch.tensor([1])
    distiller = SelfDistiller(build("resnet10_cifar", 3, width=4), BYOT(), example_input=x)
    assert torch.isfinite(distiller(x, y).loss)
    with pytest.raises(ValueError, match="a batch of 1 is too small: a BatchNorm would see one value per channel"):
        distiller(x[:, :, :8, :8], y)


@pytest.mark.parametrize("name", ["torchvision:vgg11", "timm:vit_tiny_patch16_224"])
def test_a_network_without_stages(name: str) -> None:
    with pytest.raises(ValueError, match=r"no stages were found in this \w+; pass stages=, the dotted names of two"):
        SelfDistiller(build(name, 3), BYOT(), example_input=torch.zeros(1, 3, 224, 224))


def test_modules_called_stages() -> None:
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"stages": nn.Sequential(nn.ReLU(), nn.ReLU())})})
    assert find_stages(model) == ("encoder.stages.0", "encoder.stages.1")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("block",), r"BYOT branches off maps.*but the stages give \(2, 8, 8, 8\); pass stages="),
        (("block", "fc"), r"the stages give \(2, 8, 8, 8\), \(2, 5\)"),
        (("block", "nowhere"), "stages='nowhere' is not a submodule of this ConvNet; its children are: stem"),
    ],
)
def test_stages_that_are_no_maps(stages: tuple[str, ...], message: str) -> None:
    x, _ = batch("conv")
    model = ConvNet()
    with pytest.raises(ValueError, match=message):
        SelfDistiller(model, BYOT(), stages=stages, example_input=x)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
