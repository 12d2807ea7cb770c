"""Validation images: who they are, what they decide, and that the test images decide nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, Split, eval_batches, load_data
from selfdistill.data.fingerprint import pixel_ids
from selfdistill.data.sets import hold_out_validation
from selfdistill.errors import ArgumentError
from selfdistill.evaluation.temperature import fit_temperature
from selfdistill.records import VALIDATION, Predictions, RunRecord
from selfdistill.training import load, load_run, train
from selfdistill.training.keep_best import BestWeights, epochs_since_best
from tests.pictures import write_digits
from tests.training.conftest import assert_same_weights, train_with_a_stop


@pytest.fixture
def hard(data: ImageData) -> ImageData:
    """The classes with wrong labels in a third of the validation images, so that epochs differ."""
    assert data.test.images is not None
    labels = data.test.labels.clone()
    labels[::3] = (labels[::3] + 1) % 3
    noise = torch.randint(0, 80, data.test.images.shape, generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    return replace(data, val=Split(labels, images=data.test.images // 2 + noise), val_split_description="val folder")


def best_row(record: RunRecord) -> dict[str, float]:
    return max(record.rows, key=lambda row: (row["val_top1"], -row["val_nll"]))


def test_each_epoch_measures_the_validation_images(tmp_path: Path, hard: ImageData, recipe: TrainConfig) -> None:
    record = train(recipe, tmp_path / "run", data=hard)
    assert record.data.val_n == len(hard.val)
    model = load(tmp_path / "run")
    (x, y), *_ = eval_batches(hard.val, hard, batch_size=64, device="cpu")
    with torch.no_grad():
        logits = model.eval()(x)
    assert record.rows[-1]["val_top1"] == pytest.approx(float((logits.argmax(1) == y).float().mean()))
    assert record.rows[-1]["val_nll"] == pytest.approx(float(F.cross_entropy(logits, y)), rel=1e-4)


def test_validation_images_change_nothing_in_the_training(
    tmp_path: Path, hard: ImageData, data: ImageData, recipe: TrainConfig
) -> None:
    train(recipe, tmp_path / "with", data=hard)
    train(recipe, tmp_path / "without", data=data)
    assert_same_weights(tmp_path / "with", tmp_path / "without")


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5}])
def test_the_best_epoch_is_saved(
    tmp_path: Path, hard: ImageData, recipe: TrainConfig, changes: dict[str, float]
) -> None:
    recipe = replace(recipe, epochs=6, keep="best", lr=0.3, keep_epochs=(1, 2, 3, 4, 5, 6), **changes)
    record = train(recipe, tmp_path / "run", data=hard)
    best = best_row(record)
    assert record.policy.endswith(f" {best['epoch']}")
    assert record.evaluation.top1 == best["test_top1"]
    kept = load(tmp_path / "run").state_dict()
    from safetensors.torch import load_file

    of_epoch = load_file(tmp_path / "run" / f"model@{best['epoch']}.safetensors")
    assert all(torch.equal(kept[name], of_epoch[name]) for name in of_epoch)


def test_patience_stops_after_epochs_that_were_no_better(tmp_path: Path, hard: ImageData, recipe: TrainConfig) -> None:
    recipe = replace(recipe, epochs=60, lr=0.3, patience=2)
    record = train(recipe, tmp_path / "run", data=hard)
    assert record.epochs < 60
    assert record.epochs == len(record.rows) == best_row(record)["epoch"] + 2
    assert train(recipe, tmp_path / "run", data=hard) == record


@pytest.mark.parametrize("rows", [[(0.5, 1.0)], [(0.5, 1.0), (0.5, 0.9), (0.4, 0.1), (0.5, 0.9)], [(0.1, 1), (0.2, 1)]])
def test_the_best_is_the_first_of_the_highest_accuracy_and_lowest_nll(rows: list[tuple[float, float]]) -> None:
    log = [{"epoch": at, "val_top1": top1, "val_nll": nll} for at, (top1, nll) in enumerate(rows, 1)]
    in_order = [(-top1, nll, at) for at, (top1, nll) in enumerate(rows, 1)]
    assert epochs_since_best(log) == len(rows) - min(in_order)[2]


def test_a_resumed_run_keeps_the_same_epoch(tmp_path: Path, hard: ImageData, recipe: TrainConfig) -> None:
    recipe = replace(recipe, epochs=6, lr=0.3, keep="best", patience=4)
    whole = train(recipe, tmp_path / "whole", data=hard)
    resumed = train_with_a_stop(recipe, tmp_path / "stopped", hard, after=3)
    assert (resumed.policy, resumed.evaluation) == (whole.policy, whole.evaluation)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_a_frozen_backbone_is_validated_on_features(tmp_path: Path, hard: ImageData, recipe: TrainConfig) -> None:
    train(replace(recipe, epochs=1), tmp_path / "start", data=hard)
    frozen = replace(recipe, weights=str(tmp_path / "start"), freeze="backbone", keep="best", data_root=str(tmp_path))
    record = train(frozen, tmp_path / "run", data=hard)
    (x, y), *_ = eval_batches(hard.val, hard, batch_size=64, device="cpu")
    with torch.no_grad():
        top1 = float((load(tmp_path / "run").eval()(x).argmax(1) == y).float().mean())
    assert best_row(record)["val_top1"] == pytest.approx(top1)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_temperature_is_fitted_on_validation_images_alone(
    tmp_path: Path, hard: ImageData, recipe: TrainConfig, frozen: bool
) -> None:
    if frozen:
        train(replace(recipe, epochs=1), tmp_path / "start", data=hard)
        recipe = replace(recipe, weights=str(tmp_path / "start"), freeze="backbone", data_root=str(tmp_path))
    assert hard.val is not None
    assert hard.test.images is not None
    other = replace(hard, test=replace(hard.test, images=255 - hard.test.images))
    for name, data in (("run", hard), ("other", other)):
        train(recipe, tmp_path / name, data=data)
    outputs, loaded = Predictions.load(tmp_path / "run", None, VALIDATION), load_run(tmp_path / "run")
    assert outputs is not None
    (x, y), *_ = eval_batches(hard.val, hard, batch_size=64, device="cpu")
    with torch.no_grad():
        logits = loaded.model(x)
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-5)
    assert outputs.labels.tolist() == y.tolist()
    assert loaded.temperature == fit_temperature(outputs.logits, y) != 1
    assert load_run(tmp_path / "other").temperature == loaded.temperature


def test_without_validation_images_no_temperature_is_fitted(
    tmp_path: Path, data: ImageData, recipe: TrainConfig
) -> None:
    train(recipe, tmp_path / "run", data=data)
    assert load_run(tmp_path / "run").temperature == 1
    assert not (tmp_path / "run" / VALIDATION).exists()


@pytest.mark.parametrize(("changes", "argument"), [({"keep": "best"}, "keep"), ({"patience": 3}, "patience")])
def test_without_validation_images_nothing_can_be_chosen(
    tmp_path: Path, data: ImageData, recipe: TrainConfig, changes: dict[str, object], argument: str
) -> None:
    with pytest.raises(ArgumentError, match="val_fraction") as refused:
        train(replace(recipe, **changes), tmp_path / "run", data=data)
    assert refused.value.argument == argument
    assert not (tmp_path / "run").exists()


def test_a_fraction_is_held_out_by_name(tmp_path: Path) -> None:
    photos = write_digits(tmp_path / "photos", train=30, test=4, size=80)
    whole, parts = load_data(photos), hold_out_validation(load_data(photos), 0.2)
    assert sorted((*parts.train.paths, *parts.val.paths)) == sorted(whole.train.paths)
    assert parts.test.paths == whole.test.paths
    assert all(count >= 1 for part in (parts.train, parts.val) for count in part.labels.bincount().tolist())
    before = set(parts.val.paths)
    source = next((photos / "train" / "one").iterdir())
    (photos / "train" / "one" / "new.png").write_bytes(source.read_bytes())
    after = set(hold_out_validation(load_data(photos), 0.2).val.paths)
    assert {path for path in after ^ before if path.name != "new.png"} == set()


@pytest.mark.parametrize("fraction", [0.1, 0.5])
@pytest.mark.parametrize("identified", [False, True])
def test_about_the_fraction_is_held_out_of_arrays(data: ImageData, fraction: float, identified: bool) -> None:
    labels, generator = torch.arange(3000) % 3, torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3000, 3, 8, 8), dtype=torch.uint8, generator=generator)
    ids = pixel_ids(pixels) if identified else None
    many = replace(data, train=Split(labels, images=pixels, ids=ids))
    parts = hold_out_validation(many, fraction)
    assert len(parts.train) + len(parts.val) == 3000
    sd = np.sqrt(3000 * fraction * (1 - fraction))
    assert abs(len(parts.val) - 3000 * fraction) < 4 * sd


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    for size, folder in ((40, tmp_path / "small"), (100, tmp_path / "large")):
        generator = np.random.default_rng(0)
        for part in ("train", "test"):
            for at in range(120):
                scene = folder / part / ("cat", "dog")[at % 2] / f"scene{at:03}"
                scene.mkdir(parents=True)
                Image.fromarray(generator.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(scene / "rgb.png")
        assert 10 < len(hold_out_validation(load_data(folder), 0.2).val) < 40


def test_of_equal_epochs_the_first_is_the_best() -> None:
    for top1 in (0.32, 1 / 3, 0.7):
        best = BestWeights(torch.nn.Linear(2, 2))
        for epoch, nll in enumerate((0.5, 2.0, 0.5), 1):
            best.offer(torch.nn.Linear(2, 2), epoch, top1, nll)
        assert int(best.epoch) == 1


def test_a_class_of_one_image_and_a_second_val_part_are_refused(data: ImageData) -> None:
    single = replace(data, train=data.train.select(torch.tensor([0, 1, 2, 3, 4])))
    with pytest.raises(ArgumentError, match="'light' has 1"):
        hold_out_validation(single, 0.2)
    with pytest.raises(ArgumentError, match="ignored"):
        hold_out_validation(replace(data, val=data.test, val_split_description="val folder"), 0.2)
