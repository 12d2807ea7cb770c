"""The examples run, learn something, and load the bare model that they saved."""

import os
import re
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


@pytest.fixture(name="bytecode", scope="module")
def _bytecode(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where Python keeps no compiled modules, let these programs share them: compiling is half of their time."""
    if not sys.dont_write_bytecode:
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}


TRAINING = [name for name in PROGRAMS if not name.startswith("serve")]


@pytest.mark.parametrize("program", [pytest.param(name, marks=LIKE_ANOTHER.get(name, ())) for name in TRAINING])
def test_example(program: str, tmp_path: Path, bytecode: dict[str, str]) -> None:
    if program in OPTIONAL:
        pytest.importorskip(OPTIONAL[program])
    launcher = TORCHRUN if "torchrun" in program else []
    own = []
    if program == "timm_pretrained.py":  # no download
        own = ["--weights", str(tmp_path / "pretrained.pt")]
        torch.save(timm.create_model("test_resnet").state_dict(), own[1])
    answer = subprocess.run(
        [sys.executable, *launcher, EXAMPLES / program, "--epochs", "2", "--out", tmp_path / "saved", *own],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=tmp_path,
        env=os.environ | bytecode | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    trained, tested = re.findall(r"train accuracy (0\.\d+|1\.0+), test accuracy (0\.\d+|1\.0+)", answer.stdout)[-1]
    (loaded,) = re.findall(r"the bare model, loaded from .*: test accuracy (0\.\d+|1\.0+)", answer.stdout)
    assert loaded == tested
    assert float(trained) > CHANCE.get(program, 0.1) + 0.02, answer.stdout


def test_the_list_names_every_program() -> None:
    assert sorted(re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text())) == PROGRAMS
