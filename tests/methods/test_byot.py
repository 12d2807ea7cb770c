"""BYOT against the formula and the branches as run for the paper."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill import BYOT, LabelSmoothing, SelfDistiller
from selfdistill.models import build
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet
from tests.reference import byot


def images(side: int, size: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, side, side, dtype=torch.float64), torch.arange(size) % CLASSES


def resnet() -> Any:
    return build("resnet10_cifar", CLASSES, width=4).double()


def stages_of(model: Any, x: Tensor) -> list[Tensor]:
    maps = [model.layer1(model.relu(model.bn1(model.conv1(x))))]
    for layer in (model.layer2, model.layer3, model.layer4):
        maps.append(layer(maps[-1]))
    return maps


def literal_branches(method: BYOT, x: Tensor, model: Any) -> list[byot.Branch]:
    """Return the published branches with the weights of the library's."""
    result = []
    kernels = (8, 4, 2)
    for ours, kernel, stage in zip(method.branches, kernels, stages_of(model, x)[:3], strict=True):
        theirs = byot.Branch(stage.shape[1], kernel, 32, CLASSES).double()
        for mine, other in zip(effective(theirs), ours.parameters(), strict=True):
            mine.data.copy_(other.data)
        result.append(theirs)
    return result


def effective(branch: byot.Branch) -> list[nn.Parameter]:
    """Return a published branch's parameters but the biases that the next BatchNorm cancels: ours has none."""
    return [p for name, p in branch.named_parameters() if name not in ("squeeze.bias", "reduce.bias", "expand.bias")]


@pytest.mark.parametrize("side", [32, 16])
@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_against_published_byot(weight: float, side: int) -> None:
    model, (x, y) = resnet(), images(side)
    method = BYOT(weight)
    output = SelfDistiller(model, method, example_input=x)(x, y)

    *inner, deepest = stages_of(model, x)
    feature = deepest.mean((2, 3))
    z = model.fc(feature)
    branches = literal_branches(method, x, model)
    branch_z, branch_features = zip(
        *(branch(stage) for branch, stage in zip(branches, inner, strict=True)), strict=True
    )
    expected = byot.loss_total(z, feature, branch_z, branch_features, y.tolist(), weight=weight, temperature=3.0)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    found = gradients(output.loss, model, method.branches)
    published = [*model.parameters(), *(p for branch in branches for p in effective(branch))]
    wanted = list(torch.autograd.grad(expected, published, retain_graph=True))
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(output.logits, z)
    labels = y.tolist()
    terms = {
        "ce": byot.nll(z, labels),
        "branch_ce": sum(byot.nll(z_i, labels) for z_i in branch_z),
        "byot": sum(byot.from_deepest(z, z_i, 3.0) for z_i in branch_z),
        "hint": sum(byot.mean_squared(f_i, feature) for f_i in branch_features),
    }
    assert list(output.terms) == list(terms)
    for name, value in terms.items():
        torch.testing.assert_close(output.terms[name], value.detach(), msg=name)


def test_the_hint_alone() -> None:
    """Its published weight hides it in the sum: here it has one that shows."""
    model, (x, y) = resnet(), images(16)
    method = BYOT(weight=1.0, alpha=1.0, temperature=2.0, hint=10.0)
    output = SelfDistiller(model, method, example_input=x)(x, y)
    *inner, deepest = stages_of(model, x)
    feature = deepest.mean((2, 3))
    expected = F.cross_entropy(model.fc(feature), y)
    for branch, stage in zip(literal_branches(method, x, model), inner, strict=True):
        z_i, f_i = branch(stage)
        expected = expected + 4 * byot.from_deepest(model.fc(feature), z_i, 2.0)
        expected = expected + 10 * byot.mean_squared(f_i, feature)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model), rtol=1e-7, atol=1e-10)


def test_one_pass_through_trunk_and_branches() -> None:
    model, (x, y) = resnet(), images(32)
    method = BYOT()
    distiller = SelfDistiller(model, method, example_input=x)
    calls = [rows_of_calls(module) for module in (model, model.layer1, *method.branches)]
    distiller(x, y)
    assert calls == [[6]] * 5
    assert updates(distiller) == {1}


def test_every_parameter_of_a_branch_is_used() -> None:
    model, (x, y) = resnet(), images(32)
    method = BYOT()
    SelfDistiller(model, method, example_input=x)(x, y).loss.backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name  # noqa: PT018


def test_the_deepest_teaches_and_does_not_learn_from_the_branches() -> None:
    """The divergence's gradient reaches the trunk through the branches alone: none at the deepest stage or the head."""
    model, (x, y) = resnet(), images(16)
    method = BYOT(weight=1.0, alpha=1.0)
    distiller = SelfDistiller(model, method, example_input=x)
    loss = distiller(x, y).loss
    plain = F.cross_entropy(model(x), y)
    deep = [*model.layer4.parameters(), *model.fc.parameters()]
    torch.testing.assert_close(torch.autograd.grad(loss, deep), torch.autograd.grad(plain, deep))


def test_without_weight_it_is_cross_entropy() -> None:
    model, (x, y) = resnet(), images(16)
    output = SelfDistiller(model, BYOT(weight=0.0), example_input=x)(x, y)
    plain = F.cross_entropy(model(x), y)
    torch.testing.assert_close(output.loss, plain)
    torch.testing.assert_close(gradients(output.loss, model), gradients(plain, model))


def test_label_smoothing_and_soft_labels_reach_the_branches() -> None:
    model, (x, y) = resnet(), images(16)
    method = BYOT(weight=1.0, alpha=0.0, hint=0.0)
    distiller = SelfDistiller(model, method + LabelSmoothing(0.2), example_input=x)
    *inner, deepest = stages_of(model, x)
    all_logits = [model.fc(deepest.mean((2, 3)))]
    all_logits += [branch(stage)[0] for branch, stage in zip(literal_branches(method, x, model), inner, strict=True)]
    expected = sum(F.cross_entropy(logits, y, label_smoothing=0.2) for logits in all_logits)
    for labels in (y, F.one_hot(y, CLASSES).double()):
        torch.testing.assert_close(distiller(x, labels).loss, expected)


def test_branches_start_as_the_trunk_does() -> None:
    """Convolutions by the fan out, whose variance is not that by the fan in; all else as PyTorch starts it."""
    method = BYOT()
    SelfDistiller(build("resnet10_cifar", CLASSES, width=16), method, example_input=torch.randn(2, 3, 16, 16))
    for branch in method.branches:
        first, norm, _, strided, _, _, last, *_ = branch.maps
        for convolution in (first, strided, last):
            fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
            assert convolution.weight.var().item() == pytest.approx(2 / fan_out, rel=0.2)
        assert torch.equal(norm.weight, torch.ones(32))
        assert torch.equal(norm.bias, torch.zeros(32))
        bound = 128**-0.5  # of nn.Linear, as the trunk's fc
        assert branch.head.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert branch.head.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.2)


def test_stages_by_name() -> None:
    x, y = torch.randn(6, 3, 8, 8), torch.arange(6) % CLASSES
    distiller = SelfDistiller(ConvNet(), BYOT(), stages=["stem", "block", "after"], example_input=x)
    assert torch.isfinite(distiller(x, y).loss)
    assert [branch.maps[3].kernel_size for branch in distiller.method.branches] == [(2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "BYOT: weight must be at least 0 and finite, not -1.0"),
        ({"hint": float("nan")}, "BYOT: hint must be at least 0 and finite, not nan"),
        ({"temperature": 0.0}, "BYOT: temperature must be positive and finite, not 0.0"),
        ({"alpha": 1.1}, r"BYOT: alpha is a share, in \[0, 1\], not 1.1"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BYOT(**arguments)


def test_defaults_are_those_of_the_papers_runs() -> None:
    method = BYOT()
    assert (method.weight, method.alpha, method.temperature, method.hint) == (0.1, 0.1, 3.0, 1e-6)
