import functools
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.method import Batch
from selfdistill.training import classification as classification_module
from selfdistill.training.classification import Classification, assemble
from selfdistill.training.meters import Means, Meters
from selfdistill.training.session import Session, make_fabric


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """No BatchNorm: a batch in two halves gives the same gradient as the whole."""

    def build(*_: object, **__: object) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 3))

    monkeypatch.setattr(classification_module, "build", build)


def ready(recipe: TrainConfig, data: ImageData) -> Session[Classification]:
    recipe = recipe.resolve(data)
    return assemble(recipe, data, make_fabric(recipe, accelerator="cpu"))


def step(session: Session[Classification], batches: tuple[Batch, ...], position: int) -> Means:
    """Take a step and return its means."""
    meters = Meters(session.device, session.task.counts)
    session.step(batches, position, meters)
    return meters.means()


def trained(recipe: TrainConfig, data: ImageData) -> torch.Tensor:
    session = ready(recipe, data)
    for position, batches in enumerate(session.task.loader.epoch(0)):
        assert len(batches) == recipe.accumulate
        step(session, batches, position)
    return nn.utils.parameters_to_vector(session.task.distiller.parameters()).detach()


@pytest.mark.usefixtures("linear")
def test_accumulated_passes_are_one_batch(recipe: TrainConfig, data: ImageData) -> None:
    plain = replace(recipe, method="CrossEntropy()", batch_size=22)
    whole, parts = (trained(replace(plain, accumulate=n), data) for n in (1, 2))
    torch.testing.assert_close(whole, parts)
    assert not torch.allclose(whole, trained(replace(plain, seed=1), data))


@pytest.mark.usefixtures("linear")
def test_a_step_is_sgd(recipe: TrainConfig, data: ImageData) -> None:
    session = ready(replace(recipe, method="CrossEntropy()", weight_decay=0.01, lr=0.5, nesterov=True), data)
    model = session.task.model
    reference = deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01, nesterov=True)
    for position, batches in enumerate(session.task.loader.epoch(0)):
        step(session, batches, position)
        optimizer.zero_grad()
        nn.functional.cross_entropy(reference(batches[0].x), batches[0].y).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("linear")
def test_clip_bounds_the_gradient(recipe: TrainConfig, data: ImageData) -> None:
    session = ready(replace(recipe, clip=1e-3, weight_decay=0.0, lr=0.5), data)
    before = nn.utils.parameters_to_vector(session.task.distiller.parameters()).detach()
    step(session, next(session.task.loader.epoch(0)), 0)
    moved = nn.utils.parameters_to_vector(session.task.distiller.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.5e-3, rel=1e-3)


def test_rate_and_progress_follow_the_position(recipe: TrainConfig, data: ImageData) -> None:
    # 3 steps an epoch, and a method that follows the training; others spare the device the two numbers.
    session = ready(replace(recipe, epochs=4, method="SDDropout(warmup=0.5)"), data)
    batches = next(session.task.loader.epoch(0))
    for position, rate in ((5, 0.05), (6, 0.005), (9, 0.0005)):
        step(session, batches, position)
        assert session.optimizer.param_groups[0]["lr"] == pytest.approx(rate)
        assert session.task.distiller.progress.item() == pytest.approx(position / 12)


def test_the_seed_decides_the_weights(recipe: TrainConfig, data: ImageData) -> None:
    one, same, other = (ready(replace(recipe, seed=seed), data) for seed in (0, 0, 1))
    weights = [nn.utils.parameters_to_vector(s.task.distiller.parameters()) for s in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("recipe_change", [{"precision": "bf16-mixed"}, {"channels_last": True, "width": 16}])
def test_other_arithmetic_trains_too(recipe: TrainConfig, data: ImageData, recipe_change: dict[str, object]) -> None:
    session = ready(replace(recipe, **recipe_change), data)  # type: ignore[arg-type]
    batches = next(session.task.loader.epoch(0))
    first = step(session, batches, 0)
    for _ in range(5):
        last = step(session, batches, 0)
    assert last.terms["ce"] < first.terms["ce"]
    output = session.task.loss(session.module, batches[0], 0)
    assert output.loss.dtype == torch.float32
    assert output.images == len(batches[0].y)
    layout = torch.channels_last if recipe_change.get("channels_last") else torch.contiguous_format
    assert batches[0].x.is_contiguous(memory_format=layout)


@pytest.mark.filterwarnings("error:bfloat16")
@pytest.mark.parametrize(("capability", "slow"), [("AVX2", True), ("AVX512", False)])
def test_bfloat16_without_avx512_is_warned_of(
    recipe: TrainConfig, monkeypatch: pytest.MonkeyPatch, capability: str, slow: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    make_fabric(replace(recipe, precision="32-true"), accelerator="cpu")
    with pytest.warns(UserWarning, match="32-true") if slow else nullcontext():
        make_fabric(replace(recipe, precision="bf16-mixed"), accelerator="cpu")


def test_channels_last_is_left_out_where_it_corrupts_memory(recipe: TrainConfig, data: ImageData) -> None:
    session = ready(replace(recipe, channels_last=True, width=4), data)
    batches = next(session.task.loader.epoch(0))
    assert batches[0].x.is_contiguous()
    assert all(weight.is_contiguous() for weight in session.task.model.parameters())


def test_a_compiled_step_is_the_same(recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification_module.torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    eager, compiled = ready(recipe, data), ready(replace(recipe, compile=True), data)
    batches = next(eager.task.loader.epoch(0))
    losses = []
    for session in (eager, compiled):
        torch.manual_seed(0)
        losses.append(step(session, batches, 0).terms["ce"])
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize(
    ("argument", "value"), [("devices", 0), ("devices", 10**6), ("devices", 10**400), ("nodes", 0), ("nodes", 10**6)]
)
def test_numbers_of_devices_out_of_range(recipe: TrainConfig, argument: str, value: int) -> None:
    with pytest.raises(ArgumentError) as error:
        make_fabric(recipe, **{argument: value})
    assert error.value.argument == argument


def test_several_machines_need_a_launcher(recipe: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ArgumentError) as error:
        make_fabric(recipe, nodes=2, accelerator="cpu")
    assert error.value.argument == "nodes"
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert make_fabric(recipe, nodes=2, accelerator="cpu").world_size == 2


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="this machine has so many")
def test_more_gpus_than_there_are(recipe: TrainConfig) -> None:
    with pytest.raises(ArgumentError) as error:
        make_fabric(recipe, devices=8, accelerator="cuda")
    assert error.value.argument == ("devices" if torch.cuda.is_available() else "accelerator")
