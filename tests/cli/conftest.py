"""Commands in an empty folder, in this process; images and a finished run."""

from pathlib import Path

import pytest

from selfdistill.cli import main
from tests.cli.shared import SMALL, Ran, Refused, Run, files_in
from tests.pictures import write_digits


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
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
