"""Classes masked with a logit of -inf: every loss, gradient and metric is that of the other classes."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfdistill import DML, SDDropout, SelfDistiller
from selfdistill.evaluation import accuracy, calibration, temperature
from selfdistill.evaluation.gradient import clean_logits
from selfdistill.evaluation.ood import scores
from selfdistill.losses import cross_entropy, kl, soft_kl, symmetric_kl
from selfdistill.methods import parse_method
from tests.methods.settings import ALONE, SUMS, needed, wrap
from tests.nets import CLASSES, batch, mlp

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda a, b: kl(a, b, 3.0),
    "both": lambda a, b: symmetric_kl(a, b, 3.0),
    "forward": lambda a, b: symmetric_kl(a, b, 3.0, "forward"),
    "reverse": lambda a, b: symmetric_kl(a, b, 0.5, "reverse"),
    "soft_kl": lambda a, b: soft_kl(a.detach().softmax(1), b, 3.0),
    "soft labels": lambda a, b: cross_entropy(a, b.detach().softmax(1)),
    "smoothed": lambda a, b: cross_entropy(a, torch.arange(len(a)) % 3, 0.1),
    "smoothed soft labels": lambda a, b: cross_entropy(a, b.detach().softmax(1), 0.1),
}


def masked(logits: Tensor) -> Tensor:
    """Put masked classes first, between and last."""
    no = logits.new_full((*logits.shape[:-1], 1), -torch.inf)
    return torch.cat([no, logits[..., :1], no, logits[..., 1:], no], dim=-1)


class Mask(nn.Module):
    """Adds two classes behind, which are never predicted."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.cat([logits, logits.new_full((len(logits), 2), -torch.inf)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_those_of_the_other_classes(name: str, dtype: torch.dtype) -> None:
    a, b = (torch.randn(4, 3, dtype=dtype, requires_grad=True) for _ in range(2))
    wanted = LOSSES[name](a, b)
    if name == "smoothed":  # class 0 moves behind a mask, 1 and 2 behind two
        found = cross_entropy(masked(a), torch.tensor([1, 3, 4])[torch.arange(4) % 3], 0.1)
    else:
        found = LOSSES[name](masked(a), masked(b))
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(loss, (a, b), allow_unused=True) for loss in (found, wanted)]
    for side, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(side, expected)


def test_a_class_that_one_side_alone_masks_is_infinitely_far() -> None:
    z = torch.tensor([[1.0, 2.0, -torch.inf]])
    assert kl(torch.zeros(1, 3), z) == symmetric_kl(torch.zeros(1, 3), z) == soft_kl(torch.full((1, 3), 1 / 3), z)
    assert kl(torch.zeros(1, 3), z) == torch.inf
    assert cross_entropy(z, torch.tensor([2])) == cross_entropy(z, torch.tensor([[0.5, 0.4, 0.1]])) == torch.inf
    torch.testing.assert_close(kl(z, torch.zeros(1, 3)), kl(z[:, :2], torch.zeros(1, 2)) + torch.tensor(1.5).log())


@pytest.mark.parametrize("text", [text for text in (*ALONE, *SUMS) if "BYOT" not in text])
def test_each_method_trains_as_without_the_masked_classes(text: str) -> None:
    method = parse_method(text.format(inner="1", peer=None, pairs=""))
    x, y = batch("mlp")
    plain = nn.Sequential(*mlp()[:3], *([nn.Dropout(0.2)] * (method.needs.passes > 1)), nn.Linear(24, CLASSES))
    hidden = copy.deepcopy(plain)
    hidden[-1] = nn.Sequential(hidden[-1], Mask())
    found = []
    for model in (plain, hidden):
        torch.manual_seed(1)
        distiller = wrap("mlp", method, x, model)
        for step in range(2):
            torch.manual_seed(step)
            output = distiller(x, y, **needed(method, x, y))
        output.loss.backward()
        found.append((output.terms, [parameter.grad for parameter in distiller.parameters()]))
    torch.testing.assert_close(found[1], found[0])


def test_byot_trains_with_masked_classes() -> None:
    x, y = batch("conv")
    distiller = wrap("conv", parse_method("BYOT()"), x)
    model = distiller.release()
    model.fc = nn.Sequential(model.fc, Mask())  # type: ignore[assignment]
    distiller = wrap("conv", parse_method("BYOT() + LabelSmoothing()"), x, model)
    distiller(x, y).loss.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in distiller.parameters())  # type: ignore[union-attr]


def test_a_peer_that_masks_other_classes_is_refused() -> None:
    x, _ = batch("mlp")
    model = nn.Sequential(*mlp()[:3], nn.Sequential(nn.Linear(24, CLASSES - 2), Mask()))
    with pytest.raises(ValueError, match="mask different classes"):
        SelfDistiller(model, DML(peer=mlp()), example_input=x)


Z, Y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 3
MASKED, MASKED_Y = masked(torch.tensor(Z)), np.array([1, 3, 4])[Y]


@pytest.mark.parametrize(
    "metric",
    [
        accuracy.negative_log_likelihood,
        accuracy.top_k_accuracy,
        temperature.fit_temperature,
        lambda z, y: temperature.temperature_scaling(z, y).nll,
        lambda z, y: calibration.expected_calibration_error(accuracy.softmax(z), y),
        lambda z, y: accuracy.brier_score(accuracy.softmax(z), y),
        lambda z, y: scores.energy(z),
        lambda z, y: scores.max_softmax(z, 1000.0),
        lambda z, y: scores.max_logit(z),
    ],
)
def test_metrics_are_those_of_the_other_classes(metric: Callable[..., Any]) -> None:
    assert metric(MASKED, MASKED_Y) == pytest.approx(metric(Z, Y), rel=1e-12)


def test_labels_of_masked_classes_are_infinitely_unlikely_at_every_temperature() -> None:
    first = MASKED_Y.copy()
    first[0] = 0
    assert accuracy.negative_log_likelihood(MASKED, first) == np.inf
    assert temperature.fit_temperature(MASKED, first) == pytest.approx(temperature.fit_temperature(Z[1:], Y[1:]))
    assert temperature.fit_temperature(MASKED, np.zeros(40)) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_logits_that_diverged_are_still_refused(bad: float | None) -> None:
    z = MASKED.clone()
    z[1] = -torch.inf if bad is None else z[1]
    z[1, 1] = -torch.inf if bad is None else bad
    with pytest.raises(ValueError, match=r"^logits: 1 of 40 rows"):
        accuracy.negative_log_likelihood(z, MASKED_Y)
    with pytest.raises(ValueError, match=r"^logits: 1 of 40 rows"):
        clean_logits(nn.Identity(), z.float())


# Half precision: rows sum to 1 within its steps alone


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kept", [True, False], ids=["as it is", "as float32"])
@pytest.mark.parametrize("classes", [3, 1000])
def test_half_precision_probabilities_are_scored(dtype: torch.dtype, kept: bool, classes: int) -> None:
    p, y = torch.randn(500, classes).mul(2).softmax(1), torch.randint(classes, (500,))
    half = p.to(dtype) if kept else p.to(dtype).float()
    for metric in (calibration.expected_calibration_error, calibration.calibration_gap, accuracy.brier_score):
        assert metric(half, y) == pytest.approx(metric(p, y), abs=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_rows_are_refused_in_every_precision(dtype: torch.dtype) -> None:
    p = torch.tensor([[0.3, 0.7], [0.3, 0.6]])
    with pytest.raises(ValueError, match=r"^probabilities: row 1 is not a probability vector"):
        calibration.expected_calibration_error(p.to(dtype), [0, 1])
    with pytest.raises(ValueError, match=r"^probabilities: row 0"):
        calibration.expected_calibration_error(torch.tensor([[0.3, 0.705]]), [0])


def test_masked_training_goes_on_under_autocast() -> None:
    x, y = batch("mlp")
    model = nn.Sequential(*mlp()[:3], nn.Sequential(nn.Linear(24, CLASSES), Mask()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SelfDistiller(model, SDDropout())(x, y).loss
    loss.backward()
    assert loss.isfinite()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())  # type: ignore[union-attr]
