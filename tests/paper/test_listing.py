"""What a table needs, and the commands that make it."""

import shlex
from pathlib import Path

import pytest
import yaml

from selfdistill.cli import main
from selfdistill.config import TrainConfig
from selfdistill.detect.config import DetectConfig
from selfdistill.paper import (
    TABLES,
    PaperConfig,
)
from selfdistill.paper.detection_table import Detector
from selfdistill.paper.listing import estimate_seconds, list_needs, write_commands
from selfdistill.paper.scales import (
    Training,
)
from selfdistill.runs.grid import is_trained
from tests.paper.conftest import Make


def test_needs_count_finished_runs_and_time_missing_ones(make: Make, out: Path, tmp_path: Path) -> None:
    make("table12")
    seconds: dict[Training, float] = {}
    done = list_needs(TABLES["table12"], PaperConfig("smoke", out), seconds)
    assert [(need.n_trained, need.n_runs, need.seconds) for need in done] == [(1, 1, None)] * 8
    assert seconds == {}
    fresh = list_needs(TABLES["table13"], PaperConfig("smoke", tmp_path), seconds)
    assert [(need.n_trained, need.n_runs) for need in fresh] == [(0, 1)] * 2
    assert all(0 < need.seconds_left < 60 for need in fresh)
    assert list(tmp_path.iterdir()) == []


def test_estimated_time_grows_with_the_epochs(tmp_path: Path) -> None:
    config = PaperConfig("smoke", tmp_path)
    recipe = config.plan_run(Training("CrossEntropy()"), 41).recipe
    once = estimate_seconds(Training("CrossEntropy()"), recipe, config)
    longer = TrainConfig(**{**vars(recipe), "epochs": 200})
    assert estimate_seconds(Training("CrossEntropy()"), longer, config) > 20 * once


def test_commands_make_the_missing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = PaperConfig("smoke", tmp_path)
    tables = [TABLES["table12"], TABLES["table9"]]
    commands = write_commands(tables, config)
    assert len(commands) == len(set(commands)) == 8 + 4 + 4 + 2
    words = shlex.split(commands[0])
    assert words[:2] == ["selfdistill", "train"]
    with pytest.raises(SystemExit) as end:
        main(words[1:])
    assert end.value.code == 0
    capsys.readouterr()
    planned = config.plan_run(Training("CrossEntropy()"), 41)
    assert is_trained(planned, config.runs)
    assert len(write_commands(tables, config)) == len(commands) - 1
    written = yaml.safe_load((tmp_path / "recipes" / f"{planned.name}.yaml").read_text())
    assert (written["seed"], written["method"]) == (41, "CrossEntropy()")


def test_commands_train_the_detectors_too(tmp_path: Path) -> None:
    config = PaperConfig("full", tmp_path / "out", tmp_path / "data", seeds=(41,))
    trainings, detectors = (
        [command for command in write_commands([TABLES["table4"]], config) if command.split()[1] == name]
        for name in ("train", "detect")
    )
    assert (len(trainings), len(detectors)) == (2, 4)
    words = shlex.split(next(command for command in detectors if command.endswith("0.5x")))
    run = config.runs / config.plan_run(Training("CrossEntropy()", "imagenet", "resnet152"), 41).name
    assert words[-1] == str(run / "detectors" / "0.5x")
    recipe = DetectConfig.from_yaml(Path(words[3]))
    assert (recipe.backbone, recipe.epochs, recipe.seed) == (str(run), 7, 41)
    assert recipe == Detector("0.5x").recipe(run, config, 41)
