"""Commands on image files that are decoded once."""

from dataclasses import replace
from pathlib import Path

import pytest

from selfdistill.config import TrainConfig
from selfdistill.runs.score import own_images
from selfdistill.runs.single import run_single
from selfdistill.training import load_run

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


def test_a_run_names_its_cache_and_evaluation_makes_none(
    photos: Path, recipe: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    recipe = replace(
        recipe,
        data=str(photos),
        data_root=str(root),
        image_size=72,
        per_class=None,
        test_per_class=None,
        epochs=1,
        workers=0,
        cache=True,
    )
    options = {"devices": 1, "nodes": 1, "accelerator": "cpu"}
    record, out = run_single(recipe, tmp_path / "run", **options)  # type: ignore[arg-type]
    assert record is not None
    (kept,) = (root / "cache").glob("*.pixels")
    assert f"72 px, decoded into {kept} (delete it when you like); resnet10_cifar" in capsys.readouterr().err
    kept.unlink()
    images = own_images(out, load_run(out))
    assert images.train.cache is None
    assert list((root / "cache").glob("*.pixels")) == []
