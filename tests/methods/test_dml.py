"""DML against the formula as run for the paper."""

import copy
import pickle

import pytest
import torch
from torch import nn

from selfdistill import DML, SelfDistiller
from selfdistill.losses import kl
from selfdistill.models import CifarResNet, build
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, AttentionNet, ConvNet, batch, mlp
from tests.reference import dml


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 3.0), (0.1, 3.0), (0.5, 1.0)])
def test_against_published_dml(weight: float, temperature: float) -> None:
    model, peer, (x, y) = ConvNet().double(), ConvNet().double(), batch("conv")
    x = x.double()
    output = SelfDistiller(model, DML(weight, temperature, peer), example_input=x)(x, y)

    z_1, z_2 = model(x), peer(x)
    expected = dml.loss_total(z_1, z_2, y.tolist(), weight=weight, temperature=temperature)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    found, wanted = (gradients(loss, model, peer) for loss in (output.loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    both = dml.kl_from_peer(z_1, z_2, temperature) + dml.kl_from_peer(z_2, z_1, temperature)
    torch.testing.assert_close(output.terms["dml"], both.detach())
    torch.testing.assert_close(output.logits, z_1)  # the student is scored


def test_one_call_of_each_network() -> None:
    model, peer, (x, y) = ConvNet(), ConvNet(), batch("conv")
    distiller = SelfDistiller(model, DML(peer=peer), example_input=x)
    calls = [rows_of_calls(network) for network in (model, peer)]
    distiller(x, y)
    assert calls == [[6], [6]]
    assert updates(model) == updates(peer) == {1}


def test_each_network_is_a_constant_to_the_other() -> None:
    """Without labels, the gradient of a network is that of its own divergence from the other."""
    model, peer, (x, y) = mlp().double(), mlp().double(), batch("mlp")
    x = x.double()
    with_term, without = (SelfDistiller(model, DML(weight, peer=peer), example_input=x)(x, y).loss for weight in (1, 0))
    of_term = [a - b for a, b in zip(*(gradients(loss, model, peer) for loss in (with_term, without)), strict=True)]
    z_1, z_2 = model(x), peer(x)
    to_student = gradients(9 * kl(z_2.detach(), z_1, 3.0), model)
    to_peer = gradients(9 * kl(z_1.detach(), z_2, 3.0), peer)
    torch.testing.assert_close(of_term, [*to_student, *to_peer], rtol=1e-8, atol=1e-12)


def test_twins_have_nothing_to_say_to_each_other() -> None:
    model, peer, (x, y) = mlp().double(), mlp().double(), batch("mlp")
    peer.load_state_dict(model.state_dict())
    output = SelfDistiller(model, DML(peer=peer), example_input=x.double())(x.double(), y)
    assert output.terms["dml"].item() == pytest.approx(0, abs=1e-15)


def test_without_a_peer_a_copy_is_initialised_anew() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    model(x)  # a copy would have its statistics
    with pytest.warns(UserWarning, match=r"not as the constructor of this ConvNet does, .* pass peer=") as warned:
        distiller = SelfDistiller(model, DML(), example_input=x)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    peer = distiller.peer
    assert isinstance(peer, ConvNet)
    for (name, ours), theirs in zip(model.named_parameters(), peer.parameters(), strict=True):
        assert ours.shape == theirs.shape
        if ours.dim() > 1:
            assert not torch.equal(ours, theirs), name
    assert updates(peer) == {0}
    distiller(x, y).loss.backward()
    assert all(parameter.grad is not None for parameter in peer.parameters())
    assert not any(module._forward_hooks for module in peer.modules())
    assert distiller.release() is model
    assert not any(module._forward_pre_hooks for network in (model, peer) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10_cifar", {"width": 4, "features": 24, "head_layers": 2}),
        ("densenet121_cifar", {"width": 2, "features": 24}),
        ("torchvision:resnet18", {}),
        ("timm:resnet10t", {}),
    ],
)
def test_the_peer_starts_as_the_models_constructor_says(name: str, options: dict[str, int]) -> None:
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(1)
    model = pickle.loads(pickle.dumps(copy.deepcopy(build(name, CLASSES, **options)))).double()
    model(x.double())
    random_state = torch.get_rng_state()
    peer = SelfDistiller(model, DML(), example_input=x.double()).peer
    torch.set_rng_state(random_state)
    expected = build(name, CLASSES, **options).double()
    assert list(peer.state_dict()) == list(expected.state_dict())
    for key, value in expected.state_dict().items():
        assert torch.equal(peer.state_dict()[key], value), key
        if value.dim() > 1:
            assert not torch.equal(model.state_dict()[key], value), key


def test_a_model_changed_after_it_was_built_is_drawn_layer_by_layer() -> None:
    model = build("torchvision:resnet18", 1000)
    model.fc = nn.Linear(512, CLASSES)
    with pytest.warns(UserWarning, match="not as the constructor of this ResNet does"):
        peer = SelfDistiller(model, DML(), example_input=torch.randn(2, 3, 32, 32)).peer
    assert peer.fc.out_features == CLASSES


def test_a_cifar_resnet_draws_its_own_peer() -> None:
    model = CifarResNet((1, 1, 1, 1), CLASSES, width=16)
    peer = SelfDistiller(model, DML(), example_input=torch.randn(2, 3, 32, 32)).peer
    assert peer.layer4[0].conv1.weight.var().item() == pytest.approx(2 / (9 * 128), rel=0.1)  # the fan in is 9 * 64


def test_a_peer_by_name() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    method = DML(peer="resnet10_cifar")
    distiller = SelfDistiller(model, method, example_input=x)
    assert type(distiller.peer).__name__ == "CifarResNet"
    assert distiller.peer(x).shape == (6, CLASSES)
    assert torch.isfinite(distiller(x, y).loss)
    assert repr(method) == "DML(peer='resnet10_cifar')"


def test_a_peer_of_the_same_type_but_another_shape() -> None:
    x, y = batch("mlp")
    peer = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, CLASSES))
    assert torch.isfinite(SelfDistiller(mlp(), DML(peer=peer), example_input=x)(x, y).loss)


def test_bad_peers() -> None:
    x, _ = batch("conv")
    with pytest.raises(ValueError, match="the peer has 7 classes and the model 5; give both as many"):
        SelfDistiller(ConvNet(), DML(peer=nn.Sequential(nn.Flatten(), nn.Linear(192, 7))), example_input=x)
    with pytest.raises(
        ValueError, match=r"the model itself \(a AttentionNet\) has parameters, but no reset_parameters"
    ):
        SelfDistiller(AttentionNet(), DML(), example_input=x)


def test_it_asks_for_an_example() -> None:
    with pytest.raises(ValueError, match="pass example_input="):
        SelfDistiller(mlp(), DML())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "DML: weight must be at least 0 and finite, not -1.0"),
        ({"temperature": 0.0}, "DML: temperature must be positive and finite, not 0.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DML(**arguments)


def test_defaults_are_those_of_the_papers_runs() -> None:
    method = DML()
    assert (method.weight, method.temperature, method.peer) == (1.0, 3.0, None)
