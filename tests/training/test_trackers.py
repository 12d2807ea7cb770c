"""Curves in trackers; those of Weights & Biases and MLflow where the extra [trackers] is installed, in local stores."""

import csv
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.runs.grid import plan_runs
from selfdistill.training import train
from selfdistill.training.trackers import make_tracker

COLUMNS = ("loss", "ce", "sdd", "test_top1", "lr")


def column(run: Path, name: str) -> list[float]:
    with (run / "log.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_tensorboard_has_the_logs_columns(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(replace(recipe, log="tensorboard"), tmp_path, data=data)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in COLUMNS:
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [1, 2, 3]
        assert [event.value for event in scalars] == pytest.approx(column(tmp_path, name), rel=1e-6)


def test_a_tracker_that_is_not_installed_is_refused_at_the_start(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfdistill.training.trackers.find_spec", lambda name: None)
    with pytest.raises(ArgumentError) as refused:
        train(replace(recipe, log="wandb"), tmp_path / "run", data=data)
    assert refused.value.argument == "log"
    assert "selfdistill[trackers]" in refused.value.problem
    assert not (tmp_path / "run").exists()
    with pytest.raises(ArgumentError):
        plan_runs(replace(recipe, log="mlflow"), ["SDDropout()"], [0])


def test_a_tracker_that_cannot_start_leaves_nothing(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfdistill.training.run.check_tracker", lambda log: None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ArgumentError) as refused:
        train(replace(recipe, log="wandb"), tmp_path / "run", data=data)
    assert refused.value.argument == "log"
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs the extra [trackers]")
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_one_run_of_mlflow(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    train(replace(recipe, log="mlflow"), tmp_path / "run", data=data)
    make_tracker("mlflow", tmp_path / "run", {"epochs": recipe.epochs}, 3).close()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("selfdistill")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.data.params["epochs"] == "3"
    for name in COLUMNS:
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == [1, 2, 3]
        assert [point.value for point in history] == pytest.approx(column(tmp_path / "run", name))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra [trackers]")
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_one_offline_run_for_each_folder(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("one", "two"):
        train(replace(recipe, log="wandb", epochs=1), tmp_path / name, data=data)
    made = [list((tmp_path / name / "wandb").glob("offline-run-*/run-*.wandb")) for name in ("one", "two")]
    assert [len(files) for files in made] == [1, 1]
    assert made[0][0].name != made[1][0].name
