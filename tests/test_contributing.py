"""The worked examples of CONTRIBUTING.md, carried out in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANCHORS = {
    "_LOADERS": "ImageData]] = {\n",
    "Evaluation": "    omitted: tuple[str, ...] = ()\n",
    "score": "    return Evaluation(\n",
    "METRICS": "    for metric in (\n",
}
"""What is added to a table, class or call follows this line."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``src/selfdistill`` to which the examples were added."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for block in re.findall(r"```python\n(# .*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL):
        head, _, code = block.partition("\n")
        file = folder / head.split()[-1]
        if (to := re.match(r"# add to (\w+) in ", head)) is not None:
            assert file.read_text().count(ANCHORS[to[1]]) == 1
            file.write_text(file.read_text().replace(ANCHORS[to[1]], ANCHORS[to[1]] + code))
        elif head.startswith("# add to "):
            first = re.search("^from selfdistill", file.read_text(), re.MULTILINE)
            file.write_text(file.read_text()[: first.start()] + code + file.read_text()[first.start() :])
        else:
            file.write_text(code)
    return folder


METHOD = """
import sys
import selfdistill
assert "ConfidencePenalty" in dir(selfdistill) and "torch" not in sys.modules
import torch
method = selfdistill.parse_method("ConfidencePenalty(weight=0.5) + LabelSmoothing()")
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3))
x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
out = selfdistill.SelfDistiller(model, method)(x, y)
p = model(x).softmax(dim=1)
smoothed = torch.nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
assert torch.allclose(out.loss, smoothed + 0.5 * (p * p.log()).sum(dim=1).mean())
out.loss.backward()
print(method)
from selfdistill.cli import main
try:
    main(["methods", "--no-measure"])
except SystemExit as end:
    assert not end.code
"""

DATA_SET = """
from selfdistill.data import load_data
data = load_data("shapes", per_class=10)
print(data.name, len(data.train), len(data.test), data.classes, len(data.mean))
try:
    load_data("shape")
except ValueError as error:
    print(error)
"""

METRIC = """
import msgspec
import torch
from selfdistill.evaluation.suite import score
from selfdistill.records import METRICS, Evaluation
from selfdistill.report import digest
logits = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
written = msgspec.json.encode(score(logits, torch.tensor([0, 1])))
evaluation = msgspec.json.decode(written, type=Evaluation)
print(round(evaluation.margin, 6), round(METRICS["margin"].read(evaluation), 6))
assert any(row[0].startswith("Margin") for row in digest(evaluation).rows)
"""


@pytest.fixture(scope="module")
def said(copy: Path) -> list[str]:
    """What the three print, one after another in one process that has the copy alone."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src")}
    command = [sys.executable, "-c", "print(chr(12))\n".join((METHOD, DATA_SET, METRIC))]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\f\n")


def test_a_method_is_one_file_and_one_export_line(said: list[str]) -> None:
    assert said[0].startswith("ConfidencePenalty(weight=0.5) + LabelSmoothing()\n")
    assert "\nConfidencePenalty(weight=0.1)\n" in said[0]


def test_a_data_set_is_one_file_and_one_table_entry(said: list[str]) -> None:
    assert said[1] == "shapes 20 80 ('disc', 'square') 3\nunknown data set 'shape'; did you mean 'shapes'?\n"


def test_a_metric_is_a_function_a_field_and_one_entry(said: list[str]) -> None:
    assert said[2] == "0.25 0.25\n"
