"""A detector's run: what it writes, that it goes on to the same bits, and that it learns."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models.detection import FasterRCNN

from selfdistill.detect.batches import in_order
from selfdistill.detect.coco import load_coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.record import Counts, DetectRecord
from selfdistill.detect.run import detect, load_detector
from selfdistill.detect.task import TERMS, average_precision
from selfdistill.progress import Progress
from selfdistill.training import Interrupted, NonFiniteLossError, loop
from selfdistill.training import run as run_module
from selfdistill.training.checkpoint import Checkpoints
from selfdistill.training.meters import Meters
from selfdistill.training.session import Session

pytestmark = pytest.mark.usefixtures("small_head")
CPU = torch.device("cpu")


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Send this process SIGTERM in the middle of these optimiser steps of the whole run, once each."""
    taken = Session.step

    def install(positions: set[int]) -> None:
        def step(self: Session[Any], batches: Any, position: int, meters: Meters) -> None:
            if position in positions:
                positions.remove(position)
                os.kill(os.getpid(), signal.SIGTERM)
            taken(self, batches, position, meters)

        monkeypatch.setattr(Session, "step", step)

    return install


def same(one: Path, other: Path) -> None:
    """Assert that two run folders hold the same bits, times apart."""
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    logs = [[line.split(",")[:-2] for line in (run / "log.csv").read_text().splitlines()] for run in (one, other)]
    assert logs[0] == logs[1]
    assert DetectRecord.load(one / "result.json").evaluation == DetectRecord.load(other / "result.json").evaluation


def test_a_run(tmp_path: Path, recipe: DetectConfig) -> None:
    said: list[str] = []
    told: list[Progress] = []
    out = tmp_path / "run"
    before = torch.get_rng_state()
    recipe = replace(recipe, keep_epochs=(1,))
    record = detect(recipe, out, progress=told.append, announce=said.append)
    assert torch.equal(before, torch.get_rng_state())
    assert said == [
        "tiny: 4 images of train2017, 4 boxes (0 crowds and 0 degenerate ones left out), evaluated on 3 of val2017; "
        "resnet18, weights: from scratch, trained BatchNorm, 64 px; 2 epochs, batches of 2, lr 0.001"
    ]
    assert [event.training.epoch for event in told if event.epoch_done and event.training] == [1, 2]
    last = told[-1].training
    assert last is not None
    assert tuple(last.terms) == TERMS
    assert last.metrics == {"mAP": record.evaluation.map}
    assert record == DetectRecord.load(out / "result.json")
    assert (record.name, record.epochs, record.schedule, record.policy) == ("run", 2, "2 epochs", "last epoch")
    assert record.data.train == Counts(name="train2017", n=4, boxes=4, crowds=0, degenerate=0, empty=1)
    assert (record.data.classes, record.evaluation.n, record.evaluation.boxes) == (4, 3, 2)
    assert record.recipe == DetectConfig.from_yaml(out / "recipe.yaml")
    assert {"torch", "torchvision", "torchmetrics", "faster-coco-eval"} <= record.versions.keys()
    assert [row.lr for row in record.log] == [0.001, 0.0001]  # epoch 2 comes after a drop
    assert record.log[1].loss == pytest.approx(sum(getattr(record.log[1], name) for name in TERMS))
    weights = load_file(out / "model.safetensors")
    detector = load_detector(out)
    assert not detector.training
    for name, value in detector.state_dict().items():
        assert torch.equal(value, weights[name])
    images = load_coco(recipe.data).evaluation.images
    with torch.inference_mode():
        again = average_precision((detector(x)[0], y[0]) for x, y in in_order(images, device=CPU, workers=0))
    assert record.evaluation == again
    assert [row.map for row in record.log] == [None, record.evaluation.map]
    assert load_file(out / "model@1.safetensors").keys() == weights.keys()

    # A finished run is returned as it is; another recipe's folder is refused.
    assert detect(recipe, out) == record
    message = r"run belongs to another recipe: seed \(0 there, 1 here\); choose another `out`, or delete it"
    with pytest.raises(ValueError, match=message):
        detect(replace(recipe, seed=1), out)


def test_interrupted_runs_end_alike(
    tmp_path: Path,
    recipe: DetectConfig,
    signal_at: Callable[[set[int]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    detect(recipe, whole)
    signal_at({0, 1})  # in the middle of an epoch, and at its end
    monkeypatch.setattr(run_module, "SAVE_SECONDS", 0.0)
    go_on = rf"saved; run the same command again to resume \({parts}\)"
    with pytest.raises(Interrupted, match=rf"stopped by SIGTERM in epoch 1 after step 1 of 2, {go_on}") as stopped:
        detect(recipe, parts)
    assert stopped.value.exit_status == 128 + signal.SIGTERM
    assert not (parts / "result.json").exists()
    with pytest.raises(Interrupted, match=rf"stopped by SIGTERM after epoch 1, {go_on}"):
        detect(replace(recipe, workers=1), parts)
    detect(recipe, parts)
    same(whole, parts)


def test_what_fails_at_once_leaves_nothing_behind(tmp_path: Path, recipe: DetectConfig) -> None:
    out = tmp_path / "run"
    for values, message in (
        ({"model": "vgg16"}, "a detector's backbone is a ResNet"),
        ({"data": str(tmp_path / "nowhere")}, "instances_train2017.json is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            detect(replace(recipe, **values), out)  # type: ignore[arg-type]
        assert not out.exists()
    with pytest.raises(ValueError, match=r"run is not a finished detector: result\.json is missing"):
        load_detector(out)


def test_a_signal_breaks_an_evaluation_off(
    tmp_path: Path, recipe: DetectConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, epochs=1)
    detect(recipe, tmp_path / "whole")
    forward = FasterRCNN.forward

    def interrupted(self: FasterRCNN, images: Any, targets: Any = None) -> Any:
        if not self.training:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, images, targets)

    monkeypatch.setattr(FasterRCNN, "forward", interrupted)
    with pytest.raises(Interrupted, match="stopped by SIGTERM in epoch 1 after step 2 of 2, saved"):
        detect(recipe, tmp_path / "parts")
    monkeypatch.setattr(FasterRCNN, "forward", forward)
    detect(recipe, tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_loss_that_is_not_finite_is_named(
    tmp_path: Path, recipe: DetectConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Session.step

    def poisoned(self: Session[Any], batches: Any, position: int, meters: Meters) -> None:
        if position == 2:  # epoch 2, step 1
            with torch.no_grad():
                self.task.network.roi_heads.box_predictor.cls_score.bias.fill_(float("nan"))
        taken(self, batches, position, meters)

    monkeypatch.setattr(Session, "step", poisoned)
    message = r"'classifier' was not finite at epoch 2, step 1; try a lower `lr` \(it was 0.001\) or `clip=1`"
    with pytest.raises(NonFiniteLossError, match=message):
        detect(recipe, tmp_path / "run")


def test_training_does_not_wait_for_the_device_at_every_step(
    tmp_path: Path, recipe: DetectConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meters, the only thing that is read back, are added up at an epoch's end."""
    added: list[int] = []
    add_up = Meters._add_up

    def count(self: Meters) -> None:
        added.append(len(self._pending))
        add_up(self)

    monkeypatch.setattr(Meters, "_add_up", count)
    monkeypatch.setattr(loop, "LOG_SECONDS", 1000.0)
    detect(replace(recipe, batch_size=1, epochs=1), tmp_path / "run")
    assert max(added) == 4


def test_a_checkpoint_of_another_task_is_refused(
    tmp_path: Path, recipe: DetectConfig, signal_at: Callable[[set[int]], None]
) -> None:
    signal_at({0})
    with pytest.raises(Interrupted):
        detect(recipe, tmp_path / "run")
    path = max((tmp_path / "run" / "checkpoints").glob("*.pt"))
    payload = torch.load(path, weights_only=True)
    path.unlink()
    Checkpoints(path.parent).save(0, 1, payload | {"distiller": payload.pop("detector")})
    with pytest.raises(ValueError, match=rf"checkpoint {path} is not a detector's, or of another version"):
        detect(recipe, tmp_path / "run")


def test_a_damaged_record_is_named(tmp_path: Path, recipe: DetectConfig) -> None:
    path = tmp_path / "result.json"
    for text, message in (("{", "damaged, not JSON"), ("{}", "not the record of a detector of this version")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{path}: {message}"):
            detect(recipe, tmp_path)


def test_on_the_backbone_of_a_run(tmp_path: Path, recipe: DetectConfig, trained: Path) -> None:
    """Measured on its training images; the frozen half of the run's network is in the detector bit by bit."""
    on_run = replace(recipe, model=None, backbone=str(trained), eval_split="train", images=2, epochs=1, batch_size=1)
    record = detect(on_run, tmp_path / "run")
    start = record.backbone
    assert (start.model, start.method, start.run) == ("resnet18", "SDDropout()", "sddropout-seed3")
    assert (record.recipe.norm, record.recipe.trainable_layers) == ("frozen", 3)
    assert (record.data.evaluation.name, record.evaluation.n) == ("train2017", 2)
    assert record.trained_parameters < record.parameters
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    for name, value in before.items():
        if name.startswith(("conv1", "bn1", "layer1")) and not name.endswith("num_batches_tracked"):
            assert torch.equal(after[f"backbone.body.{name}"], value), name
    assert not torch.equal(after["backbone.body.layer4.1.conv2.weight"], before["layer4.1.conv2.weight"])
