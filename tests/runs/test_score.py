import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from selfdistill.config import TrainConfig
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.runs.evaluation import BASIC_EVALUATION, measure
from selfdistill.runs.score import own_images, rescore
from selfdistill.train import load_run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(TrainConfig(data=str(pictures), model="resnet10_cifar", width=4, epochs=2, threads=1), out)
    return out


def own(run: Path) -> Evaluation:
    return measure(load_run(run), own_images(run), BASIC_EVALUATION)


def test_the_run_s_own_images(run: Path, pictures: Path) -> None:
    images, evaluation = own_images(run), own(run)
    assert (images.name, images.test_split_description, evaluation.n, evaluation.train_n) == (
        "digits3",
        "test folder",
        18,
        24,
    )


def test_other_images_are_preprocessed_as_the_runs_own(run: Path, pictures: Path, tmp_path: Path) -> None:
    evaluation = own(run)
    images, other = rescore(run, str(pictures / "test"), config=BASIC_EVALUATION)
    trained = load_run(run)
    assert (images.mean, images.std, images.test_split_description) == (trained.mean, trained.std, "all images")
    assert other.n == 18
    assert other.nll == pytest.approx(evaluation.nll, rel=1e-5)
    assert other.train_top1 is None
    _, split = rescore(run, str(pictures), config=BASIC_EVALUATION)  # a set that has a test part is scored on that
    assert split == Evaluation(**{**vars(evaluation), "train_n": None, "train_top1": None})


def test_large_files_without_a_test_part(photos: Path, tmp_path: Path) -> None:
    recipe = TrainConfig(
        data=str(photos), model="resnet10_cifar", width=4, epochs=1, batch_size=6, threads=1, workers=0
    )
    train(replace(recipe, image_size=72), tmp_path / "run")
    images, evaluation = rescore(tmp_path / "run", str(photos / "test"), config=BASIC_EVALUATION)
    assert images.test.paths is not None
    assert (evaluation.n, images.image_size) == (18, 72)
    assert evaluation.nll == pytest.approx(own(tmp_path / "run").nll, rel=1e-4)


def test_other_classes(run: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^digits has other classes than {run}: 10 instead of 3$"):
        rescore(run, "digits", config=BASIC_EVALUATION)
    shutil.copytree(pictures / "test", tmp_path / "renamed")
    (tmp_path / "renamed" / "two").rename(tmp_path / "renamed" / "deux")
    message = f"^renamed has other classes than {run}: class 0 is 'deux' instead of 'one'$"
    with pytest.raises(ValueError, match=message):
        rescore(run, str(tmp_path / "renamed"), config=BASIC_EVALUATION)


def test_arrays_say_their_classes(run: Path, tmp_path: Path) -> None:
    images = np.zeros((9, 8, 8), dtype=np.uint8)
    labels = np.arange(9) % 3
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match=r"set has other classes than .*: class 0 is '0' instead of 'one'"):
        rescore(run, str(tmp_path / "set.npz"), config=BASIC_EVALUATION)
    np.savez(tmp_path / "set.npz", images=images, labels=labels, classes=np.array(["one", "two", "zero"]))
    assert rescore(run, str(tmp_path / "set.npz"), config=BASIC_EVALUATION)[1].n == 9


def test_no_finished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no finished run: there is no model.json in it"):
        rescore(tmp_path, "digits", config=BASIC_EVALUATION)
    with pytest.raises(ValueError, match=r"^unknown data set 'nowhere'"):
        rescore(run, "nowhere", config=BASIC_EVALUATION)


def test_the_run_s_own_images_whose_classes_have_changed(run: Path, pictures: Path, tmp_path: Path) -> None:
    changed, copy = tmp_path / "changed", tmp_path / "copy"
    shutil.copytree(pictures, changed)
    shutil.copytree(run, copy)
    for part in ("train", "test"):
        (changed / part / "two").rename(changed / part / "deux")
    recipe = replace(TrainConfig.from_yaml(run / "recipe.yaml"), data_path=str(changed))
    (copy / "recipe.yaml").write_text(recipe.to_yaml())
    with pytest.raises(ValueError, match=r"^changed has other classes than .*: class 0 is 'deux' instead of 'one'$"):
        own_images(copy)
