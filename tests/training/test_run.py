import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import selfdistill
from selfdistill.config import ResolvedTrainConfig, TrainConfig
from selfdistill.data import ImageData
from selfdistill.progress import Progress
from selfdistill.records import RunRecord
from selfdistill.training import NonFiniteLossError, train
from selfdistill.training import run as run_module
from selfdistill.training.meters import Meters
from selfdistill.training.session import Session


def rows(out: Path) -> list[dict[str, str]]:
    header, *lines = (line.split(",") for line in (out / "log.csv").read_text().splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_what_a_run_leaves(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    out = tmp_path / "runs" / "grey"
    events: list[Progress] = []
    recipe = replace(recipe, keep_epochs=(2,), eval_every=2, epochs=5)
    record = train(recipe, out, data=data, progress=events.append)
    names = {
        "recipe.yaml",
        "log.csv",
        "checkpoints",
        "model.safetensors",
        "model.json",
        "predictions.npz",
        "result.json",
    }
    assert {path.name for path in out.iterdir()} - {".lock"} == names | {"model@2.safetensors"}
    assert ResolvedTrainConfig.from_yaml(out / "recipe.yaml") == recipe.resolve(data)

    log = rows(out)
    columns = "epoch lr loss ce sdd train_accuracy test_top1 seconds images_per_second"
    assert list(log[0]) == columns.split()
    assert [row["epoch"] for row in log] == ["1", "2", "3", "4", "5"]
    assert [bool(row["test_top1"]) for row in log] == [False, True, False, True, True]
    assert [float(row["lr"]) for row in log] == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005])
    for row in log:
        assert float(row["loss"]) == pytest.approx(float(row["ce"]) + 9 * float(row["sdd"]), rel=1e-5)

    assert record == RunRecord.load(out / "result.json")
    assert record.evaluation.n == 21
    assert record.evaluation.top1 == pytest.approx(float(log[-1]["test_top1"]))
    assert record.best is not None
    assert record.best.top1 == max(float(row["test_top1"]) for row in log if row["test_top1"])
    assert record.policy == "last epoch"
    assert record.terms == ("ce", "sdd")
    assert record.data.train_n == 44
    assert (record.extra_parameters, record.peak_memory_bytes) == (0, None)
    assert record.parameters == sum(p.numel() for p in selfdistill.load(out).parameters())
    assert record.recipe_values == json.loads((out / "result.json").read_text())["recipe"]
    assert 0 < record.seconds_per_epoch < record.seconds

    model = selfdistill.load(out)
    assert data.test.images is not None
    x = (data.test.images / 255 - 0.4) / 0.2
    assert (model(x).argmax(1) == data.test.labels).float().mean().item() == pytest.approx(record.evaluation.top1)
    earlier = load_file(out / "model@2.safetensors")
    assert earlier.keys() == model.state_dict().keys()
    assert not torch.equal(earlier["fc.weight"], model.state_dict()["fc.weight"])

    ends = [event for event in events if event.epoch_done]
    epochs = [event.training for event in ends if event.training is not None]
    assert [at.epoch for at in epochs] == [1, 2, 3, 4, 5]
    assert [event.done for event in ends] == [3, 6, 9, 12, 15]
    assert epochs[-1].seconds_left == 0
    assert epochs[-1].metrics["test"] == pytest.approx(record.evaluation.top1)
    assert list(epochs[0].metrics) == ["train"]
    assert (events[-1].stage, events[-1].training) == ("evaluating", epochs[-1])


def test_it_learns(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    # A small rate: at 0.05 the losses of so few images jump, and rounding decides where they end.
    record = train(replace(recipe, epochs=8, batch_size=8, lr=0.02), tmp_path, data=data)
    assert record.evaluation.top1 > 0.9


def test_the_peers_accuracy_stands_beside_the_students(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    record = train(replace(recipe, method="DML()", eval_every=2), tmp_path, data=data)
    assert [row.peer_top1 is None for row in record.log] == [True, False, False]
    assert record.metric("peer_top1") == record.log[-1].peer_top1
    assert record.terms == ("ce", "dml")
    assert record.extra_parameters == record.parameters
    assert set(load_file(tmp_path / "model.safetensors")) == set(selfdistill.load(tmp_path).state_dict())
    assert train(replace(recipe, method="CSKD()"), tmp_path / "other", data=data).metric("peer_top1") is None


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = train(recipe, tmp_path, data=data)
    monkeypatch.delattr(Session, "step")
    assert train(recipe, tmp_path, data=data) == record
    with pytest.raises(ValueError, match="belongs to another recipe: epochs"):
        train(replace(recipe, epochs=4), tmp_path, data=data)


def test_a_folder_of_another_recipe(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    (tmp_path / "recipe.yaml").write_text(replace(recipe, seed=7, lr=0.2, workers=3).resolve(data).to_yaml())
    message = f"{tmp_path} belongs to another recipe: lr (0.2 there, 0.05 here), seed (7 there, 0 here); "
    with pytest.raises(ValueError, match=re.escape(message + "choose another `out`, or delete it")):
        train(recipe, tmp_path, data=data)
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml"}


def test_a_file_where_the_folder_should_be(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(OSError, match=re.escape(f"{path} is a file, not a folder: choose another `out`")):
        train(recipe, path, data=data)
    with pytest.raises(OSError, match=re.escape(f"the run folder {path}/x cannot be made: Not a directory; choose")):
        train(recipe, path / "x", data=data)
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    (tmp_path / ".lock").mkdir()  # root may write anywhere else
    with pytest.raises(OSError, match=re.escape(f"cannot write in {tmp_path}: Is a directory; choose another `out`")):
        train(recipe, tmp_path, data=data)


LOCK = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_share_a_folder(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, script: Callable[..., "object"]
) -> None:
    other = script(LOCK, tmp_path / ".lock")
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RuntimeError, match=re.escape(f"another process is training in {tmp_path}; wait for it")):
            train(recipe, tmp_path, data=data)
    finally:
        other.kill()
        other.communicate()


def test_the_callers_world_is_left_alone(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(replace(recipe, threads=1, epochs=1), tmp_path, data=data)
        assert torch.equal(before, torch.get_rng_state())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "SAVE_SECONDS", 0.0)
    taken = Session.step

    def poisoned(self: Session[Any], batches: Any, position: int, meters: Meters) -> None:
        if position == 7:  # epoch 3, step 2
            with torch.no_grad():
                self.task.model.get_parameter("fc.weight").fill_(math.inf)
        taken(self, batches, position, meters)

    monkeypatch.setattr(Session, "step", poisoned)
    message = "the term 'ce' was not finite at epoch 3, step 2; try a lower `lr` (it was 0.05) or `clip=1`"
    with pytest.raises(NonFiniteLossError, match=re.escape(message)):
        train(recipe, tmp_path, data=data)
    newest = max((tmp_path / "checkpoints").glob("*.pt"))
    assert newest.name == "epoch-00002-step-0000000.pt"
    saved = torch.load(newest, weights_only=True)["distiller"]
    assert all(value.isfinite().all() for value in saved.values())
    assert not (tmp_path / "result.json").exists()
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2"]
