"""A run of a model of one's own, on images of 1, 3 and 5 channels: trained, found again by its name, evaluated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from selfdistill.config import TrainConfig
from selfdistill.data.arrays import to_channels
from selfdistill.errors import ArgumentError
from selfdistill.evaluation.corruptions import corrupt
from selfdistill.evaluation.corruptions.measure import _corrupt
from selfdistill.runs.compare import run_comparison
from selfdistill.runs.evaluation import EvaluationConfig
from selfdistill.runs.export import export_run
from selfdistill.runs.external import load_external
from selfdistill.runs.predict import predict_files
from selfdistill.runs.score import score_run
from selfdistill.training import load_run, train
from selfdistill.training.run import load


def small(channels: int) -> nn.Module:
    convolution = nn.Conv2d(channels, 4, 3, stride=2)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    )


def grey() -> nn.Module:
    return small(1)


def five() -> nn.Module:
    return small(5)


@pytest.fixture
def recipe(tmp_path: Path) -> TrainConfig:
    """Grey digits of 16 pixels for `grey`."""
    digits = load_digits()
    images = (digits.images[:200] * 15).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    np.savez(tmp_path / "grey.npz", images=images, labels=digits.target[:200])
    np.savez(tmp_path / "five.npz", images=np.stack([images] * 5, axis=-1), labels=digits.target[:200])
    return TrainConfig(data=str(tmp_path / "grey.npz"), model=f"{__name__}:grey", epochs=1, threads=1, batch_size=40)


def test_images_keep_their_channels_and_size_for_an_own_model(recipe: TrainConfig) -> None:
    images = load(recipe)
    assert images.train.images is not None
    assert images.train.images.shape[1:] == (1, 16, 16)
    assert len(images.mean) == len(images.std) == 1
    of_ours = load(replace(recipe, model=None))
    assert of_ours.train.images is not None
    assert of_ours.train.images.shape[1:] == (3, 32, 32)


def test_a_grey_network_is_built_again_by_name(recipe: TrainConfig, tmp_path: Path, pictures: Path) -> None:
    run = tmp_path / "run"
    record = train(replace(recipe, method="DML()"), run)
    assert record.recipe.model == recipe.model
    found = score_run(run, None, EvaluationConfig(max_images=8, max_ood_images=8)).evaluation
    assert found.top1 == record.evaluation.top1
    assert found.omitted == ()
    assert found.shift is not None
    assert found.ood
    images = next(pictures.glob("test/*/*.png"))
    ((prediction,), _) = predict_files(load_run(run), [images])  # a picture in colour
    assert sum(prediction.probabilities) == pytest.approx(1)
    assert export_run(run, "safetensors").difference == 0
    external = load_external(str(recipe.model), run / "model.safetensors", recipe.data, data_root=Path("data"))
    for name, value in load_run(run).model.state_dict().items():
        assert torch.equal(value, external.model.state_dict()[name])


def test_five_channels_leave_out_what_is_in_colour(recipe: TrainConfig, tmp_path: Path) -> None:
    recipe = replace(recipe, model=f"{__name__}:five", data=str(tmp_path / "five.npz"))
    train(recipe, tmp_path / "run")
    found = score_run(tmp_path / "run", None, EvaluationConfig(max_images=8)).evaluation
    assert found.robustness is not None
    assert (found.shift, found.ood, len(found.omitted)) == (None, (), 2)
    with pytest.raises(ArgumentError) as raised:
        score_run(tmp_path / "run", None, EvaluationConfig(ood=("svhn",)))
    assert raised.value.argument == "ood"
    with pytest.raises(ArgumentError) as raised:
        train(replace(recipe, auto_augment="trivial"), tmp_path / "other")
    assert raised.value.argument == "auto_augment"


def test_a_model_of_other_channels_or_classes_is_refused(recipe: TrainConfig, tmp_path: Path) -> None:
    for wrong in (replace(recipe, model=f"{__name__}:five"), replace(recipe, classes=9)):
        with pytest.raises(ArgumentError) as raised:
            run_comparison(wrong, ["CrossEntropy()"], seeds=1, epochs=1, jobs=1, out=tmp_path / "cmp")
        assert raised.value.argument == "model"


def test_grey_images_are_corrupted_as_grey_ones_in_colour() -> None:
    images = torch.randint(256, (2, 1, 16, 16), dtype=torch.uint8)
    got = _corrupt(images, "gaussian_noise", 3, seed=0)
    red, green, blue = corrupt(images.repeat(1, 3, 1, 1), "gaussian_noise", 3).double().unbind(1)
    assert torch.equal(got[:, 0], (0.299 * red + 0.587 * green + 0.114 * blue + 0.5).floor().to(torch.uint8))


def test_equal_channels_become_grey_and_colour_again() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert torch.equal(to_channels(to_channels(images, 3), 1), images)
    with pytest.raises(ValueError, match="5"):
        to_channels(images, 5)
