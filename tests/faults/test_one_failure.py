"""Where one run fails the others go on, and what is finished is reported."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from selfdistill.data import ImageData
from selfdistill.progress import Display, OnProgress, Progress
from selfdistill.runs.executor import InThisProcess, Listener, Task
from selfdistill.runs.failures import FailedRunsError, Failure, forget_failures, noted_failure
from selfdistill.runs.grid import ExecutorConfig, plan_runs, run_grid
from selfdistill.training.run import load
from tests.faults.tiny import RECIPE, images, status

METHODS = ["SDDropout(weight=1e38)", "CrossEntropy()"]


def test_a_diverged_run_is_retried_on_request_alone(tmp_path: Path) -> None:
    runs = plan_runs(replace(RECIPE, epochs=1), METHODS, [0])
    folder, told, updates = tmp_path / runs[0].name, [], []

    class Notes(Display):
        def update(self, name: str, event: Progress) -> None:
            updates.append(name)

        def finish(self, name: str, line: str) -> None:
            told.append(line)

    def go() -> FailedRunsError:
        with pytest.raises(FailedRunsError) as failed:
            run_grid(runs, tmp_path, data=images(), display=Notes())
        return failed.value

    first = go()
    assert [record.method for record in first.records] == ["CrossEntropy()"]
    assert first.failures.keys() == {folder}
    assert first.failures[folder].diverged
    assert "epoch 1" in first.failures[folder].reason
    assert "`lr`" in first.failures[folder].reason
    of = images().fingerprint
    assert noted_failure(folder, runs[0].recipe, of) == first.failures[folder]
    assert noted_failure(folder, replace(runs[0].recipe, lr=0.01), of) is None, "another recipe may do better"
    assert noted_failure(folder, runs[0].recipe, load(replace(RECIPE, per_class=5)).fingerprint) is None, "or images"
    updates.clear()
    assert go().failures == first.failures
    assert updates == [], "a run that diverged was trained again"
    forget_failures([folder])
    assert go().failures == first.failures
    assert sum(line.startswith(f"{folder.name} failed: ") for line in told) == 3


def fail(name: str, data: ImageData, cpus: int | None, progress: OnProgress) -> str:
    if name == "b":
        raise OSError("b: no space left")
    return name


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_executor_does_the_tasks_behind_one_that_fails(jobs: int) -> None:
    tasks = [Task(Path(name), replace(RECIPE, epochs=1), partial(fail, name)) for name in "abcd"]
    done: dict[Path, str] = {}
    failed: dict[Path, Failure] = {}
    executor = InThisProcess(images()) if jobs == 1 else ExecutorConfig(jobs).make(images())
    executor.execute(tasks, Listener(lambda *_: None, done.__setitem__, failed.__setitem__), "")
    assert done == {Path(name): name for name in "acd"}
    assert failed == {Path("b"): Failure("no space left")}


def test_the_report_and_the_status_name_the_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--data digits --per-class 4 --test-per-class 2 --model resnet10_cifar --width 4 --threads 1 --quick"
    given = [*words.split(), "--epochs", 1, "--seeds", 1, "--out", tmp_path / "cmp", "--methods", *METHODS]
    assert status("compare", *given) == 2
    name = "sddropout-weight-1e-38-seed0"
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{name} failed: " in last
    assert "--retry-failed" in last
    for page in ("report.html", "report.md"):
        assert f"{name}: the loss was not finite at epoch 1" in (tmp_path / "cmp" / page).read_text()
