"""The notebooks run from the first cell to the last."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SLOW = {"compare"}  # it trains six networks; .ci/run runs it


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in sorted(NOTEBOOKS.glob("*.ipynb"))
    ],
)
@pytest.mark.filterwarnings("ignore:weights .* are for 5 classes")
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 2
    names: dict[str, object] = {}
    for number, cell in enumerate(code):
        exec(compile(cell, f"{name}, cell {number}", "exec"), names)
