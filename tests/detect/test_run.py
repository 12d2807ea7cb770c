"""A detector's run: what it writes, that it goes on to the same bits, and that it learns."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfdistill.detect import DetectRecipe, DetectRecord, average_precision, detect, load_coco, load_detector
from selfdistill.detect import run as run_module
from selfdistill.detect.batches import Batch, in_order
from selfdistill.detect.session import TERMS, Session
from selfdistill.train import Interrupted, Update

pytestmark = pytest.mark.usefixtures("small_head")
CPU = torch.device("cpu")


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Send this process SIGTERM in the middle of these optimiser steps of the whole run, once each."""
    taken = Session.step

    def install(positions: set[int]) -> None:
        def step(self: Session, batch: Batch, position: int) -> list[float]:
            if position in positions:
                positions.remove(position)
                os.kill(os.getpid(), signal.SIGTERM)
            return taken(self, batch, position)

        monkeypatch.setattr(Session, "step", step)

    return install


def same(one: Path, other: Path) -> None:
    """Assert that two run folders hold the same bits, times apart."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    logs = [[line.split(",")[:-2] for line in (run / "log.csv").read_text().splitlines()] for run in (one, other)]
    assert logs[0] == logs[1]
    assert DetectRecord.load(one / "result.json").measured == DetectRecord.load(other / "result.json").measured


def test_a_run(tmp_path: Path, recipe: DetectRecipe) -> None:
    said: list[str] = []
    told: list[Update] = []
    out = tmp_path / "run"
    before = torch.get_rng_state()
    record = detect(recipe, out, progress=told.append, announce=said.append)
    assert torch.equal(before, torch.get_rng_state())
    assert said == [
        "tiny: 4 images of train2017, 4 boxes (0 crowds and 0 degenerate ones left out), measured on 3 of val2017; "
        "resnet18, weights: from scratch, trained BatchNorm, 64 px; 2 epochs, batches of 2, lr 0.001"
    ]
    assert [update.epoch for update in told if update.kind == "epoch"] == [1, 2]
    assert tuple(told[-1].terms) == TERMS
    assert record == DetectRecord.load(out / "result.json")
    assert (record.name, record.epochs, record.schedule, record.policy) == ("run", 2, "2 epochs", "last epoch")
    assert record.data["train"] == {
        "name": "train2017", "n": 4, "boxes": 4, "crowds": 0, "degenerate": 0, "empty": 1,
    }  # fmt: skip
    assert (record.data["classes"], record.measured["n"], record.measured["boxes"]) == (4, 3, 2)
    assert record.recipe == json.loads(json.dumps(record.recipe))
    assert DetectRecipe(**record.recipe) == DetectRecipe.from_yaml(out / "recipe.yaml")
    assert {"torch", "torchvision", "torchmetrics", "faster-coco-eval"} <= record.versions.keys()
    assert [row["lr"] for row in record.log] == [0.001, 0.0001]  # epoch 2 comes after a drop
    assert record.log[1]["loss"] == pytest.approx(sum(record.log[1][name] for name in TERMS))
    weights = load_file(out / "model.safetensors")
    detector = load_detector(out)
    assert not detector.training
    for name, value in detector.state_dict().items():
        assert torch.equal(value, weights[name])
    images = load_coco(recipe.data).measured.images
    with torch.inference_mode():
        again = average_precision((detector(x)[0], y[0]) for x, y in in_order(images, device=CPU, workers=0))
    assert record.measured == pytest.approx(vars(again))

    # A finished run is returned as it is; another recipe's folder is refused.
    assert detect(recipe, out) == record
    message = r"run belongs to another recipe: seed \(0 there, 1 here\); choose another `out`, or delete it"
    with pytest.raises(ValueError, match=message):
        detect(replace(recipe, seed=1), out)


def test_interrupted_runs_end_alike(
    tmp_path: Path,
    recipe: DetectRecipe,
    signal_at: Callable[[set[int]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    detect(recipe, whole)
    signal_at({0, 1})  # in the middle of an epoch, and at its end
    monkeypatch.setattr(run_module, "SAVE_SECONDS", 0.0)
    go_on = rf"saved; run the same command again to go on \({parts}\)"
    with pytest.raises(Interrupted, match=rf"stopped by SIGTERM in epoch 1 after step 1 of 2, {go_on}") as stopped:
        detect(recipe, parts)
    assert stopped.value.exit_status == 128 + signal.SIGTERM
    assert not (parts / "result.json").exists()
    with pytest.raises(Interrupted, match=rf"stopped by SIGTERM after epoch 1, {go_on}"):
        detect(replace(recipe, workers=1), parts)
    detect(recipe, parts)
    same(whole, parts)


def test_what_fails_at_once_leaves_nothing_behind(tmp_path: Path, recipe: DetectRecipe) -> None:
    out = tmp_path / "run"
    for values, message in (
        ({"warmup_steps": 4}, "--warmup-steps 4 is no warm-up of a training of 4 step"),
        ({"data": str(tmp_path / "nowhere")}, "instances_train2017.json is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            detect(replace(recipe, **values), out)  # type: ignore[arg-type]
        assert not out.exists()
    with pytest.raises(ValueError, match=r"run holds no finished detector: there is no result\.json in it"):
        load_detector(out)


def test_a_damaged_record_is_named(tmp_path: Path, recipe: DetectRecipe) -> None:
    path = tmp_path / "result.json"
    for text, message in (("{", "damaged, not JSON"), ("{}", "not the record of a detector of this version")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{path}: {message}"):
            detect(recipe, tmp_path)


def test_on_the_backbone_of_a_run(tmp_path: Path, recipe: DetectRecipe, trained: Path) -> None:
    """Measured on its training images; the frozen half of the run's network is in the detector bit by bit."""
    on_run = replace(recipe, model=None, backbone=str(trained), measure_on="train", images=2, epochs=1, batch_size=1)
    record = detect(on_run, tmp_path / "run")
    assert (record.backbone["model"], record.backbone["method"], record.backbone["run"]) == (
        "resnet18",
        "SDDropout()",
        "sddropout-seed3",
    )
    assert (record.recipe["norm"], record.recipe["trainable_layers"]) == ("frozen", 3)
    assert (record.data["measured"]["name"], record.measured["n"]) == ("train2017", 2)
    assert record.trained_parameters < record.parameters
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    for name, value in before.items():
        if name.startswith(("conv1", "bn1", "layer1")) and not name.endswith("num_batches_tracked"):
            assert torch.equal(after[f"backbone.body.{name}"], value), name
    assert not torch.equal(after["backbone.body.layer4.1.conv2.weight"], before["layer4.1.conv2.weight"])
