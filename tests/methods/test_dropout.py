"""Standard dropout: the label loss sees one dropped head, and no clean one."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill import CrossEntropy, Dropout, LabelSmoothing, SelfDistiller
from tests.nets import CLASSES, batch, mlp
from tests.reference import losses as literal


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_against_literal(p: float) -> None:
    model, (x, y) = mlp().double(), batch("mlp")
    x = x.double()
    torch.manual_seed(2)
    loss, logits, terms = SelfDistiller(model, Dropout(p))(x, y)
    loss.backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]

    torch.manual_seed(2)
    features = model[:3](x)
    mask = F.dropout(torch.ones_like(features), p)
    assert set(mask.unique().tolist()) == ({1.0} if p == 0 else {0.0, 1 / (1 - p)})
    dropped = model[3](features * mask)
    expected = literal.cross_entropy(dropped.tolist(), literal.one_hot(y.tolist(), CLASSES))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert terms["ce"].item() == loss.item()
    torch.testing.assert_close(got, list(torch.autograd.grad(F.cross_entropy(dropped, y), list(model.parameters()))))
    torch.testing.assert_close(logits, model(x))  # what is reported is clean


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_the_dagger_form_against_literal(p: float) -> None:
    """The clean cross-entropy and the dropped one, each with weight 1."""
    model, (x, y) = mlp().double(), batch("mlp")
    x = x.double()
    torch.manual_seed(2)
    loss, logits, terms = SelfDistiller(model, Dropout(p, dagger=True))(x, y)
    got = torch.autograd.grad(loss, list(model.parameters()))

    torch.manual_seed(2)
    features = model[:3](x)
    mask = F.dropout(torch.ones_like(features), p)
    clean, dropped = model[3](features), model[3](features * mask)
    labels = literal.one_hot(y.tolist(), CLASSES)
    expected = literal.cross_entropy(clean.tolist(), labels) + literal.cross_entropy(dropped.tolist(), labels)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert terms["ce"].item() == loss.item()
    by_hand = F.cross_entropy(clean, y) + F.cross_entropy(dropped, y)
    torch.testing.assert_close(got, torch.autograd.grad(by_hand, list(model.parameters())))
    torch.testing.assert_close(logits, clean)


def test_the_head_is_called_clean_and_dropped() -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller, rows = SelfDistiller(model, Dropout(), example_input=x), []
    model[3].register_forward_hook(lambda _m, args, _out: rows.append(len(args[0])))
    distiller(x, y)
    assert rows == [6, 6]


def test_with_label_smoothing() -> None:
    model, (x, y) = mlp(), batch("mlp")
    torch.manual_seed(2)
    loss = SelfDistiller(model, Dropout(0.3) + LabelSmoothing(0.2))(x, y).loss
    torch.manual_seed(2)
    dropped = model[3](F.dropout(model[:3](x), 0.3))
    torch.testing.assert_close(loss, F.cross_entropy(dropped, y, label_smoothing=0.2))


def test_at_zero_it_is_cross_entropy() -> None:
    model, (x, y) = mlp(), batch("mlp")
    plain, dropped = (SelfDistiller(model, method)(x, y).loss for method in (CrossEntropy(), Dropout(0.0)))
    torch.testing.assert_close(plain, dropped, rtol=0, atol=0)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_bad_p(p: float) -> None:
    with pytest.raises(ValueError, match=r"Dropout: p is the probability to drop a feature, in \[0, 1\), not"):
        Dropout(p)
