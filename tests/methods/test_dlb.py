"""DLB against its formula over several steps, and its memory of the last one."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill import DLB, LabelSmoothing, SelfDistiller
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet, batch, mlp
from tests.reference import dlb


def steps(count: int, net: str = "conv") -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return batches in float64 (the second one smaller): images, the same images augmented anew, labels."""
    sizes = [6, 4, 6, 6][:count]
    batches = [batch(net, size) for size in sizes]
    return [(x.double(), x.double() + 0.1 * torch.randn_like(x), y.roll(1)) for x, y in batches]


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 3.0), (0.5, 3.0), (2.0, 1.0)])
def test_against_published_dlb(weight: float, temperature: float) -> None:
    """Four steps, the network moving in between; batches of two sizes."""
    model = ConvNet().double()
    distiller, optimiser = SelfDistiller(model, DLB(weight, temperature)), torch.optim.SGD(model.parameters(), lr=0.3)
    before: tuple[Tensor, Tensor] | None = None
    z_then = None
    for x, anew, y in steps(4):
        loss, logits, terms = distiller(x, y, previous=before)

        if before is None:
            z = model(x)
            expected = dlb.loss_total(z, y.tolist(), weight=weight, temperature=temperature)
        else:
            z, z_previous = model(torch.cat([x, before[0]])).split([len(x), len(before[0])])  # one pass
            expected = dlb.loss_total(
                z, y.tolist(), z_previous, before[1].tolist(), z_then, weight=weight, temperature=temperature
            )
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradients(loss, model), gradients(expected, model), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(loss.detach(), terms["ce"] + weight * temperature**2 * terms["dlb"])
        torch.testing.assert_close(logits, z)
        assert (terms["dlb"] == 0) == (before is None)
        before, z_then = (anew, y), z.detach()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_both_batches_pass_at_once() -> None:
    """One call of 2B images; BatchNorm counts it once."""
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, DLB(), example_input=x)
    calls, norms = rows_of_calls(model), rows_of_calls(model.norm)
    distiller(x, y)
    distiller(x, y, previous=(x + 1, y))
    assert calls == norms == [6, 12]
    assert updates(model) == {2}


def test_images_of_another_size_pass_apart() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, DLB(), example_input=x)
    calls = rows_of_calls(model)
    distiller(x, y)
    assert torch.isfinite(distiller(x, y, previous=(torch.randn(6, 3, 16, 16), y)).loss)
    assert calls == [6, 6, 6]


def test_a_network_that_stood_still_has_nothing_to_learn_from_itself() -> None:
    model, (x, y) = mlp().double(), batch("mlp")
    distiller = SelfDistiller(model, DLB())
    distiller(x.double(), y)
    output = distiller(2 * x.double(), y, previous=(x.double(), y))
    assert output.terms["dlb"].item() == pytest.approx(0, abs=1e-15)


def test_without_weight_it_is_cross_entropy_on_both_batches() -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller = SelfDistiller(model, DLB(weight=0.0))
    torch.testing.assert_close(distiller(x, y).loss, F.cross_entropy(model(x), y))
    both = torch.cat([x[:4], x + 1])
    labels = torch.cat([y[:4], y])
    torch.testing.assert_close(distiller(x[:4], y[:4], previous=(x + 1, y)).loss, F.cross_entropy(model(both), labels))


def test_label_smoothing_and_soft_labels_reach_both_batches() -> None:
    model, (x, y) = mlp(), batch("mlp")
    expected = F.cross_entropy(model(torch.cat([x, x + 1])), torch.cat([y, y]), label_smoothing=0.2)
    soft = F.one_hot(y, CLASSES).float()
    for now, before in ((y, y), (soft, soft), (soft, y)):
        distiller = SelfDistiller(model, DLB(weight=0.0) + LabelSmoothing(0.2))
        distiller(x, y)
        torch.testing.assert_close(distiller(x, now, previous=(x + 1, before)).loss, expected)


# The memory


def trained() -> tuple[SelfDistiller, Tensor, Tensor]:
    torch.manual_seed(0)
    (x, y), distiller = batch("mlp"), SelfDistiller(mlp(), DLB())
    distiller(x, y)
    return distiller, x, y


def loss_of_next(distiller: SelfDistiller, x: Tensor, y: Tensor) -> float:
    return distiller(2 * x, y, previous=(x + 1, y)).loss.item()


def test_what_is_remembered() -> None:
    distiller, x, y = trained()
    last = distiller.method.get_extra_state()
    assert not last.requires_grad
    torch.testing.assert_close(last, distiller.model(x).detach())
    distiller.eval()(2 * x, y)
    assert torch.equal(distiller.method.get_extra_state(), last)
    assert last.data_ptr() not in {buffer.data_ptr() for buffer in distiller.buffers()}
    output = distiller.train()(2 * x, y, previous=(x, y))
    with torch.no_grad():
        output.logits.zero_()  # what is done with them afterwards is not remembered
    torch.testing.assert_close(distiller.method.get_extra_state(), distiller.model(2 * x).detach())


def test_it_travels_in_the_state_dict() -> None:
    distiller, x, y = trained()
    file = io.BytesIO()
    torch.save(distiller.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = SelfDistiller(mlp(), DLB())
    assert other.state_dict()["method._extra_state"] is None
    other.load_state_dict(state)
    assert loss_of_next(other, x, y) == loss_of_next(distiller, x, y)


def test_copies_remember_for_themselves() -> None:
    distiller, x, y = trained()
    copies = [copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))]
    assert loss_of_next(copies[0], x, y) == loss_of_next(copies[1], x, y) == loss_of_next(distiller, x, y)


def test_a_memory_lost_on_the_way_is_one_step_without_a_term() -> None:
    _, x, y = trained()
    distiller = SelfDistiller(mlp(), DLB())
    output = distiller(x, y, previous=(x + 1, y))
    assert output.terms["dlb"] == 0
    both = distiller.model(torch.cat([x, x + 1]))
    torch.testing.assert_close(output.loss, F.cross_entropy(both, torch.cat([y, y])))
    assert distiller(x, y, previous=(x + 1, y)).terms["dlb"] > 0


def test_bad_previous_batches() -> None:
    distiller, x, y = trained()
    with pytest.raises(
        ValueError, match=r"DLB\(\) needs previous=, the images of the previous batch, augmented anew, and their labels"
    ):
        distiller(x, y)
    with pytest.raises(
        ValueError,
        match=r"previous= gives \(4, 5\) logits, and the last step had \(6, 5\); pass the images of",
    ):
        distiller(x, y, previous=(x[:4], y[:4]))
    assert loss_of_next(distiller, x, y) > 0  # neither changed what is remembered


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "DLB: weight must be at least 0 and finite, not -1.0"),
        ({"temperature": 0.0}, "DLB: temperature must be positive and finite, not 0.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DLB(**arguments)


def test_defaults() -> None:
    method = DLB()
    assert (method.weight, method.temperature) == (1.0, 3.0)
