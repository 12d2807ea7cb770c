import re

import pytest
import torch

from selfdistill.distiller import StepOutput
from selfdistill.train import NonFiniteLossError
from selfdistill.train.meters import Meters


def output(ce: float, sdd: float, logits: list[list[float]], loss: float | None = None) -> StepOutput:
    terms = {"ce": torch.tensor(ce), "sdd": torch.tensor(sdd)}
    return StepOutput(torch.tensor(ce + 9 * sdd if loss is None else loss), torch.tensor(logits), terms)


def test_means_are_over_images_not_over_batches() -> None:
    meters = Meters(torch.device("cpu"))
    meters.add(output(1.0, 0.1, [[1.0, 0.0]] * 3), torch.tensor([0, 0, 1]), 0)
    meters.add(output(5.0, 0.5, [[1.0, 0.0]]), torch.tensor([0]), 1)
    means = meters.means()
    assert means.images == 4
    assert means.terms == pytest.approx({"ce": 2.0, "sdd": 0.2}, rel=1e-6)
    assert means.loss == pytest.approx(2.0 + 9 * 0.2, rel=1e-6)
    assert means.accuracy == 0.75


def test_an_epoch_goes_on_from_its_state() -> None:
    one, other = Meters(torch.device("cpu")), Meters(torch.device("cpu"))
    one.add(output(1.0, 0.1, [[1.0, 0.0]]), torch.tensor([0]), 0)
    other.load_state_dict(one.state_dict())
    for meters in (one, other):
        meters.add(output(2.0, 0.3, [[1.0, 0.0]]), torch.tensor([1]), 1)
    assert one.means() == other.means()
    assert one.means().loss > 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (output(1.0, float("inf"), [[1.0, 0.0]]), "the term 'sdd' was not finite at epoch 3, step 8; lower --lr"),
        (output(float("nan"), 0.1, [[1.0, 0.0]]), "the term 'ce' was not finite at epoch 3, step 8; lower --lr"),
        (output(1.0, 0.1, [[1.0, 0.0]], loss=float("inf")), "the loss was not finite at epoch 3, step 8; lower --lr"),
    ],
)
def test_the_first_bad_step_is_remembered(bad: StepOutput, message: str) -> None:
    meters = Meters(torch.device("cpu"))
    y = torch.tensor([0])
    meters.add(output(1.0, 0.1, [[1.0, 0.0]]), y, 6)
    meters.check(meters.first_bad, 2, "lower --lr")
    meters.add(bad, y, 7)
    meters.add(output(float("nan"), float("nan"), [[1.0, 0.0]]), y, 8)
    with pytest.raises(NonFiniteLossError, match=re.escape(message)):
        meters.check(meters.first_bad, 2, "lower --lr")
    meters.reset()
    meters.check(meters.first_bad, 3, "lower --lr")
