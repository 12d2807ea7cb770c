"""Weights that timm finds: a folder of the form that the Hugging Face hub has, and the hub where there is none."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from selfdistill.config import TrainConfig
from selfdistill.data import eval_batches, load_data
from selfdistill.data.sets import BILINEAR, Resizing
from selfdistill.errors import ArgumentError
from selfdistill.models import build
from selfdistill.models.pretrained import pretrained
from selfdistill.runs.grid import describe_plan
from selfdistill.runs.predict import predict_files
from selfdistill.runs.score import own_images
from selfdistill.training import load as load_model
from selfdistill.training import load_run, train
from selfdistill.training.run import load
from tests.pictures import write_digits

STD = timm.get_pretrained_cfg("test_resnet.r160_in1k").std


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as files of 100 x 80 pixels."""
    folder = write_digits(tmp_path_factory.mktemp("photos") / "digits3", train=4, test=4, size=80)
    for file in folder.glob("*/*/*.png"):
        Image.open(file).resize((100, 80)).save(file)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("hub") / "seven"
    model = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    save_for_hf(model, str(path), safe_serialization=True)
    config = json.loads((path / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "interpolation": "bicubic", "crop_pct": 1.0}
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
    assert load(recipe).resizing == BILINEAR, "in memory"


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_small_files_are_enlarged_to_the_size_of_the_weights(folder: Path, tmp_path: Path, kind: str) -> None:
    files = write_digits(tmp_path / "small", train=2, test=2)
    table = files / "labels.csv"
    rows = [f"{file.relative_to(files)},{file.parent.name}" for file in sorted(files.glob("*/*/*.png"))]
    table.write_text("\n".join(["path,label", *rows]))
    recipe = TrainConfig(data=str(files if kind == "folder" else table), weights=f"local-dir:{folder}")
    recipe = replace(recipe, data_root=str(tmp_path))
    enlarged, small = load(recipe), load(replace(recipe, image_size=32))
    assert (enlarged.image_size, enlarged.train.is_small) == (160, False)
    assert (small.image_size, small.train.is_small) == (32, True)
    assert "160 px, decoded" in describe_plan(recipe, enlarged)


@pytest.mark.parametrize("model", ["timm:vit_tiny_patch16_384", "torchvision:vit_b_16"])
def test_a_fixed_size_holds_from_scratch_too(tmp_path: Path, model: str) -> None:
    recipe = TrainConfig(data=str(write_digits(tmp_path / "small", train=1, test=1)), model=model)
    assert load(recipe).image_size == (384 if "384" in model else 224)


def test_images_of_another_size_than_the_networks_are_refused(photos: Path, tmp_path: Path) -> None:
    recipe = TrainConfig(data=str(photos), model="timm:test_vit", image_size=100, epochs=1, workers=0)
    with pytest.raises(ArgumentError, match="does not take images of 100 px") as refused:
        train(recipe, tmp_path / "run")
    assert refused.value.argument == "model"
    assert not (tmp_path / "run").exists()


def test_the_plan_says_how_arrays_differ_from_the_weights_images(folder: Path) -> None:
    recipe = TrainConfig(data="digits", weights=f"local-dir:{folder}", epochs=30)
    plan = describe_plan(recipe, load(recipe))
    assert "32 px (weights: 160)" in plan
    assert "cosine over 30 epochs, a new head starts from a linear probe, BatchNorm statistics frozen" in plan


def by_hand(file: Path, interpolation: Image.Resampling, side: int, size: int, *, squash: bool = False) -> torch.Tensor:
    """The shorter side, or both, to ``side``, the central square of ``size``, normalised."""
    image = Image.open(file).convert("RGB")
    width, height = (side if squash else side * old // min(image.size) for old in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    square = image.resize((width, height), interpolation).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
    return (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / pixels.new_tensor(STD).view(3, 1, 1)


def with_crop(folder: Path, copy: Path, **changed: Any) -> Path:
    """A copy of the weights that says something else of the images."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["pretrained_cfg"] |= changed
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("squash", [False, True])
def test_a_run_resizes_files_as_its_weights_say(
    folder: Path, photos: Path, tmp_path: Path, cache: bool, squash: bool
) -> None:
    if squash:
        folder = with_crop(folder, tmp_path / "squash", crop_mode="squash")
    recipe = TrainConfig(data=str(photos), weights=f"local-dir:{folder}", image_size=72, epochs=1, freeze="backbone")
    recipe = replace(recipe, data_root=str(tmp_path), cache=cache, workers=0)
    record = train(recipe, tmp_path / "run")
    assert (record.recipe.interpolation, record.recipe.crop_pct) == ("bicubic", 1.0)
    loaded = load_run(tmp_path / "run")
    file = next(photos.glob("test/*/*.png"))
    data = load(recipe)
    batches = eval_batches(data.test, data, batch_size=64, device="cpu", workers=0)
    seen = torch.cat([x for x, _ in batches])[[path == file for path in data.test.paths]]
    assert torch.allclose(seen[0], by_hand(file, Image.Resampling.BICUBIC, 72, 72, squash=squash), atol=1e-5)
    ((predicted,), _) = predict_files(loaded, [file])
    with torch.no_grad():
        wanted = loaded.model(seen).softmax(dim=1)[0]
    assert predicted.probabilities == pytest.approx(wanted.tolist(), abs=1e-4)
    images = own_images(tmp_path / "run", loaded)
    assert images.resizing == loaded.resizing == Resizing("bicubic", 1.0, "squash" if squash else "center")


def test_another_way_to_a_square_is_asked_for(folder: Path, photos: Path, tmp_path: Path) -> None:
    framed = with_crop(folder, tmp_path / "framed", crop_mode="border")
    recipe = TrainConfig(data=str(photos), weights=f"local-dir:{framed}", image_size=72, data_root=str(tmp_path))
    with pytest.raises(ArgumentError, match="center or squash, not border") as refused:
        load(recipe)
    assert refused.value.argument == "crop_mode"
    assert load(replace(recipe, crop_mode="squash")).resizing.in_words(72) == (
        "both sides to 72 px, central square of 72 px"
    )


def test_a_run_of_an_earlier_version_stays_bilinear(folder: Path, photos: Path, tmp_path: Path) -> None:
    run, changed = tmp_path / "run", {"interpolation": "bilinear", "crop_pct": 0.875}
    recipe = TrainConfig(data=str(photos), weights=f"local-dir:{folder}", image_size=72, epochs=1, freeze="backbone")
    recipe = replace(recipe, data_root=str(tmp_path), workers=0)
    train(replace(recipe, **changed), run)
    lines = (run / "recipe.yaml").read_text().splitlines(keepends=True)
    (run / "recipe.yaml").write_text("".join(line for line in lines if not line.startswith(tuple(changed))))
    known = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({name: known[name] for name in known if name not in changed}))
    loaded = load_run(run)
    assert own_images(run, loaded).resizing == loaded.resizing == BILINEAR
    file = next(photos.glob("test/*/*.png"))
    ((predicted,), _) = predict_files(loaded, [file])
    with torch.no_grad():
        wanted = loaded.model(by_hand(file, Image.Resampling.BILINEAR, 82, 72)[None]).softmax(dim=1)[0]
    assert predicted.probabilities == pytest.approx(wanted.tolist(), abs=1e-4)
    with pytest.raises(ValueError, match="interpolation"):
        train(recipe, run)


@pytest.mark.parametrize("changed", [{"interpolation": "bicubic"}, {"crop_pct": 0.5}, {"crop_mode": "squash"}])
def test_resizing_of_images_in_memory_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="in memory") as refused:
        load(TrainConfig(data="digits", **changed))
    assert refused.value.argument == next(iter(changed))


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
