import pytest
import torch
from torch import Tensor, nn

from selfdistill.evaluation.gradient import checked, clean_logits, input_gradient, input_gradients, per_channel
from tests import nets


def total(z: Tensor) -> Tensor:
    return z.square().sum()


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nets.ConvNet(), nn.Dropout(0.5))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 3, 8, 8)


def test_against_plain_backward(model: nn.Module, x: Tensor) -> None:
    found = input_gradient(model, x, total)
    leaf = x.clone().requires_grad_()
    total(model.eval()(leaf)).backward()
    assert torch.equal(found, leaf.grad)  # type: ignore[arg-type]
    assert not x.requires_grad


def test_one_forward_serves_several_losses(model: nn.Module, x: Tensor) -> None:
    passed: list[int] = []
    model.register_forward_pre_hook(lambda _, args: passed.append(len(args[0])))
    losses = (total, lambda z: z[:, 1].sum(), total)
    z, gradients = input_gradients(model, x, losses)
    assert passed == [6]
    assert torch.equal(z, clean_logits(model, x))
    assert not z.requires_grad
    assert len(gradients) == 3
    for gradient, loss in zip(gradients, losses, strict=True):
        assert torch.equal(gradient, input_gradient(model, x, loss))


def test_the_model_is_left_as_it_was_found(model: nn.Module, x: Tensor) -> None:
    model.train()
    model[0].norm.eval()  # a frozen BatchNorm stays frozen
    kept = torch.ones_like(model[0].fc.weight)
    model[0].fc.weight.grad = kept
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    input_gradient(model, x, total)
    clean_logits(model, x)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())  # BatchNorm's too
    assert model[0].fc.weight.grad is kept
    assert bool((kept == 1).all())
    assert [p.grad for name, p in model.named_parameters() if name != "0.fc.weight"] == [None] * 13
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())  # no mask was drawn: dropout is off


def test_no_parameter_s_gradient_is_computed(model: nn.Module, x: Tensor) -> None:
    computed: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda _, name=name: computed.append(name))
    input_gradient(model, x, total)
    assert computed == []


def test_the_caller_s_autocast_and_modes_do_not_matter(model: nn.Module, x: Tensor) -> None:
    expected, logits = input_gradient(model, x, total), clean_logits(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(input_gradient(model, x, total), expected)
        assert torch.equal(clean_logits(model, x), logits)
        assert torch.is_autocast_enabled("cpu")
    with torch.no_grad():
        assert torch.equal(input_gradient(model, x, total), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert torch.equal(input_gradient(model, x.clone(), total), expected)  # of an inference tensor
        assert torch.is_inference_mode_enabled()
    assert not clean_logits(model, x).requires_grad


def test_frozen_parameters_do_not_matter(model: nn.Module, x: Tensor) -> None:
    expected = input_gradient(model, x, total)
    assert torch.equal(input_gradient(model.requires_grad_(False), x, total), expected)


def test_modes_are_restored_after_an_error(model: nn.Module, x: Tensor) -> None:
    model.train()
    with pytest.raises(RuntimeError):
        input_gradient(model, x[:, :2], total)
    assert model.training
    assert model[1].training


def test_double_stays_double_and_half_becomes_float(x: Tensor) -> None:
    model = nets.mlp()
    assert input_gradient(model, x.bfloat16(), total).dtype == torch.float32
    assert input_gradient(model.double(), x.double(), total).dtype == torch.float64


class _NoGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).detach()[:, :5]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nets.mlp().bfloat16(), r"^model: its parameters are torch.bfloat16, .*; pass model.float\(\)$"),
        (_NoGradient(), "^model: no gradient reaches its input"),
        (nn.Identity(), r"^model: its logits have shape \(6, 3, 8, 8\), expected \(B, C\)$"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Threshold(1e9, float("nan"))), "^logits: 6 of 6 rows are"),
    ],
)
def test_bad_models_are_one_clear_line(model: nn.Module, message: str, x: Tensor) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        input_gradient(model, x, total)
    assert "\n" not in str(caught.value)


def test_checked_reads_any_output() -> None:
    z = torch.zeros(2, 3)
    assert checked({"logits": z}).shape == (2, 3)
    assert checked((z.half(),)).dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "shape", "name", "message"),
    [
        ((0.5, 0.5), (1, 3, 8, 8), "std", "^std: 2 values for images of 3 channels"),
        ((0.5, 0.0, 0.5), (1, 3, 8, 8), "std", r"^std: \[0.5, 0.0, 0.5\], expected finite positive values$"),
        ((0.5, float("nan"), 0.5), (1, 3, 8, 8), "mean", "^mean: .*expected finite values$"),
        ((0.5,), (1, 3), "mean", r"^x: shape \(1, 3\), expected images"),
    ],
)
def test_bad_channels_are_one_clear_line(
    values: tuple[float, ...], shape: tuple[int, ...], name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        per_channel(values, torch.zeros(shape), name)
