"""A run that was stopped anywhere ends with the same bits as one that was not."""

import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.method import Method, Outputs, Step, Term
from selfdistill.training import Interrupted, train
from selfdistill.training import classification as classification_module
from selfdistill.training import run as run_module
from selfdistill.training.meters import Meters
from selfdistill.training.session import Session

SameRun = Callable[[Path, Path], None]


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int], int], None]:
    """Send this process a signal in the middle of these optimiser steps of the whole run, once each."""
    taken = Session.step

    def install(positions: set[int], number: int = signal.SIGTERM) -> None:
        def step(self: Session[Any], batches: Any, position: int, meters: Meters) -> None:
            if position in positions:
                positions.remove(position)
                os.kill(os.getpid(), number)
            taken(self, batches, position, meters)

        monkeypatch.setattr(Session, "step", step)

    return install


def until_it_ends(recipe: TrainConfig, out: Path, data: ImageData) -> int:
    for stops in range(10):
        try:
            train(recipe, out, data=data)
        except Interrupted:
            continue
        return stops
    raise AssertionError("it never ends")


@pytest.mark.parametrize("kind", ["data", "photos"])
def test_interrupted_runs_end_alike(
    tmp_path: Path,
    recipe: TrainConfig,
    kind: str,
    request: pytest.FixtureRequest,
    signal_at: Callable[[set[int]], None],
    same_run: SameRun,
) -> None:
    images: ImageData = request.getfixturevalue(kind)
    recipe = replace(recipe, method="SDDropout()", workers=1 if kind == "photos" else None)
    train(recipe, tmp_path / "whole", data=images)
    signal_at({0, 2, 4, 8})  # the first step, an epoch's last, the middle of one, the very last
    assert until_it_ends(recipe, tmp_path / "parts", images) == 4
    same_run(tmp_path / "whole", tmp_path / "parts")


class Memory(Method):
    """Has a parameter, and a memory that is no buffer: both change the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(())

    def build(self, probe: Outputs, model: nn.Module) -> None:
        self.scale = nn.Parameter(torch.randn(probe.features.shape[1]))

    def terms(self, step: Step) -> dict[str, Term]:
        self.seen += 1
        return {"memory": Term((step.outputs[0].features * self.scale).pow(2).mean() * self.seen, 0.01)}

    def get_extra_state(self) -> torch.Tensor:
        return self.seen

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.seen = state


def test_what_a_method_adds_is_resumed(
    tmp_path: Path,
    recipe: TrainConfig,
    data: ImageData,
    signal_at: Callable[[set[int]], None],
    same_run: SameRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classification_module, "parse_method", lambda _: Memory())
    record = train(recipe, tmp_path / "whole", data=data)
    assert record.extra_parameters == 32
    signal_at({1, 5})
    assert until_it_ends(recipe, tmp_path / "parts", data) == 2
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "method",
    ["BAKE(partners=1) + DLB() + PSKD(samples=44)", "BYOT() + CSKD() + DML() + SDDropout(weight=0.1)", "DDGSD()"],
)
def test_every_methods_memory_is_resumed(
    tmp_path: Path,
    recipe: TrainConfig,
    data: ImageData,
    method: str,
    signal_at: Callable[[set[int]], None],
    same_run: SameRun,
) -> None:
    recipe = replace(recipe, method=method)
    train(recipe, tmp_path / "whole", data=data)
    signal_at({0, 4, 5})
    assert until_it_ends(recipe, tmp_path / "parts", data) == 3
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_damaged_checkpoint_costs_an_epoch_not_a_bit(
    tmp_path: Path,
    recipe: TrainConfig,
    data: ImageData,
    signal_at: Callable[[set[int]], None],
    same_run: SameRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "SAVE_SECONDS", 0.0)
    train(recipe, tmp_path / "whole", data=data)
    signal_at({7})
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", data=data)
    newest = max((tmp_path / "parts" / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=re.escape(f"checkpoint {newest} is not used: it is damaged")):
        train(recipe, tmp_path / "parts", data=data)
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_message_says_how_to_go_on(
    tmp_path: Path,
    recipe: TrainConfig,
    data: ImageData,
    signal_at: Callable[[set[int], int], None],
    number: signal.Signals,
    status: int,
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal_at({4}, number)
    wanted = f"stopped by {number.name} in epoch 2 after step 2 of 3, saved; run the same command again to resume"
    with pytest.raises(Interrupted, match=re.escape(f"{wanted} ({tmp_path})")) as error:
        train(recipe, tmp_path, data=data)
    assert error.value.exit_status == status
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert max(path.name for path in (tmp_path / "checkpoints").glob("*.pt")) == "epoch-00001-step-0000002.pt"


def test_a_second_signal_does_not_wait(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(self: Session[Any], batches: Any, position: int, meters: Meters) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one did nothing")

    monkeypatch.setattr(Session, "step", stuck)
    with pytest.raises(Interrupted, match="stopped by SIGINT before anything new was saved; run the same command"):
        train(recipe, tmp_path, data=data)


def test_a_thread_trains_without_signals(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    thread = threading.Thread(target=lambda: train(replace(recipe, epochs=1), tmp_path, data=data))
    thread.start()
    thread.join()
    assert (tmp_path / "result.json").exists()


def test_a_checkpoint_of_another_model(
    tmp_path: Path,
    recipe: TrainConfig,
    data: ImageData,
    signal_at: Callable[[set[int]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal_at({1})
    with pytest.raises(Interrupted):
        train(recipe, tmp_path, data=data)
    build = classification_module.build
    monkeypatch.setattr(classification_module, "build", lambda *a, **k: build("resnet10_cifar", 3, width=5))
    message = r"checkpoint .*epoch-00000-step-0000002\.pt: .* there and .* here; it belongs to another model"
    with pytest.raises(ValueError, match=message):
        train(recipe, tmp_path, data=data)


def test_another_number_of_processes(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, signal_at: Callable[[set[int]], None]
) -> None:
    signal_at({1})
    with pytest.raises(Interrupted):
        train(recipe, tmp_path, data=data)
    path = max((tmp_path / "checkpoints").glob("*.pt"))
    payload = torch.load(path, weights_only=True)
    path.unlink()
    from selfdistill.training.checkpoint import Checkpoints

    Checkpoints(path.parent).save(0, 2, payload | {"ranks": payload["ranks"] * 2})
    with pytest.raises(ValueError, match=r"is of 2 process\(es\), not 1; use the same `devices` and `nodes`, or"):
        train(recipe, tmp_path, data=data)


def test_a_signal_that_also_reaches_the_workers(
    tmp_path: Path, recipe: TrainConfig, photos: ImageData, monkeypatch: pytest.MonkeyPatch, same_run: SameRun
) -> None:
    recipe = replace(recipe, workers=1, epochs=2, eval_every=2)
    train(recipe, tmp_path / "whole", data=photos)
    taken = Session.step
    others = set(multiprocessing.active_children())  # of that run and of tests before this one

    def step(self: Session[Any], batches: Any, position: int, meters: Meters) -> None:
        if position == 1:
            (worker,) = set(multiprocessing.active_children()) - others
            worker.terminate()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            assert worker.is_alive()  # the run may still wait for its batch
        taken(self, batches, position, meters)

    monkeypatch.setattr(Session, "step", step)
    with pytest.raises(Interrupted, match="stopped by SIGTERM in epoch 1 after step 2 of 3, saved; run the same"):
        train(recipe, tmp_path / "parts", data=photos)
    monkeypatch.setattr(Session, "step", taken)
    train(recipe, tmp_path / "parts", data=photos)
    same_run(tmp_path / "whole", tmp_path / "parts")


TRAIN = """
import pickle, sys
from pathlib import Path
from selfdistill.config import TrainConfig
from selfdistill.training import train, run
run.SAVE_SECONDS = 0.0
train(TrainConfig.from_yaml(sys.argv[1]), sys.argv[2], data=pickle.loads(Path(sys.argv[3]).read_bytes()))
"""


def test_kill_dash_nine(
    tmp_path: Path,
    recipe: TrainConfig,
    photos: ImageData,
    script: Callable[..., subprocess.Popen[str]],
    same_run: SameRun,
) -> None:
    """The process, its workers still decoding, is killed at no particular moment."""
    recipe = replace(recipe, workers=1, epochs=12, eval_every=12)
    train(replace(recipe, workers=0), tmp_path / "whole", data=photos)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(photos))
    folder = tmp_path / "parts" / "checkpoints"
    process = script(TRAIN, tmp_path / "recipe.yaml", tmp_path / "parts", tmp_path / "data.pickle")
    while process.poll() is None and len(list(folder.glob("*.pt"))) < 2:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.communicate()
    process.communicate()
    assert not (tmp_path / "parts" / "result.json").exists()
    train(recipe, tmp_path / "parts", data=photos)
    same_run(tmp_path / "whole", tmp_path / "parts")
