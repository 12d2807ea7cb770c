"""PS-KD against its formula over epochs, and its memory."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill import PSKD, LabelSmoothing, SDDropout, SelfDistiller
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, ConvNet, batch, mlp
from tests.reference import ps_kd

INDEX = torch.tensor([4, 0, 9, 2, 7, 5])


def at_epoch(distiller: SelfDistiller, epoch: int, epochs: int = 4) -> SelfDistiller:
    distiller.set_progress(epoch / epochs, (epoch + 1) / epochs)
    return distiller


@pytest.mark.parametrize("weight", [0.8, 1.0, 0.3])
def test_against_published_ps_kd(weight: float) -> None:
    """Four epochs of two batches, the network moving in between; the memory has float32."""
    model, (x, y) = ConvNet().double(), batch("conv")
    x = x.double()
    distiller, history = SelfDistiller(model, PSKD(10, weight)), ps_kd.History(CLASSES)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    for epoch in range(4):
        for half in (slice(0, 3), slice(3, 6)):
            images, labels, index = x[half] + 0.1 * epoch, y[half], INDEX[half]
            loss, logits, terms = at_epoch(distiller, epoch)(images, labels, index=index)

            targets = history.targets(index.tolist(), labels.tolist(), weight=weight, epoch=epoch, epochs=4)
            z = model(images)
            expected = ps_kd.loss_total(z, targets)
            history.remember(index.tolist(), z)
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(gradients(loss, model), gradients(expected, model), rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(logits, z)
            assert terms == {"ce": loss.detach()}
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def test_the_first_epoch_is_cross_entropy() -> None:
    model, (x, y) = mlp().double(), batch("mlp")
    loss = at_epoch(SelfDistiller(model, PSKD(10)), 0)(x.double(), y, index=INDEX).loss
    torch.testing.assert_close(loss, F.cross_entropy(model(x.double()), y))


def test_an_image_seen_first_in_a_late_epoch_keeps_its_label() -> None:
    """The published code would teach it less than its label: 0 is what it has of an image it never saw."""
    model, (x, y) = mlp(), batch("mlp")
    distiller = at_epoch(SelfDistiller(model, PSKD(10, weight=1.0)), 3)
    torch.testing.assert_close(distiller(x, y, index=INDEX).loss, F.cross_entropy(model(x), y))
    again = distiller(x, y, index=INDEX.flip(0)).loss  # the same positions, other images: only the past counts
    past = model(x).softmax(1).flip(0)
    torch.testing.assert_close(again, -(past * model(x).log_softmax(1)).sum(1).mean())


def test_without_weight_it_is_cross_entropy() -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller = SelfDistiller(model, PSKD(10, weight=0.0))
    for epoch in range(2):
        torch.testing.assert_close(at_epoch(distiller, epoch)(x, y, index=INDEX).loss, F.cross_entropy(model(x), y))


def test_soft_labels_are_mixed_as_they_are() -> None:
    model, (x, y) = mlp(), batch("mlp")
    losses = []
    for labels in (y, F.one_hot(y, CLASSES).float(), F.one_hot(y, CLASSES)):
        distiller = SelfDistiller(model, PSKD(10))
        losses += [at_epoch(distiller, epoch)(x, labels, index=INDEX).loss for epoch in range(2)]
    torch.testing.assert_close(losses[:2], losses[2:4])
    torch.testing.assert_close(losses[:2], losses[4:])
    assert losses[0] != losses[1]


def test_sums_are_taught_the_mixed_labels() -> None:
    model, (x, y) = mlp(), batch("mlp")
    distiller = at_epoch(SelfDistiller(model, LabelSmoothing(0.2) + PSKD(10, 1.0) + SDDropout(weight=0.0)), 3)
    distiller(x, y, index=INDEX)
    output = distiller(x, y, index=INDEX)
    target = model(x).softmax(1).detach()
    torch.testing.assert_close(output.loss, F.cross_entropy(model(x), target, label_smoothing=0.2))
    assert list(output.terms) == ["ce", "sdd"]


def test_one_pass() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    distiller = at_epoch(SelfDistiller(model, PSKD(10), example_input=x), 0)
    calls = rows_of_calls(model)
    distiller(x, y, index=INDEX)
    assert calls == [6]
    assert updates(model) == {1}


# The memory


def trained(method: PSKD | None = None) -> tuple[SelfDistiller, Tensor, Tensor]:
    torch.manual_seed(0)
    (x, y), distiller = batch("mlp"), SelfDistiller(mlp(), method or PSKD(10))
    at_epoch(distiller, 2)(x, y, index=INDEX)
    return distiller, x, y


def test_what_is_remembered() -> None:
    distiller, x, y = trained()
    memory = distiller.method.get_extra_state()
    assert memory.shape == (10, CLASSES)
    assert memory.dtype == torch.float32
    assert not memory.requires_grad
    torch.testing.assert_close(memory[INDEX], distiller.model(x).softmax(1).detach())
    assert memory.sum(1).gt(0).nonzero().flatten().tolist() == sorted(INDEX.tolist())
    distiller(2 * x, y, index=INDEX)
    assert distiller.method.get_extra_state() is memory  # updated in place
    torch.testing.assert_close(memory[INDEX], distiller.model(2 * x).softmax(1).detach())
    before = memory.clone()
    distiller.eval()(x, y, index=INDEX)
    assert torch.equal(memory, before)
    assert not list(distiller.buffers()) or memory.data_ptr() not in {b.data_ptr() for b in distiller.buffers()}


def test_half_precision_is_remembered_in_float32() -> None:
    x, y = batch("mlp")
    model = mlp().bfloat16()
    distiller = at_epoch(SelfDistiller(model, PSKD(10)), 2)
    for _ in range(2):
        loss = distiller(x.bfloat16(), y, index=INDEX).loss
    memory = distiller.method.get_extra_state()
    assert loss.dtype == memory.dtype == torch.float32
    torch.testing.assert_close(memory[INDEX], model(x.bfloat16()).float().softmax(1).detach())


def test_it_travels_in_the_state_dict() -> None:
    distiller, x, y = trained()
    file = io.BytesIO()
    torch.save(distiller.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert [name for name in state if name.startswith("method")] == ["method._extra_state"]
    for other in (SelfDistiller(mlp(), PSKD(10)), trained(PSKD(10))[0]):
        other.load_state_dict(state)
        assert (
            at_epoch(other, 3)(x, y, index=INDEX).loss == at_epoch(copy.deepcopy(distiller), 3)(x, y, index=INDEX).loss
        )
    untouched = SelfDistiller(mlp(), PSKD(10)).state_dict()
    assert untouched["method._extra_state"] is None
    distiller.load_state_dict(untouched)
    assert distiller.method.get_extra_state() is None


def test_a_loaded_memory_is_the_methods_own() -> None:
    distiller, x, y = trained()
    state = distiller.method.get_extra_state().clone()
    kept = state.clone()
    distiller.method.set_extra_state(state)
    distiller(2 * x, y, index=INDEX)
    assert torch.equal(state, kept)


def test_copies_remember_for_themselves() -> None:
    distiller, x, y = trained()
    copies = [copy.deepcopy(distiller), pickle.loads(pickle.dumps(distiller))]
    before = distiller.method.get_extra_state().clone()
    for each in copies:
        assert torch.equal(each.method.get_extra_state(), before)
        each(2 * x, y, index=INDEX)
        assert torch.equal(distiller.method.get_extra_state(), before)
    losses = [each(x, y, index=INDEX).loss.item() for each in copies]
    assert losses[0] == losses[1]


def test_bad_memories() -> None:
    distiller, x, y = trained()
    with pytest.raises(
        ValueError, match=r"PSKD\(samples=11\) cannot go on from the posteriors of 10 images; give samples=10"
    ):
        PSKD(11).set_extra_state(distiller.method.get_extra_state())
    method = PSKD(10)
    method.set_extra_state(torch.zeros(10, CLASSES + 1))
    with pytest.raises(ValueError, match=r"PSKD\(samples=10\) remembers 6 classes and the model has 5"):
        at_epoch(SelfDistiller(mlp(), method), 0)(x, y, index=INDEX)


@pytest.mark.parametrize("bad", [-1, 10, 10**9])
def test_positions_outside_the_training_set(bad: int) -> None:
    distiller, x, y = trained()
    before = distiller.method.get_extra_state().clone()
    index = INDEX.clone()
    index[3] = bad
    message = r"index goes from .*, but PSKD\(samples=10\) has the positions 0 to 9; samples= is the number of training"
    with pytest.raises(ValueError, match=message):
        distiller(x, y, index=index)
    assert torch.equal(distiller.method.get_extra_state(), before)


def test_what_it_needs() -> None:
    x, y = batch("mlp")
    distiller = SelfDistiller(mlp(), PSKD(10))
    with pytest.raises(ValueError, match=r"PSKD\(samples=10\) needs index=, the images' positions"):
        distiller(x, y)
    with pytest.raises(ValueError, match=r"PSKD\(samples=10\) changes over the training; call distiller.set_progress"):
        distiller(x, y, index=INDEX)
    for index in (INDEX[:4], INDEX[:, None], INDEX[0]):
        with pytest.raises(ValueError, match=r"index has shape \(.*\); it must be \(6,\), a position an image"):
            at_epoch(distiller, 0)(x, y, index=index)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "PSKD: samples is the number of training images, at least 1, not 0"),
        ((10.0,), "PSKD: samples is the number of training images, at least 1, not 10.0"),
        (("all",), "PSKD: samples is the number of training images, at least 1, not 'all'"),
        ((10, -0.1), r"PSKD: weight is the share of the past in the labels, in \[0, 1\], not -0.1"),
        ((10, 1.1), r"PSKD: weight is the share of the past in the labels, in \[0, 1\], not 1.1"),
        ((10, float("nan")), "PSKD: weight is the share of the past"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PSKD(*arguments)


def test_defaults() -> None:
    assert PSKD(5).weight == 0.8
    assert repr(PSKD(50_000)) == "PSKD(samples=50000)"
