"""What calibration finds and keeps, on which images, and that the run's own images are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selfdistill.config import TrainConfig
from selfdistill.data import eval_batches
from selfdistill.errors import ArgumentError
from selfdistill.evaluation.ood.detectors import OF_FEATURES, Detectors
from selfdistill.evaluation.temperature import fit_temperature
from selfdistill.records import VALIDATION, Predictions
from selfdistill.runs.calibrate import calibrate_run, describe
from selfdistill.runs.evaluation import BASIC_EVALUATION
from selfdistill.runs.score import other_images, own_images
from selfdistill.training import load_run, train
from tests.pictures import write_digits


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("images") / "digits3", train=12, test=6)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits that are neither in the training nor in the test images."""
    return write_digits(tmp_path_factory.mktemp("unseen") / "digits3", train=18, test=20) / "test"


@pytest.fixture(params=[0.0, 0.3])
def run(request: pytest.FixtureRequest, images: Path, tmp_path: Path) -> Path:
    recipe = TrainConfig(data=str(images), model="resnet10_cifar", width=4, epochs=2, threads=1, workers=0)
    train(replace(recipe, val_fraction=request.param), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("run", [0.0], indirect=True)
def test_without_validation_images_others_are_asked_for(run: Path) -> None:
    with pytest.raises(ArgumentError, match="was trained without validation images") as refused:
        calibrate_run(run, None, BASIC_EVALUATION)
    assert refused.value.argument == "data"
    assert not (run / VALIDATION).exists()


@pytest.mark.parametrize("run", [0.3], indirect=True)
def test_the_validation_images_are_read_anew(run: Path) -> None:
    before = load_run(run)
    outputs = Predictions.load(run, None, VALIDATION)
    found = calibrate_run(run, None, BASIC_EVALUATION)
    again = Predictions.load(run, None, VALIDATION)
    assert outputs is not None
    assert again is not None
    torch.testing.assert_close(torch.tensor(again.logits), torch.tensor(outputs.logits), atol=1e-5, rtol=1e-5)
    assert found.temperature == load_run(run).temperature == pytest.approx(before.temperature, rel=1e-4)


def test_other_images_give_temperature_and_detectors(run: Path, unseen: Path) -> None:
    found = calibrate_run(run, str(unseen), BASIC_EVALUATION)
    loaded = load_run(run)
    images = other_images(run, loaded, str(unseen), BASIC_EVALUATION)
    (x, y), *_ = eval_batches(images.test, images, batch_size=64, device="cpu")
    with torch.no_grad():
        logits = loaded.model(x)
    outputs, detectors = Predictions.load(run, None, VALIDATION), Detectors.load(run)
    assert outputs is not None
    assert detectors is not None
    torch.testing.assert_close(torch.tensor(outputs.logits), logits, atol=1e-5, rtol=1e-5)
    assert loaded.temperature == found.temperature == pytest.approx(fit_temperature(logits, y), rel=1e-4)
    assert detectors.neighbours is not None
    assert len(detectors.neighbours.directions) == len(own_images(run, loaded).train)
    assert detectors.thresholds == found.detectors.thresholds
    assert list(detectors.thresholds) == ["energy", "max_softmax", *OF_FEATURES]
    passed = detectors.scores("energy", outputs.logits) >= detectors.thresholds["energy"]
    assert passed.sum() == 57
    assert "60 images of test (all images)" in describe(found)[0]


@pytest.mark.parametrize("part", ["test", "train"])
def test_images_that_the_run_has_seen_are_refused(run: Path, images: Path, part: str) -> None:
    before = (run / "model.json").read_bytes()
    with pytest.raises(ArgumentError, match=f"are its {part} images") as refused:
        calibrate_run(run, str(images / part), BASIC_EVALUATION)
    assert refused.value.argument == "data"
    assert (run / "model.json").read_bytes() == before


def test_the_record_alone_tells_the_test_images(run: Path, images: Path) -> None:
    (run / "recipe.yaml").unlink()
    with pytest.raises(ArgumentError, match="are its test images"):
        calibrate_run(run, str(images / "test"), BASIC_EVALUATION)


def test_without_the_training_images_the_detectors_of_features_are_missing(run: Path, unseen: Path) -> None:
    (run / "recipe.yaml").unlink()
    found = calibrate_run(run, str(unseen), BASIC_EVALUATION)
    assert found.detectors.thresholds.keys() == {"energy", "max_softmax"}
    assert describe(found)[-1].startswith("Without mahalanobis, knn, vim, react, dice and ash")
