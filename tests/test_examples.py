"""The examples run, learn something, and load the bare model that they saved."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
CHANCE = {"huggingface_text.py": 1 / 3}
LIKE_ANOTHER = {"huggingface_text.py": pytest.mark.slow}  # of the images; most of its time goes into the import


OPTIONAL = {"huggingface_dataset.py": "datasets", "optuna_search.py": "optuna"}
"""What a program needs beyond the package and its command line."""


TRAINING = [name for name in PROGRAMS if not name.startswith("serve")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", [pytest.param(name, marks=LIKE_ANOTHER.get(name, ())) for name in TRAINING])
def test_example(
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if program in OPTIONAL:
        pytest.importorskip(OPTIONAL[program])
    words = ["--epochs", "2", "--out", str(tmp_path / "saved")]
    if program == "timm_pretrained.py":  # no download
        words += ["--weights", str(tmp_path / "pretrained.pt")]
        torch.save(timm.create_model("test_resnet").state_dict(), words[-1])
    for name, value in {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    if "torchrun" in program:  # the others run in this process, which has imported the packages already
        command = [sys.executable, *TORCHRUN, str(EXAMPLES / program), *words]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        said = answer.stdout
    else:
        monkeypatch.setattr(sys, "argv", [program, *words])
        runpy.run_path(str(EXAMPLES / program), run_name="__main__")
        said = capsys.readouterr().out
    trained, tested = re.findall(r"train accuracy (0\.\d+|1\.0+), test accuracy (0\.\d+|1\.0+)", said)[-1]
    (loaded,) = re.findall(r"the bare model, loaded from .*: test accuracy (0\.\d+|1\.0+)", said)
    assert loaded == tested
    assert float(trained) > CHANCE.get(program, 0.1) + 0.02, said


def test_the_list_names_every_program() -> None:
    assert sorted(re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())) == PROGRAMS
