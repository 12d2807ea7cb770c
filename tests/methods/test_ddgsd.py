"""DDGSD against the formula as run for the paper."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill import DDGSD, LabelSmoothing, SelfDistiller
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet, batch, mlp
from tests.reference import ddgsd


@pytest.mark.parametrize(
    ("weight", "temperature", "mu"), [(1.0, 3.0, 0.005), (0.5, 4.0, 0.0005), (0.0, 3.0, 1.0), (2.0, 1.0, 0.0)]
)
def test_against_published_ddgsd(weight: float, temperature: float, mu: float) -> None:
    model, (a, y) = ConvNet().double(), batch("conv")
    a, b = a.double(), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    output = SelfDistiller(model, DDGSD(weight, temperature, mu))(a, y, views=[b])

    f_a, f_b = model.features(torch.cat([a, b])).chunk(2)  # one pass: BatchNorm sees both views
    z_a, z_b = model.fc(f_a), model.fc(f_b)
    expected = ddgsd.loss_total(z_a, z_b, f_a, f_b, y.tolist(), weight=weight, temperature=temperature, mu=mu)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model), rtol=1e-8, atol=1e-10)
    both = ddgsd.divergence(z_a, z_b, temperature) + ddgsd.divergence(z_b, z_a, temperature)
    torch.testing.assert_close(output.terms["ddgsd"], both.detach())
    torch.testing.assert_close(output.terms["mmd"], ddgsd.mean_discrepancy(f_a, f_b).detach())
    torch.testing.assert_close(output.logits, z_a)


def test_both_views_pass_at_once() -> None:
    """One call of 2B images; BatchNorm counts it once."""
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, DDGSD(), example_input=x)
    calls, norms = rows_of_calls(model), rows_of_calls(model.norm)
    distiller(x, y, views=[x + 1])
    assert calls == norms == [12]
    assert updates(model) == {1}


def test_two_equal_views_have_nothing_to_say_to_each_other() -> None:
    model, (x, y) = ConvNet().double(), batch("conv")
    output = SelfDistiller(model, DDGSD())(x.double(), y, views=[x.double()])
    assert output.terms["ddgsd"].item() == pytest.approx(0, abs=1e-15)
    assert output.terms["mmd"].item() == pytest.approx(0, abs=1e-15)
    torch.testing.assert_close(output.loss.detach(), 2 * F.cross_entropy(model(x.double()), y).detach())


def test_the_views_change_places_freely() -> None:
    model, (a, y) = mlp().double(), batch("mlp")
    a, b = a.double(), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    losses = [SelfDistiller(model, DDGSD())(x, y, views=[view]).loss for x, view in ((a, b), (b, a))]
    torch.testing.assert_close(*losses)


def test_neutral_it_is_cross_entropy_on_both_views() -> None:
    model, (x, y) = mlp(), batch("mlp")
    output = SelfDistiller(model, DDGSD(weight=0.0, mmd_weight=0.0))(x, y, views=[x + 1])
    torch.testing.assert_close(output.loss, F.cross_entropy(model(x), y) + F.cross_entropy(model(x + 1), y))


def test_label_smoothing_and_soft_labels_reach_both_views() -> None:
    model, (x, y) = mlp(), batch("mlp")
    method = DDGSD(weight=0.0, mmd_weight=0.0) + LabelSmoothing(0.2)
    expected = sum(F.cross_entropy(model(view), y, label_smoothing=0.2) for view in (x, x + 1))
    for labels in (y, F.one_hot(y, CLASSES).float()):
        torch.testing.assert_close(SelfDistiller(model, method)(x, labels, views=[x + 1]).loss, expected)


def test_bad_views() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, DDGSD())
    with pytest.raises(ValueError, match=r"DDGSD\(\) reads 2 views of each image; pass views="):
        distiller(x, y)
    with pytest.raises(ValueError, match=r"passes x and its views together, but views\[0\] is of another shape"):
        distiller(x, y, views=[torch.randn(6, 3, 16, 16)])
    with pytest.raises(ValueError, match=r"views\[0\] has 4 images and x has 6"):
        distiller(x, y, views=[x[:4]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "DDGSD: weight must be at least 0 and finite, not -1.0"),
        ({"mmd_weight": float("inf")}, "DDGSD: mmd_weight must be at least 0 and finite, not inf"),
        ({"temperature": -3.0}, "DDGSD: temperature must be positive and finite, not -3.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DDGSD(**arguments)


def test_defaults_are_those_of_the_papers_runs() -> None:
    method = DDGSD()
    assert (method.weight, method.temperature, method.mmd_weight) == (1.0, 3.0, 0.005)
