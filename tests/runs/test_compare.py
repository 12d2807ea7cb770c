import re
from dataclasses import replace
from pathlib import Path

import pytest

from selfdistill.config import TrainConfig
from selfdistill.errors import ArgumentError
from selfdistill.runs import compare as room
from selfdistill.runs import folders
from selfdistill.runs.compare import _parallel_runs
from selfdistill.timing.budget import Timing
from tests.runs.conftest import Compare


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The recipes whose steps are measured: each epoch is said to take 1 s, and the end of a run 10 s."""
    recipes: list[TrainConfig] = []

    def measure(recipe: TrainConfig, data: object, steps: int) -> Timing:
        recipes.append(recipe)
        return Timing(step=0.1, steps=10, evaluation=0, final=10, eval_every=1)

    monkeypatch.setattr(room, "measure_step_seconds", measure)
    return recipes


def test_records_come_method_by_method_in_the_order_given(compare: Compare, tmp_path: Path) -> None:
    records = compare(methods=["LabelSmoothing()", "CrossEntropy()"], seeds=2)
    assert [(record.method, record.seed) for record in records] == [
        ("LabelSmoothing()", 0),
        ("LabelSmoothing()", 1),
        ("CrossEntropy()", 0),
        ("CrossEntropy()", 1),
    ]
    assert not (tmp_path / "runs" / "linear_probe.json").exists(), "only pretrained weights have one"


def test_the_budget_sets_the_epochs_and_going_on_keeps_them(
    compare: Compare, measured: list[TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    records = compare(epochs=None, budget="26s")  # (26 - 2 * 10) s for two runs
    assert [record.epochs for record in records] == [3, 3]
    assert [recipe.method for recipe in measured] == ["CrossEntropy()", "LabelSmoothing()"]
    assert "about 0:26 for 2 runs of 3 epochs (0:01 an epoch)" in capsys.readouterr().err
    measured.clear()
    more = compare(epochs=None, budget="2h", methods=["CrossEntropy()", "LabelSmoothing()", "Dropout()"])
    assert [record.epochs for record in more] == [3, 3, 3], "other epochs could not be compared"
    assert [recipe.method for recipe in measured] == ["Dropout()"], "what is there is not measured"
    assert re.search(r"^2 of 3 runs are in .*runs already$", capsys.readouterr().err, re.MULTILINE)
    assert [record.epochs for record in compare(epochs=None)] == [3, 3]
    assert len(measured) == 1


def test_what_to_expect_stands_behind_the_plan(
    compare: Compare, measured: list[TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    compare(epochs=2, methods=["CrossEntropy()", "SDDropout()"])
    plan, expected, *_ = capsys.readouterr().err.splitlines()
    assert plan.startswith("digits: 40 training images")
    assert expected.startswith("a schedule of 2 epochs from scratch is short")


def test_a_long_budget_is_not_used_up(compare: Compare, recipe: TrainConfig, measured: list[TrainConfig]) -> None:
    short = replace(recipe, epochs=2)
    assert {record.epochs for record in compare(epochs=None, budget="9h", recipe=short)} == {2}


def test_a_budget_that_is_too_short(compare: Compare, measured: list[TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^`budget` 0:21 is too short: one epoch of 2 run\(s\) takes about 0:22;"):
        compare(epochs=None, budget="21s")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_said_before_anything_is_measured(
    compare: Compare, measured: list[TrainConfig], recipe: TrainConfig, tmp_path: Path
) -> None:
    compare()
    measured.clear()
    with pytest.raises(ValueError, match=r"crossentropy-seed0 belongs to another recipe: epochs \(1 there, 2 here\)"):
        compare(epochs=2, methods=["Dropout()", "CrossEntropy()"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file is a file, not a folder: choose another `out`$"):
        compare(out=tmp_path / "file" / "runs")
    with pytest.raises(ValueError, match=r"^`warmup_epochs` must be below `epochs` \(5\), not 9"):
        compare(recipe=TrainConfig(**{**vars(recipe), "warmup_epochs": 9}), epochs=5)
    assert measured == []
    assert not (tmp_path / "runs" / "dropout-seed0").exists()


def test_a_folder_that_may_not_be_written(
    compare: Compare, measured: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)  # as root every folder may be written
    with pytest.raises(OSError, match=f"{re.escape(str(tmp_path))}.*`out`"):
        compare()
    assert measured == []


@pytest.mark.parametrize("option", ["seeds", "epochs", "jobs"])
def test_numbers_below_one(compare: Compare, option: str) -> None:
    with pytest.raises(ArgumentError) as error:
        compare(**{option: 0})
    assert error.value.argument == option


def test_how_many_runs_go_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "cpu_count", lambda: 4)
    assert _parallel_runs(runs=12, jobs=2, on_cpu=True) == 2
    assert _parallel_runs(runs=3, jobs=2, on_cpu=True) == 1.5, "two rounds"
    assert _parallel_runs(runs=1, jobs=2, on_cpu=True) == 1
    assert _parallel_runs(runs=16, jobs=16, on_cpu=True) == 4, "more jobs than processors do not help"
    assert _parallel_runs(runs=12, jobs=2, on_cpu=False) == 1, "a GPU is shared"
