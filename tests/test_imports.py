"""What an import pulls in: the command line's help needs no torch, the core needs torch alone."""

import subprocess
import sys

import pytest

import selfdistill

HEAVY = [
    "torchvision",
    "timm",
    "transformers",
    "sklearn",
    "scipy",
    "lightning",
    "lightning_fabric",
    "accelerate",
    "torchmetrics",
    "matplotlib",
    "yaml",
    "PIL",
]


def loaded_after(code: str, packages: list[str]) -> list[str]:
    """Return which of these packages a fresh interpreter has loaded after running ``code``."""
    report = f"import sys; print(*(name for name in {packages!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_package_imports_no_torch() -> None:
    code = "import selfdistill; dir(selfdistill); selfdistill.__version__"
    assert loaded_after(code, ["torch", "numpy", *HEAVY]) == []


def test_the_core_imports_torch_alone() -> None:
    code = "\n".join(
        [
            "import selfdistill, torch, selfdistill.integrations.batches",
            "model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))",
            "method = selfdistill.parse_method('SDDropout() + LabelSmoothing()')",
            "selfdistill.SelfDistiller(model, method)(torch.zeros(2, 4), torch.tensor([0, 1])).loss.backward()",
        ]
    )
    assert loaded_after(code, ["torch", *HEAVY]) == ["torch"]


def test_without_the_lab_the_core_works_and_the_rest_names_it() -> None:
    lab = [*HEAVY, "cyclopts", "filelock", "jinja2", "msgspec", "optuna", "rich", "safetensors"]
    code = f"""
import sys
sys.modules |= dict.fromkeys({lab!r})  # as if they were not installed
from selfdistill import *
import selfdistill
from selfdistill.cli import main
assert SelfDistiller is selfdistill.SelfDistiller and "load" not in dir()
try:
    selfdistill.load
except ModuleNotFoundError as error:
    print(error)
for words in (["--version"], ["--help"], ["methods", "--no-measure"]):
    try:
        main(words)
    except SystemExit as end:
        print(end.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    of_load, *lines = done.stdout.splitlines()
    assert of_load.endswith('pip install "selfdistill[lab]"')
    assert lines == [selfdistill.__version__, "0", "2", "2"]
    of_commands = done.stderr.splitlines()
    assert len(of_commands) == 2
    assert all(line.endswith('pip install "selfdistill[lab]"') for line in of_commands)


def test_every_public_name_is_there() -> None:
    for name in selfdistill.__all__:
        assert getattr(selfdistill, name).__name__ == name
    assert dir(selfdistill) == sorted(selfdistill.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'selfdistill' has no attribute 'SDDropuot'"):
        selfdistill.SDDropuot  # noqa: B018
