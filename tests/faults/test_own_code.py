"""Exceptions in a user's own model: one line that names the place, the traceback on request, and nothing left."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from selfdistill.data import ImageData
from selfdistill.own_code import OwnCodeError, raised_in_own_code
from selfdistill.progress import OnProgress
from selfdistill.runs.executor import InThisProcess, Listener, Task
from selfdistill.runs.failures import Failure
from selfdistill.training import train
from tests.cli.shared import Refused, Run
from tests.faults.tiny import RECIPE, images, replace

NETS = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.body, self.fc = how, nn.Conv2d(3, 4, 3, 4), nn.Linear(256, 10)
    def features(self, x):
        return self.body(x).flatten(1)
    def forward(self, x):
        if self.how == "always": raise KeyError("x")
        if self.how == "training" and self.training and len(x) > 2: raise TypeError("first\\nsecond")
        if self.how == "evaluation" and not self.training and len(x) > 2: assert len(x) < 3, "few"
        if self.how == "library" and len(x) > 2: return self.fc(x)
        if self.how == "no_grad":
            with torch.no_grad(): return self.fc(self.features(x))
        if self.how == "numpy": return torch.from_numpy(self.fc(self.features(x)).detach().numpy())
        return self.fc(self.features(x))
def always(): return Net("always")
def training(): return Net("training")
def evaluation(): return Net("evaluation")
def library(): return Net("library")
def no_grad(): return Net("no_grad")
def numpy(): return Net("numpy")
def good(): return Net("")
def divides(): return 1 / 0
"""
_WORDS = "--data digits --per-class 4 --test-per-class 2 --epochs 1 --threads 1 --batch-size 16"
WORDS = _WORDS.split()
LINES = {
    "divides": "divides (nets.py, line 26) raised ZeroDivisionError: division by zero",
    "always": "Net.forward (nets.py, line 11) raised KeyError: 'x'",
    "training": "Net.forward (nets.py, line 12) raised TypeError: first second",
    "evaluation": "Net.forward (nets.py, line 13) raised AssertionError: few",
    "library": "Net.forward (nets.py, line 14) raised RuntimeError: ",
}


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of a user in the current folder."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "reads_words.py").write_text("import sys\nsys.exit(2)\n")
    (tmp_path / "fails.py").write_text("x = {}['k']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("nets", "reads_words", "fails"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("how", LINES)
def test_an_error_in_a_model_names_its_place(nets: None, run: Run, how: str) -> None:
    status, _, err = run("train", *WORDS, "--model", f"nets:{how}", "--out", "a/run")
    *_, line = err.splitlines()
    assert status == 2
    assert "Traceback" not in err
    assert line.startswith("selfdistill: error: ")
    assert LINES[how] in line
    assert line.endswith("; -v shows the traceback")
    assert not Path("a").exists()


def test_other_commands_name_the_place(nets: None, refused: Refused, run: Run) -> None:
    compare = ["compare", *WORDS, "--seeds", 1, "--quick", "--out", "cmp"]
    assert LINES["training"] in refused(*compare, "--model", "nets:training")
    methods = ["methods", "--image-size", 64, "--batch-size", 4]
    assert "Net.forward (nets.py, line 18) raised RuntimeError: " in run(*methods, "--model", "nets:good").err


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("fails", "fails (fails.py, line 1) raised KeyError: 'k'"),
        ("reads_words", "reads_words (reads_words.py, line 2) raised SystemExit: 2"),
    ],
)
def test_a_module_that_fails_is_named(nets: None, refused: Refused, module: str, said: str) -> None:
    line = refused("train", *WORDS, "--model", f"{module}:net", "--out", "run")
    assert line == f"--model is '{module}:net', whose module fails: {said}; -v shows the traceback"


def test_verbose_shows_the_traceback(nets: None, run: Run) -> None:
    status, _, err = run("train", *WORDS, "--model", "nets:training", "--out", "run", "-v")
    assert status == 2
    assert 'nets.py", line 12, in forward\n' in err
    assert err.endswith(f"selfdistill: error: {LINES['training']}\n")


@pytest.mark.parametrize(("how", "said"), [("no_grad", "torch.no_grad()"), ("numpy", "detach()")])
def test_a_refused_first_step_leaves_nothing(nets: None, refused: Refused, how: str, said: str) -> None:
    assert said in refused("train", *WORDS, "--model", f"nets:{how}", "--method", "CrossEntropy()", "--out", "a/run")


def test_in_python_a_model_s_own_error_comes_through(tmp_path: Path, nets: None) -> None:
    recipe = replace(RECIPE, model="nets:training", width=None)
    with pytest.raises(TypeError, match="first\nsecond"):
        train(recipe, tmp_path / "run", data=images())
    assert not (tmp_path / "run").exists()


def fail(how: str, data: ImageData, cpus: int | None, progress: OnProgress) -> Any:
    return train(replace(RECIPE, model=f"nets:{how}", width=None, epochs=1), "runs/" + how, data=data)


def test_the_runs_behind_a_failing_model_go_on(nets: None) -> None:
    failed: dict[Path, Failure] = {}
    done: dict[Path, object] = {}
    tasks = [Task(Path("runs", how), RECIPE, partial(fail, how)) for how in ("evaluation", "good")]
    InThisProcess(images()).execute(tasks, Listener(lambda *_: None, done.__setitem__, failed.__setitem__), "")
    assert list(done) == [Path("runs/good")]
    assert failed == {Path("runs/evaluation"): Failure(LINES["evaluation"])}
    assert "Traceback" in failed[Path("runs/evaluation")].traceback


def test_our_own_errors_are_not_the_user_s() -> None:
    with pytest.raises(ValueError, match="unknown method") as raised:
        train(replace(RECIPE, method="SDDroput()"), "run", data=images())
    assert raised_in_own_code(raised.value) is None
    assert raised_in_own_code(OwnCodeError("here")) is None
