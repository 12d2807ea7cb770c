import re

import pytest
import torch

from selfdistill.training import NonFiniteLossError
from selfdistill.training.meters import Loss, Meters


def output(ce: float, sdd: float, images: int = 1, hits: int = 1, loss: float | None = None) -> Loss:
    terms = {"ce": torch.tensor(ce), "sdd": torch.tensor(sdd)}
    total = torch.tensor(ce + 9 * sdd if loss is None else loss)
    return Loss(total, terms, {"train_accuracy": torch.tensor(hits)}, images)


def empty() -> Meters:
    return Meters(torch.device("cpu"), ["train_accuracy"])


def test_means_are_over_images_not_over_batches() -> None:
    meters = empty()
    meters.add(output(1.0, 0.1, images=3, hits=2), 0)
    meters.add(output(5.0, 0.5), 1)
    means = meters.means()
    assert means.images == 4
    assert means.terms == pytest.approx({"ce": 2.0, "sdd": 0.2}, rel=1e-6)
    assert means.loss == pytest.approx(2.0 + 9 * 0.2, rel=1e-6)
    assert means.shares == {"train_accuracy": 0.75}


def test_an_epoch_goes_on_from_its_state() -> None:
    one, other = empty(), empty()
    one.add(output(1.0, 0.1), 0)
    other.load_state_dict(one.state_dict())
    for meters in (one, other):
        meters.add(output(2.0, 0.3, hits=0), 1)
    assert one.means() == other.means()
    assert one.means().loss > 0


def test_a_task_may_count_nothing() -> None:
    meters = Meters(torch.device("cpu"))
    meters.add(Loss(torch.tensor(3.0), {"box": torch.tensor(3.0)}, {}, 2), 0)
    assert (meters.means().loss, meters.means().terms, meters.means().shares) == (3.0, {"box": 3.0}, {})


@pytest.mark.parametrize(
    ("nonfinite", "message"),
    [
        (output(1.0, float("inf")), "the term 'sdd' was not finite at epoch 3, step 8; lower --lr"),
        (output(float("nan"), 0.1), "the term 'ce' was not finite at epoch 3, step 8; lower --lr"),
        (output(1.0, 0.1, loss=float("inf")), "the loss was not finite at epoch 3, step 8; lower --lr"),
    ],
)
def test_the_first_nonfinite_step_is_named(nonfinite: Loss, message: str) -> None:
    meters = empty()
    meters.add(output(1.0, 0.1), 6)
    meters.check(meters.first_nonfinite_step, 2, "lower --lr")
    meters.add(nonfinite, 7)
    meters.add(output(float("nan"), float("nan")), 8)
    with pytest.raises(NonFiniteLossError, match=re.escape(message)):
        meters.check(meters.first_nonfinite_step, 2, "lower --lr")
    meters.reset()
    meters.check(meters.first_nonfinite_step, 3, "lower --lr")
