"""Commands in an empty folder, in this process; images and a finished run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfdistill.cli import main
from selfdistill.data import load_unlabelled
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.timing.budget import measure_step_seconds
from tests.cli.shared import SMALL, Ran, Refused, Run, files_in
from tests.pictures import write_digits


def few_unlabelled(*words: Any, **options: Any) -> Unlabelled:
    """Load an out-of-distribution set, and use 40 of its images: ODIN scores each of them some forty times."""
    found = load_unlabelled(*words, **options)
    return replace(found, split=found.split.spaced(40))


@pytest.fixture
def run(whole_run: Run, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command as `whole_run` does, without drawing, with few timed steps and few out-of-distribution images."""
    monkeypatch.setattr(measure_step_seconds, "__defaults__", (2,))
    monkeypatch.setattr("selfdistill.runs.evaluation.load_unlabelled", few_unlabelled)
    return whole_run


@pytest.fixture
def whole_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder: ``run("train", "--data", "digits")``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def command(*words: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        return Ran(int(str(end.value.code)), *capsys.readouterr())

    return command


@pytest.fixture
def refused(run: Run) -> Refused:
    """Run a command that must fail with one line and write nothing at all; returns the line."""

    def command(*words: object) -> str:
        before = files_in(Path.cwd())
        ran = run(*words)
        assert ran.status == 2, ran
        assert ran.err.startswith("selfdistill: error: ")
        assert ran.err.count("\n") == 1, ran.err
        assert ran.out == ""
        assert files_in(Path.cwd()) == before
        return ran.err.removeprefix("selfdistill: error: ").rstrip("\n")

    return command


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("pictures") / "digits3", train=8, test=6)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """One finished run on the pictures."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.raises(SystemExit) as end:
        main(["train", "--data", str(pictures), *SMALL, "--epochs", "3", "--lr", "0.05", "--out", str(out)])
    assert end.value.code == 0
    return out
