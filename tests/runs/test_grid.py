import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from selfdistill.config import TrainConfig
from selfdistill.errors import ArgumentError
from selfdistill.progress import TRAINING, Display
from selfdistill.records import NOT_COMPARED
from selfdistill.runs import executor
from selfdistill.runs.evaluation import BASIC_EVALUATION
from selfdistill.runs.executor import share_cpus
from selfdistill.runs.failures import FailedRunsError
from selfdistill.runs.grid import ExecutorConfig, is_finished, plan_runs, run_grid, slug
from selfdistill.training.run import load


def test_expand_goes_seed_by_seed_and_spells_methods_in_one_way(recipe: TrainConfig) -> None:
    cells = plan_runs(recipe, ["SDDropout(weight=0.10)", "LabelSmoothing()+SDDropout()"], [3, 1])
    assert [cell.name for cell in cells] == [
        "sddropout-weight-0.1-seed3",
        "labelsmoothing-sddropout-seed3",
        "sddropout-weight-0.1-seed1",
        "labelsmoothing-sddropout-seed1",
    ]
    assert (cells[0].recipe.method, cells[0].recipe.seed) == ("SDDropout(weight=0.1)", 3)
    assert {cell.recipe.width for cell in cells} == {4}


def test_a_method_is_compared_once(recipe: TrainConfig) -> None:
    with pytest.raises(ArgumentError, match=r"^`methods` "):
        plan_runs(recipe, ["SDDropout()", "CrossEntropy()", "SDDropout(p=0.5)"], [0])
    with pytest.raises(ValueError, match="unknown method 'SDDrop'"):
        plan_runs(recipe, ["SDDrop()"], [0])


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("CrossEntropy()", "crossentropy"),
        ("SDDropout(p=0.3, direction='reverse')", "sddropout-p-0.3-direction-reverse"),
        ("SDDropout(at='layer3.0')", "sddropout-at-layer3.0"),
        ("LabelSmoothing(eps=1e-05) + SDDropout()", "labelsmoothing-eps-1e-05-sddropout"),
    ],
)
def test_a_folder_name_has_no_odd_character(method: str, name: str) -> None:
    assert slug(method) == name


def test_jobs_share_the_processors_and_nothing_that_is_compared(
    recipe: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "cpu_count", lambda: 8)
    free = TrainConfig()
    assert share_cpus(free, 1) == free
    assert (share_cpus(free, 3).threads, share_cpus(free, 3).workers) == (2, 2)
    assert share_cpus(free, 20).threads == 1
    assert share_cpus(TrainConfig(threads=5, workers=0), 3) == TrainConfig(threads=5, workers=0)
    assert free.differences(share_cpus(free, 3)) == []
    assert {"threads", "workers"} <= NOT_COMPARED


def test_only_what_is_missing_is_run(recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(recipe)
    one = TrainConfig(**{**vars(recipe), "epochs": 1})
    cells = plan_runs(one, ["CrossEntropy()"], [0, 1])
    told: list[tuple[str, str]] = []
    display = Display()
    monkeypatch.setattr(display, "update", lambda name, event: told.append((event.stage, name)))
    monkeypatch.setattr(display, "finish", lambda name, line: told.append(("finished", name)))
    first = run_grid(cells[:1], tmp_path, data=data)
    assert [is_finished(cell, tmp_path, BASIC_EVALUATION) for cell in cells] == [True, False]
    records = run_grid(cells, tmp_path, data=data, display=display)
    assert records[0] == first[0]
    assert [record.seed for record in records] == [0, 1]
    assert told[0] == ("finished", "crossentropy-seed0")
    assert (TRAINING, "crossentropy-seed1") in told
    assert told[-1] == ("finished", "crossentropy-seed1")


@pytest.mark.parametrize("config", [{"jobs": 0}, {"cpus": 0, "ray": "auto"}, {"jobs": 2, "ray": "auto"}])
def test_executor_config_refuses_bad_numbers(config: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"^`{next(iter(config))}` "):
        ExecutorConfig(**config)


@pytest.mark.slow
def test_a_failed_process_is_named_and_the_others_go_on(
    recipe: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is killed from outside; then one whose data are gone fails."""
    data = load(recipe)
    cells = plan_runs(TrainConfig(**{**vars(recipe), "epochs": 20}), ["CrossEntropy()", "Dropout()"], [0])
    killed: list[int] = []

    def kill(name: str, event: object) -> None:
        if not killed and name.startswith("dropout"):
            killed.append(max(child.pid or 0 for child in multiprocessing.active_children()))  # started second
            os.kill(killed[0], signal.SIGKILL)

    display = Display()
    monkeypatch.setattr(display, "update", kill)
    with pytest.raises(FailedRunsError, match="dropout-seed0 failed: its process was killed by signal 9") as failed:
        run_grid(cells, tmp_path, data=data, executor=ExecutorConfig(jobs=2).make(data), display=display)
    assert multiprocessing.active_children() == []
    assert [record.method for record in failed.value.records] == ["CrossEntropy()"]
    gone = plan_runs(TrainConfig(**{**vars(recipe), "data": str(tmp_path / "gone")}), ["CrossEntropy()"], [5])
    with pytest.raises(RuntimeError, match=r"crossentropy-seed5 failed: .*unknown data set '.*gone'"):
        run_grid(gone, tmp_path, data=data, executor=ExecutorConfig(jobs=2).make(data))
