"""The baseline."""

import pytest
import torch
from torch import nn

from selfdistill import CrossEntropy, SelfDistiller
from tests.nets import CLASSES, batch, mlp
from tests.reference import differences
from tests.reference import losses as literal


def test_against_literal() -> None:
    logits, y = torch.randn(4, CLASSES, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 1, 4])
    head = nn.Linear(CLASSES, CLASSES, bias=False).double()
    nn.init.eye_(head.weight)
    loss, got, terms = SelfDistiller(nn.Sequential(nn.Identity(), head), CrossEntropy())(logits, y)
    loss.backward()
    labels = literal.one_hot(y.tolist(), CLASSES)
    assert torch.equal(got, logits)
    assert loss.item() == pytest.approx(literal.cross_entropy(logits.tolist(), labels), rel=1e-12)
    assert terms["ce"].item() == loss.item()
    by_hand = differences.gradient(lambda z: literal.cross_entropy(z, labels), logits.detach())
    torch.testing.assert_close(logits.grad, by_hand, rtol=1e-6, atol=1e-9)


def test_it_draws_nothing_and_adds_nothing() -> None:
    x, y = batch("mlp")
    distiller, random_state = SelfDistiller(mlp(), CrossEntropy()), torch.get_rng_state()
    assert list(distiller(x, y).terms) == ["ce"]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not list(distiller.method.parameters())


def test_half_precision_logits_give_a_float32_loss() -> None:
    x, y = batch("mlp")
    output = SelfDistiller(mlp().bfloat16(), CrossEntropy())(x.bfloat16(), y)
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits.float(), y), rtol=0, atol=0)
