"""Weights that timm finds: a folder of the form that the Hugging Face hub has, and the hub where there is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from selfdistill.config import TrainConfig
from selfdistill.data import load_data
from selfdistill.errors import ArgumentError
from selfdistill.models import build
from selfdistill.models.pretrained import pretrained
from selfdistill.training import load as load_model
from selfdistill.training import train
from selfdistill.training.run import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("hub") / "seven"
    model = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    save_for_hf(model, str(path), safe_serialization=True)
    config = json.loads((path / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_the_weights_of_a_folder(folder: Path) -> None:
    model = build("timm:test_resnet", 7, weights=f"local-dir:{folder}")
    torch.manual_seed(1)
    saved = timm.create_model("test_resnet.r160_in1k", num_classes=7).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert not model.has_new_head
    assert build("timm:test_resnet", 3, weights=f"local-dir:{folder}").has_new_head


def test_images_are_prepared_as_the_folder_says(folder: Path) -> None:
    known = pretrained(None, f"local-dir:{folder}")
    assert known is not None
    assert (known.classes, known.mean) == (7, (0.1, 0.2, 0.3))
    recipe = TrainConfig(data="digits", weights=f"local-dir:{folder}")
    assert load(recipe).mean == (0.1, 0.2, 0.3)


def test_a_run_needs_the_folder_no_more(folder: Path, tmp_path: Path) -> None:
    recipe = TrainConfig(data="digits", per_class=2, test_per_class=2, weights=f"local-dir:{folder}", epochs=2)
    record = train(recipe, tmp_path / "run")
    assert record.recipe.model == "timm:test_resnet"
    assert isinstance(load_model(tmp_path / "run"), type(timm.create_model("test_resnet")))


@pytest.mark.parametrize(
    ("changed", "argument"),
    [({"model": "timm:resnet18"}, "model"), ({"model": "resnet10_cifar"}, "model")],
)
def test_another_model_is_refused(folder: Path, changed: dict[str, str], argument: str) -> None:
    recipe = replace(TrainConfig(data="digits", weights=f"local-dir:{folder}"), **changed)
    with pytest.raises(ArgumentError, match="timm:test_resnet") as refused:
        recipe.resolve(load_data("digits", per_class=2))
    assert refused.value.argument == argument


@pytest.mark.parametrize("weights", ["local-dir:/nowhere", "hf-hub:nobody/nothing"])
def test_weights_that_are_not_there(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at its import
    with pytest.raises(OSError, match=rf"^weights '{weights}' cannot be found") as refused:
        load(TrainConfig(data="digits", weights=weights))
    assert "\n" not in str(refused.value)
