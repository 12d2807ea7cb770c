import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.records import Evaluation
from selfdistill.runs import evaluation, score
from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig, measure
from selfdistill.runs.score import other_images, own_images, score_run
from selfdistill.training import load_run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(TrainConfig(data=str(pictures), model="resnet10_cifar", width=4, epochs=2, threads=1), out)
    return out


def own(run: Path) -> Evaluation:
    loaded = load_run(run)
    return measure(loaded, own_images(run, loaded), BASIC_EVALUATION)


def rescore(run: Path, data: str) -> tuple[ImageData, Evaluation]:
    loaded = load_run(run)
    images = other_images(run, loaded, data, BASIC_EVALUATION)
    return images, measure(loaded, images, BASIC_EVALUATION, train=False)


def test_the_run_s_own_images(run: Path, pictures: Path) -> None:
    images, evaluation = own_images(run, load_run(run)), own(run)
    assert (images.name, images.test_split_description, evaluation.n, evaluation.train_n) == (
        "digits3",
        "test folder",
        18,
        24,
    )


def test_other_images_are_preprocessed_as_the_runs_own(run: Path, pictures: Path, tmp_path: Path) -> None:
    evaluation = own(run)
    images, other = rescore(run, str(pictures / "test"))
    trained = load_run(run)
    assert (images.mean, images.std, images.test_split_description) == (trained.mean, trained.std, "all images")
    assert other.n == 18
    assert other.nll == pytest.approx(evaluation.nll, rel=1e-5)
    assert other.train_top1 is None
    _, split = rescore(run, str(pictures))  # a set that has a test part is scored on that
    assert split == msgspec.structs.replace(evaluation, train_n=None, train_top1=None)


def test_large_files_without_a_test_part(photos: Path, tmp_path: Path) -> None:
    recipe = TrainConfig(
        data=str(photos), model="resnet10_cifar", width=4, epochs=1, batch_size=6, threads=1, workers=0
    )
    train(replace(recipe, image_size=72), tmp_path / "run")
    images, evaluation = rescore(tmp_path / "run", str(photos / "test"))
    assert images.test.paths is not None
    assert (evaluation.n, images.image_size) == (18, 72)
    assert evaluation.nll == pytest.approx(own(tmp_path / "run").nll, rel=1e-4)


def test_other_classes(run: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"other classes than {run}: 10 instead of 3"):
        rescore(run, "digits")
    shutil.copytree(pictures / "test", tmp_path / "renamed")
    (tmp_path / "renamed" / "two").rename(tmp_path / "renamed" / "deux")
    with pytest.raises(ValueError, match="class 0 is 'deux' instead of 'one'"):
        rescore(run, str(tmp_path / "renamed"))


def test_arrays_say_their_classes(run: Path, tmp_path: Path) -> None:
    images = np.zeros((9, 8, 8), dtype=np.uint8)
    labels = np.arange(9) % 3
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match="class 0 is '0' instead of 'one'"):
        rescore(run, str(tmp_path / "set.npz"))
    np.savez(tmp_path / "set.npz", images=images, labels=labels, classes=np.array(["one", "two", "zero"]))
    assert rescore(run, str(tmp_path / "set.npz"))[1].n == 9


def test_no_finished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a finished run"):
        rescore(tmp_path, "digits")
    with pytest.raises(ValueError, match="unknown data set 'nowhere'"):
        rescore(run, "nowhere")


def test_the_run_s_own_images_whose_classes_have_changed(run: Path, pictures: Path, tmp_path: Path) -> None:
    changed, copy = tmp_path / "changed", tmp_path / "copy"
    shutil.copytree(pictures, changed)
    shutil.copytree(run, copy)
    for part in ("train", "test"):
        (changed / part / "two").rename(changed / part / "deux")
    recipe = replace(TrainConfig.from_yaml(run / "recipe.yaml"), data_path=str(changed))
    (copy / "recipe.yaml").write_text(recipe.to_yaml())
    with pytest.raises(ValueError, match="class 0 is 'deux' instead of 'one'"):
        own_images(copy, load_run(copy))


@pytest.mark.parametrize("config", [BASIC_EVALUATION, EvaluationConfig(measures=("robustness",), max_images=3)])
@pytest.mark.parametrize("others", [True, False])
def test_the_weights_are_loaded_once(
    run: Path, pictures: Path, config: EvaluationConfig, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    for module in (score, evaluation):
        monkeypatch.setattr(module, "load_run", lambda path: loads.append(path) or load_run(path))
    score_run(run, str(pictures / "test") if others else None, config)
    assert loads == [run]
