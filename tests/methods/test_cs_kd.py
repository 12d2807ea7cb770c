"""CS-KD against the formula as run for the paper."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill import CSKD, CrossEntropy, SelfDistiller
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet, batch, mlp
from tests.reference import cs_kd


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 4.0), (3.0, 4.0), (0.3, 1.0)])
def test_against_published_cs_kd(weight: float, temperature: float) -> None:
    model, (x, y) = ConvNet().double(), batch("conv")
    x, partner = x.double(), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    output = SelfDistiller(model, CSKD(weight, temperature))(x, y, pair=partner)

    z, z_partner = model(x), model(partner)
    expected = cs_kd.loss_total(z, z_partner, y.tolist(), weight=weight, temperature=temperature)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(output.terms["ce"], cs_kd.ce(z, y.tolist()).detach())
    torch.testing.assert_close(output.terms["cskd"], cs_kd.kl_to_partner(z, z_partner, temperature).detach())
    torch.testing.assert_close(output.logits, z)


def test_partners_pass_alone_and_without_gradient() -> None:
    """Two calls of B images, each with its own BatchNorm statistics, which are counted twice."""
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, CSKD(), example_input=x)
    calls, norms, by_hand = rows_of_calls(model), rows_of_calls(model.norm), torch.nn.BatchNorm2d(8)
    partner = 3 * torch.randn_like(x) + 1
    grads = []
    model.fc.register_forward_hook(lambda _m, _args, out: grads.append(out.requires_grad))
    distiller(x, y, pair=partner)
    assert calls == norms == [6, 6]
    assert updates(model) == {2}
    assert grads == [True, False]
    by_hand(model.stem(x))
    by_hand(model.stem(partner))
    torch.testing.assert_close(model.norm.running_mean, by_hand.running_mean)
    torch.testing.assert_close(model.norm.running_var, by_hand.running_var)


def test_an_image_that_is_its_own_partner_teaches_nothing() -> None:
    model, (x, y) = mlp().double(), batch("mlp")
    x = x.double()
    output = SelfDistiller(model, CSKD())(x, y, pair=x)
    assert output.terms["cskd"].item() == pytest.approx(0, abs=1e-15)
    plain = gradients(F.cross_entropy(model(x), y), model)
    torch.testing.assert_close(gradients(output.loss, model), plain, rtol=1e-8, atol=1e-12)


def test_without_weight_it_is_cross_entropy() -> None:
    model, (x, y) = mlp(), batch("mlp")
    losses = [SelfDistiller(model, CrossEntropy())(x, y), SelfDistiller(model, CSKD(weight=0.0))(x, y, pair=x + 1)]
    assert losses[0].loss.item() == losses[1].loss.item()
    assert losses[1].terms["cskd"] > 0


def test_labels_may_be_probabilities() -> None:
    model, (x, y) = mlp(), batch("mlp")
    soft = F.one_hot(y, CLASSES).float()
    losses = [SelfDistiller(model, CSKD())(x, labels, pair=x + 1).loss for labels in (y, soft)]
    torch.testing.assert_close(*losses)


def test_what_it_needs() -> None:
    x, y = batch("mlp")
    assert CSKD().needs.pair == "any"
    assert CSKD(pair="other").needs.pair == "other"
    with pytest.raises(ValueError, match=r"CSKD\(\) needs pair=, another image of each image's class"):
        SelfDistiller(mlp(), CSKD())(x, y)
    with pytest.raises(ValueError, match="pair has 5 images and x has 6"):
        SelfDistiller(mlp(), CSKD())(x, y, pair=x[:5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "CSKD: weight must be at least 0 and finite, not -1.0"),
        ({"weight": float("nan")}, "CSKD: weight must be at least 0 and finite, not nan"),
        ({"temperature": 0}, "CSKD: temperature must be positive and finite, not 0"),
        ({"pair": "same"}, "CSKD: pair must be 'any' or 'other', not 'same'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CSKD(**arguments)  # type: ignore[arg-type]


def test_defaults_are_those_of_the_papers_runs() -> None:
    method = CSKD()
    assert (method.weight, method.temperature, method.pair) == (1.0, 4.0, "any")
