"""The CIFAR networks: torchvision's own networks with another stem, widened, and with two layers in the head."""

import pytest
import torch
import torchvision
from torch import nn

from selfdistill.models import CifarDenseNet, CifarResNet, build
from selfdistill.stages import find_stages


def settled(model: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and scales of its own, so that no wrong order of parts passes unseen."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_resnet_against_torchvision(name: str) -> None:
    reference = torchvision.models.get_model(name, num_classes=100)
    reference.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    settled(reference)
    model = build(f"{name}_cifar", 100).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), reference(x))


def test_byot_s_resnet_against_torchvision() -> None:
    reference = torchvision.models.resnet18(num_classes=5)
    reference.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    settled(reference)
    model = build("resnet18_byot224", 5).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, 3, 65, 64)  # an odd side, so that the pooling's rounding counts too
    assert torch.equal(model(x), reference(x))


@torch.no_grad()
def test_byot_s_resnet_has_maps_of_twice_the_sides() -> None:
    def sides(model: nn.Module) -> list[tuple[int, ...]]:
        seen: list[tuple[int, ...]] = []
        for name in find_stages(model):
            model.get_submodule(name).register_forward_hook(lambda _module, _args, maps: seen.append(maps.shape[1:]))
        assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 200)
        return seen

    with torch.device("meta"):
        plain, larger = sides(build("torchvision:resnet18", 200)), sides(build("resnet18_byot224", 200))
    assert plain == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert larger == [(channels, 2 * height, 2 * width) for channels, height, width in plain]


def test_byot_s_resnet_has_the_weights_of_the_cifar_one() -> None:
    with torch.device("meta"):
        states = [build(name, 200).state_dict() for name in ("resnet18_byot224", "resnet18_cifar")]
    assert [(key, value.shape) for key, value in states[0].items()] == [
        (key, value.shape) for key, value in states[1].items()
    ]
    plain = torchvision.models.resnet18(num_classes=200).state_dict()
    differing = [key for key in plain if plain[key].shape != states[0][key].shape]
    assert plain.keys() == states[0].keys()
    assert differing == ["conv1.weight"]


def test_densenet_against_torchvision() -> None:
    reference = torchvision.models.densenet121(num_classes=10)
    reference.features.conv0 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, nn.Identity())
    settled(reference)
    model = build("densenet121_cifar", 10).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(model(x), reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [("resnet18_cifar", 11_220_132, 512), ("resnet34_cifar", 21_328_292, 512), ("densenet121_cifar", 7_048_548, 1024)],
)
def test_sizes_for_100_classes(name: str, parameters: int, features: int) -> None:
    with torch.device("meta"):
        model = build(name, 100)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert [*model.modules()][-1].in_features == features


def test_resnet_children_and_initialisation() -> None:
    torch.manual_seed(0)
    model = build("resnet10_cifar", 10)
    names = [name for name, _ in model.named_children()]
    for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"):
        assert name in names
    assert [len(model.get_submodule(f"layer{i}")) for i in (1, 2, 3, 4)] == [1, 1, 1, 1]
    fan_out = 512 * 9  # kaiming normal with gain sqrt(2); the fan in is 256 * 9
    assert model.layer4[0].conv1.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.01)


def test_a_resnet_is_drawn_anew_as_it_was_made() -> None:
    torch.manual_seed(7)
    made = CifarResNet((1, 1, 1, 1), 5, width=4)
    expected = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.randn(4, 3, 16, 16))  # BatchNorm's statistics are drawn back too
    torch.manual_seed(7)
    made.reset_parameters()
    for name, value in made.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("name", "head"), [("resnet10_cifar", "fc"), ("densenet121_cifar", "classifier")])
def test_width_features_and_two_layer_head(name: str, head: str) -> None:
    model = build(name, 7, width=8, features=48, head_layers=2)
    seen: list[torch.Tensor] = []
    model.get_submodule(head).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits = model(torch.randn(3, 3, 32, 32))
    assert logits.shape == (3, 7)
    assert seen[0].shape == (3, 48)
    assert seen[0].min() >= 0  # after the widening's ReLU
    layers = [type(layer) for layer in model.get_submodule(head)]
    assert layers == [nn.Linear, nn.ReLU, nn.Linear]


def test_width_scales_the_channels() -> None:
    assert build("resnet10_cifar", 5, width=8).fc.in_features == 64
    # (16 + 6 * 8) / 2 = 32; (32 + 12 * 8) / 2 = 64; (64 + 24 * 8) / 2 = 128; 128 + 16 * 8 = 256
    assert build("densenet121_cifar", 5, width=8).classifier.in_features == 256


@pytest.mark.parametrize(
    "model", [CifarResNet((1, 1, 1, 1), 4, width=4), CifarDenseNet(4, blocks=(1, 1, 1, 1), width=4)]
)
@pytest.mark.parametrize("size", [8, 32, 224])
def test_one_image_of_any_size_gives_a_batch_of_one(model: nn.Module, size: int) -> None:
    assert model.eval()(torch.randn(1, 3, size, size)).shape == (1, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "`classes` must be at least 2, not 1"),
        ({"classes": 10, "width": 0}, "`width` must be from 1 "),
        ({"classes": 10, "features": 0}, "`features` must be from 1 "),
        ({"classes": 10, "head_layers": 3}, "`head_layers` must be 1 or 2, not 3"),
    ],
)
@pytest.mark.parametrize("name", ["resnet10_cifar", "densenet121_cifar"])
def test_arguments_out_of_range(name: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **arguments)
