"""Label smoothing: the smoothed labels, the true class included."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill import CrossEntropy, LabelSmoothing, SelfDistiller
from tests.nets import CLASSES, batch, mlp
from tests.reference import differences
from tests.reference import losses as literal


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_against_literal(eps: float, soft: bool) -> None:
    logits = (2 * torch.randn(4, CLASSES, dtype=torch.float64)).requires_grad_()
    indices = torch.tensor([0, 1, 1, 4])
    labels = torch.randn(4, CLASSES, dtype=torch.float64).softmax(-1) if soft else indices
    rows = labels.tolist() if soft else literal.one_hot(indices.tolist(), CLASSES)

    loss = LabelSmoothing(eps).criterion(logits, labels)
    loss.backward()

    targets = literal.smoothed(rows, eps)
    assert loss.item() == pytest.approx(literal.cross_entropy(logits.tolist(), targets), rel=1e-12)
    by_hand = differences.gradient(lambda z: literal.cross_entropy(z, targets), logits.detach())
    torch.testing.assert_close(logits.grad, by_hand, rtol=1e-6, atol=1e-9)


def test_the_uniform_part_covers_all_classes() -> None:
    """Not eps / (C - 1) on the wrong classes only, as some repositories have it."""
    logits, label = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    log_p = logits.log_softmax(-1)[0]
    over_all = -(0.9 * log_p[0] + 0.1 * log_p.mean())
    over_wrong = -(0.9 * log_p[0] + 0.05 * (log_p[1] + log_p[2]))
    loss = LabelSmoothing(0.1).criterion(logits, label)
    torch.testing.assert_close(loss, over_all)
    assert abs(loss - over_wrong) > 0.05


def test_in_the_distiller_the_term_is_the_smoothed_loss() -> None:
    model, (x, y) = mlp(), batch("mlp")
    loss, logits, terms = SelfDistiller(model, LabelSmoothing(0.3))(x, y)
    torch.testing.assert_close(logits, model(x))
    torch.testing.assert_close(loss, F.cross_entropy(logits, y, label_smoothing=0.3))
    assert list(terms) == ["ce"]
    assert abs(loss - SelfDistiller(model, CrossEntropy())(x, y).loss) > 1e-3


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits, labels = torch.randn(4, CLASSES).bfloat16(), torch.arange(4)
    loss = LabelSmoothing().criterion(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LabelSmoothing().criterion(logits.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize("eps", [-0.1, 1.0, float("nan")])
def test_bad_eps(eps: float) -> None:
    with pytest.raises(ValueError, match=r"LabelSmoothing: eps must be in \[0, 1\), not"):
        LabelSmoothing(eps)
