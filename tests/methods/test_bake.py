"""BAKE against its formula: the ensembled targets, their limit cases, and the batches it wants."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill import BAKE, SDDropout, SelfDistiller
from selfdistill.methods.bake import ensembled
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet, batch, mlp
from tests.reference import bake


def grouped(size: int = 8) -> tuple[Tensor, Tensor]:
    """Return images whose labels come in groups of four."""
    return torch.randn(size, 3, 8, 8), torch.arange(size) // 4 % CLASSES


@pytest.mark.parametrize(("weight", "temperature", "omega"), [(1.0, 4.0, 0.5), (1.0, 4.0, 0.9), (0.3, 1.0, 0.2)])
def test_against_published_bake(weight: float, temperature: float, omega: float) -> None:
    model, (x, y) = ConvNet().double(), grouped()
    x = x.double()
    output = SelfDistiller(model, BAKE(weight, temperature, omega))(x, y)

    features = model.features(x)
    z = model.fc(features)
    expected = bake.loss_total(z, features, y.tolist(), weight=weight, temperature=temperature, omega=omega)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(output.terms["ce"], F.cross_entropy(z, y).detach())
    torch.testing.assert_close(
        output.loss.detach(), output.terms["ce"] + weight * temperature**2 * output.terms["bake"]
    )
    torch.testing.assert_close(output.logits, z)


def test_one_pass() -> None:
    model, (x, y) = ConvNet(), grouped()
    distiller = SelfDistiller(model, BAKE(), example_input=x)
    calls = rows_of_calls(model)
    distiller(x, y)
    assert calls == [8]
    assert updates(model) == {1}


def test_targets_are_posteriors() -> None:
    posteriors, features = torch.randn(12, CLASSES).softmax(1), torch.randn(12, 7)
    for omega in (0.0, 0.5, 0.99):
        targets = ensembled(posteriors, features, omega)
        torch.testing.assert_close(targets.sum(1), torch.ones(12))
        assert targets.min() > 0
    torch.testing.assert_close(ensembled(posteriors, features, 0.0), posteriors)


def test_targets_do_not_depend_on_order_or_scale() -> None:
    posteriors, features = torch.randn(12, CLASSES).softmax(1), torch.randn(12, 7)
    order = torch.randperm(12)
    targets = ensembled(posteriors, features, 0.5)
    torch.testing.assert_close(ensembled(posteriors[order], features[order], 0.5), targets[order])
    torch.testing.assert_close(ensembled(posteriors, features * torch.rand(12, 1), 0.5), targets)
    torch.testing.assert_close(ensembled(posteriors, features[:, :, None, None], 0.5), targets)  # a 1 x 1 map


def test_alike_images_weigh_more() -> None:
    posteriors = torch.eye(3)
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    targets = ensembled(posteriors, features, 0.5)
    assert targets[0, 0] > targets[0, 1] > 2 * targets[0, 2]


def test_targets_are_constants_and_float32_under_autocast() -> None:
    model, (x, y) = mlp(), grouped()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = SelfDistiller(model, BAKE())(x, y)
    logits = output.logits
    assert logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    posteriors = torch.randn(12, CLASSES).softmax(1)
    features = torch.randn(12, 7).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = ensembled(posteriors, features, 0.5)
    torch.testing.assert_close(targets, ensembled(posteriors, features.float(), 0.5), rtol=0, atol=0)


@pytest.mark.parametrize("neutral", [BAKE(weight=0.0), BAKE(omega=0.0)], ids=repr)
def test_neutral_settings_are_cross_entropy(neutral: BAKE) -> None:
    model, (x, y) = mlp().double(), grouped()
    loss = SelfDistiller(model, copy.deepcopy(neutral))(x.double(), y).loss
    plain = F.cross_entropy(model(x.double()), y)
    torch.testing.assert_close(loss, plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(loss, model), gradients(plain, model), rtol=1e-8, atol=1e-10)


def test_labels_choose_images_and_nothing_else() -> None:
    model, (x, y) = mlp(), grouped()
    soft = F.one_hot(y, CLASSES).float()
    terms = [SelfDistiller(model, BAKE())(x, labels).terms for labels in (y, soft, 4 - y)]
    assert terms[0]["bake"] == terms[1]["bake"] == terms[2]["bake"]
    torch.testing.assert_close(terms[0]["ce"], terms[1]["ce"])


def test_in_a_sum() -> None:
    x, y = grouped()
    output = SelfDistiller(mlp(), BAKE() + SDDropout(weight=0.1))(x, y)
    weighted = output.terms["ce"] + 16 * output.terms["bake"] + 0.9 * output.terms["sdd"]
    torch.testing.assert_close(output.loss.detach(), weighted)


def test_it_needs_groups() -> None:
    assert BAKE().needs.group == 4
    assert BAKE(partners=1).needs.group == 2
    assert BAKE(partners=0).needs.group == 1


def test_a_first_batch_without_two_of_a_class() -> None:
    x, y = batch("mlp", 5)
    distiller = SelfDistiller(mlp(), BAKE())
    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=r"BAKE\(\) learns from images of one class, and no two of the 5 in this batch share one; put 4 of",
        ):
            distiller(x, y)
    assert torch.isfinite(SelfDistiller(mlp(), BAKE(partners=0))(x, y).loss)
    assert torch.isfinite(SelfDistiller(mlp(), BAKE())(x[:2], torch.eye(2, CLASSES)).loss)  # of mixtures, who knows
    two = torch.tensor([0, 1, 2, 3, 3])
    assert torch.isfinite(distiller(x, two).loss)
    assert torch.isfinite(distiller(x, y).loss)  # the first batch alone is looked at


def test_a_batch_of_one() -> None:
    x, y = batch("mlp", 1)
    for method in (BAKE(), BAKE(partners=0)):
        with pytest.raises(ValueError, match="learns from the other images of a batch, and this one has one image"):
            SelfDistiller(mlp(), method)(x, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "BAKE: weight must be at least 0 and finite, not -1.0"),
        ({"temperature": 0.0}, "BAKE: temperature must be positive and finite, not 0.0"),
        ({"omega": 1.0}, r"BAKE: omega is the others' share in a target, in \[0, 1\), not 1.0"),
        ({"omega": -0.1}, r"BAKE: omega is the others' share in a target, in \[0, 1\), not -0.1"),
        ({"partners": -1}, "BAKE: partners is a number of images, at least 0, not -1"),
        ({"partners": 1.5}, "BAKE: partners is a number of images, at least 0, not 1.5"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BAKE(**arguments)  # type: ignore[arg-type]


def test_defaults_are_those_published_for_cifar_100() -> None:
    method = BAKE()
    assert (method.weight, method.temperature, method.omega, method.partners) == (1.0, 4.0, 0.5, 3)
