import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from selfdistill.evaluation.accuracy import brier_score, negative_log_likelihood, softmax, top_k_accuracy


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(500, 8, generator=generator), torch.randint(8, (500,), generator=generator)


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_top_k_against_torchmetrics(sample: tuple[torch.Tensor, torch.Tensor], k: int) -> None:
    logits, labels = sample
    expected = multiclass_accuracy(logits, labels, num_classes=8, top_k=k, average="micro")
    assert top_k_accuracy(logits, labels, k) == pytest.approx(float(expected), abs=1e-7)


def test_top_1_is_the_argmax_and_is_not_averaged_over_classes() -> None:
    logits = np.eye(3)[[0, 0, 0, 1]]
    assert top_k_accuracy(logits, [0, 0, 0, 2]) == 0.75  # the mean over classes would be 0.5


def test_equal_logits_rank_by_class_index() -> None:
    logits, labels = np.zeros((10, 10)), np.arange(10)
    assert top_k_accuracy(logits, labels, 1) == 0.1
    assert top_k_accuracy(logits, labels, 5) == 0.5


def test_nll_against_torch_in_double(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    expected = torch.nn.functional.cross_entropy(100 * logits.double(), labels)
    assert negative_log_likelihood(100 * logits, labels) == pytest.approx(float(expected), rel=1e-7)


def test_nll_of_a_saturated_softmax_is_finite() -> None:
    assert negative_log_likelihood([[1000.0, 0.0]], [1]) == 1000.0
    assert negative_log_likelihood(np.zeros((2, 7)), [0, 6]) == pytest.approx(math.log(7))


def test_brier_by_a_literal_loop(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    p = torch.softmax(logits.double(), 1)
    total = 0.0
    for row, label in zip(p.tolist(), labels.tolist(), strict=True):
        total += sum((value - (c == label)) ** 2 for c, value in enumerate(row))
    assert brier_score(p, labels) == pytest.approx(total / 500, rel=1e-12)


def test_brier_reaches_both_ends_of_its_range() -> None:
    assert brier_score([[1.0, 0.0]], [0]) == 0.0
    assert brier_score([[1.0, 0.0]], [1]) == 2.0


def test_softmax_against_torch(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    np.testing.assert_allclose(softmax(sample[0]), torch.softmax(sample[0].double(), 1).numpy(), rtol=1e-12)


def test_half_precision_and_gradients_are_accepted(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    half = logits.to(torch.bfloat16).requires_grad_()
    assert top_k_accuracy(half, labels) == top_k_accuracy(half.detach().float(), labels)


def test_arguments_are_not_changed() -> None:
    p = np.array([[0.5, 0.5]])
    brier_score(p, [0])
    assert p.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        (np.zeros((2, 3)), [0, 1], 4, r"^k: 4 is outside 1\.\.3, the number of classes$"),
        (np.zeros((2, 3)), [0, 1], 0, r"^k: 0 is outside 1\.\.3"),
        (np.zeros(3), [0], 1, r"^logits: shape \(3,\), expected \(N, C\) with N >= 1 and C >= 2$"),
        (np.zeros((0, 3)), [], 1, r"^logits: shape \(0, 3\), expected"),
        (np.zeros((2, 3)), [0], 1, r"^labels: shape \(1,\), expected \(2,\) class indices"),
        (np.zeros((2, 3)), [0, 3], 1, r"^labels: 3 is not a class index in 0\.\.2$"),
        (np.zeros((2, 3)), [-1, 0], 1, r"^labels: -1 is not a class index in 0\.\.2$"),
        (np.zeros((2, 3)), [0.5, 0], 1, r"^labels: 0\.5 is not a class index in 0\.\.2$"),
        ([[0, np.nan], [1, 2]], [0, 0], 1, r"^logits: 1 of 2 rows are not finite; the model diverged"),
    ],
)
def test_bad_input_is_one_clear_line(logits: object, labels: object, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        top_k_accuracy(logits, labels, k)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
