import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import selfdistill
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.models import build
from selfdistill.training import load, load_run
from selfdistill.training.export import save_model


@pytest.fixture
def run(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> Path:
    model = build("resnet10_cifar", 3, width=4, features=6, head_layers=2)
    save_model(model, replace(recipe, features=6, head_layers=2), data, tmp_path)
    return tmp_path


def test_what_was_saved_comes_back(run: Path, data: ImageData) -> None:
    loaded = load_run(run)
    saved = load_file(run / "model.safetensors")
    assert saved.keys() == build("resnet10_cifar", 3, width=4, features=6, head_layers=2).state_dict().keys()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.model.state_dict().items())
    assert (loaded.classes, loaded.image_size, loaded.mean, loaded.std) == (data.classes, 16, data.mean, data.std)
    assert not loaded.model.training
    assert json.loads((run / "model.json").read_text())["selfdistill"] == selfdistill.__version__
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(selfdistill.load(run)(x), loaded.model(x))


def test_a_folder_without_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} is not a finished run: model.json is missing")):
        load(tmp_path)


def test_weights_that_are_missing(run: Path) -> None:
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing: run the training again"):
        load(run)


def test_weights_that_are_damaged(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors: it is damaged") as error:
        load(run)
    assert "\n" not in str(error.value)


def test_a_description_that_is_damaged(run: Path) -> None:
    (run / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        load(run)
    (run / "model.json").write_text('{"model": "resnet10_cifar"}')
    with pytest.raises(ValueError, match=r"model\.json does not describe a model of selfdistill"):
        load(run)
