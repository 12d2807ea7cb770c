"""Weights are compared with their checksum wherever they are read, and can be made again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfdistill.detect.run import load_detector
from selfdistill.errors import ArgumentError, NonFiniteError
from selfdistill.models import build
from selfdistill.models.sealed import read_weights, seal_weights
from selfdistill.models.weights import load_weights
from selfdistill.paper.gradient_tables import load_network_at
from selfdistill.runs.export import export_run
from selfdistill.training import load_run
from selfdistill.training.export import read_run_weights
from tests.faults.tiny import damage, images, run_tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_tiny(tmp_path_factory.mktemp("finished") / "run", keep_epochs=(1,))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("at", [9, 60, -5, 3000])
def test_a_flipped_bit_of_a_run_is_refused(run: Path, at: int) -> None:
    damage(run / "model.safetensors", at)
    with pytest.raises(ValueError, match=r"it is damaged.*: run the training again"):
        load_run(run)


def test_another_runs_weights_are_refused(run: Path) -> None:
    weights = run / "model.safetensors"
    save_file(load_file(weights), weights)
    with pytest.raises(ValueError, match="its checksum differs"):
        load_run(run)


def test_a_run_without_a_checksum_stays_readable(run: Path) -> None:
    """Runs of earlier versions."""
    known, before = json.loads((run / "model.json").read_text()), load_run(run).model.state_dict()
    assert len(known.pop("sha256")) == 64
    (run / "model.json").write_text(json.dumps(known))
    save_file(load_file(run / "model.safetensors"), run / "model.safetensors")
    after = load_run(run).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_other_reader_compares_the_checksum(run: Path, tmp_path: Path) -> None:
    exported = export_run(run, "safetensors", tmp_path / "net.safetensors").path
    for file in (exported, run / "model@1.safetensors"):
        damage(file)
    with pytest.raises(ValueError, match="it is damaged"):
        load_run(exported)
    with pytest.raises(ValueError, match="it is damaged"):
        load_network_at(run, images(), 0.5)
    with pytest.raises(ArgumentError, match="damaged"):
        load_weights(build("resnet10_cifar", 10, width=4), exported, classes=10)
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "model.safetensors").write_bytes(exported.read_bytes())
    with pytest.raises(ValueError, match="it is damaged"):
        read_run_weights(tmp_path / "detector" / "model.safetensors")
    with pytest.raises(ValueError, match="not a finished detector"):
        load_detector(tmp_path / "detector")


def test_each_bit_of_the_tensors_counts(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    whole = seal_weights({"weight": torch.ones(2, 2)}, {"name": '"x"'})
    for at in range(len(whole) - 16, len(whole)):
        file.write_bytes(whole)
        damage(file, at)
        with pytest.raises(ValueError, match="checksum differs"):
            read_weights(file)


@pytest.mark.parametrize("lost", ["weights", "weights and checkpoints", "model.json", "damaged"])
def test_training_again_makes_lost_weights_again(run: Path, lost: str) -> None:
    wanted, record = (run / "model.safetensors").read_bytes(), (run / "result.json").read_bytes()
    if lost == "damaged":
        damage(run / "model.safetensors")
    else:
        (run / ("model.json" if lost == "model.json" else "model.safetensors")).unlink()
    if "checkpoints" in lost:
        shutil.rmtree(run / "checkpoints")
    with pytest.warns(UserWarning, match="it is made again$"):
        run_tiny(run, keep_epochs=(1,))
    assert (run / "model.safetensors").read_bytes() == wanted
    assert ((run / "result.json").read_bytes() == record) == ("checkpoints" not in lost)
    load_run(run)


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_var"])
def test_weights_that_are_not_finite_are_refused(run: Path, name: str) -> None:
    tensors = load_file(run / "model.safetensors")
    name = next(key for key in tensors if key.endswith(name.split(".")[1]))
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, run / "model.safetensors")
    known = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**known, "sha256": None}))
    with pytest.raises(NonFiniteError, match=rf"{run}: .*'{name}'.* after epoch 2; .*`lr`"):
        load_run(run)
