"""Runs whose image files are decoded once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, files
from selfdistill.timing.budget import measure_step_seconds
from selfdistill.training import train

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


@pytest.fixture
def of_files(recipe: TrainConfig, tmp_path: Path) -> TrainConfig:
    return replace(
        recipe, epochs=2, augment="resized_crop_flip", method="DDGSD()", data_root=str(tmp_path / "data"), workers=0
    )


def test_a_run_with_a_cache_is_the_run_that_resizes(
    of_files: TrainConfig, photos: ImageData, tmp_path: Path, same_run: Callable[[Path, Path], None]
) -> None:
    train(replace(of_files, resize=18), tmp_path / "decoded", data=photos)
    train(of_files, tmp_path / "as_they_are", data=photos)
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read_rgb", None)  # not even what is scored is decoded again
        for workers in (0, 2):
            record = train(replace(of_files, cache=True, workers=workers), tmp_path / f"kept{workers}", data=photos)
            assert (record.recipe.resize, record.recipe.cache) == (18, True)
            same_run(tmp_path / "decoded", tmp_path / f"kept{workers}")
    weights = [load_file(tmp_path / name / "model.safetensors")["conv1.weight"] for name in ("kept0", "as_they_are")]
    assert not weights[0].equal(weights[1])
    (kept,) = (tmp_path / "data/cache").glob("*.pixels")
    assert kept.name.startswith("grey-")


def test_what_a_step_takes_is_measured_with_the_cache(of_files: TrainConfig, photos: ImageData) -> None:
    Path(of_files.data_root).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read_rgb", None)
        assert measure_step_seconds(replace(of_files, cache=True), photos, steps=2).step > 0
    assert len(list(Path(of_files.data_root, "cache").glob("*.pixels"))) == 1


def test_a_set_in_memory_has_no_cache(of_files: TrainConfig, data: ImageData, tmp_path: Path) -> None:
    record = train(replace(of_files, cache=True, augment="crop", epochs=1), tmp_path / "run", data=data)
    assert record.recipe.resize is None
    assert not (tmp_path / "data").exists()
