"""A tiny recipe on real digits, and records of runs on them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from selfdistill.config import TrainConfig
from selfdistill.records import RunRecord
from selfdistill.runs.compare import run_comparison
from selfdistill.timing.budget import measure_step_seconds
from tests.pictures import write_digits

Compare = Callable[..., list[RunRecord]]


@pytest.fixture
def recipe() -> TrainConfig:
    return TrainConfig(data="digits", per_class=4, test_per_class=4, model="resnet10_cifar", width=4, threads=1)


@pytest.fixture
def compare(recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Compare CrossEntropy() and LabelSmoothing() with one seed; what is given replaces the settings."""
    monkeypatch.setattr(measure_step_seconds, "__defaults__", (2,))  # few steps are timed

    def run(**changed: object) -> list[RunRecord]:
        settings = {"seeds": 1, "epochs": 1, "jobs": 1, "out": tmp_path / "runs", "recipe": recipe}
        settings |= {"methods": ["CrossEntropy()", "LabelSmoothing()"]} | changed
        return run_comparison(settings.pop("recipe"), settings.pop("methods"), **settings)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("pictures") / "digits3", train=8, test=6)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as images of 80 pixels, which are decoded while they are used."""
    return write_digits(tmp_path_factory.mktemp("photos") / "digits3", train=4, test=6, size=80)
