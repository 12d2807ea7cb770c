"""Each benchmark runs; its numbers are for people, on a quiet machine."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_suite_takes_the_passes_that_it_needs_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--width", "4", "--images", "8", "--batch-size", "8", "--repeats", "1", "--json", str(tmp_path / "a.json")]
    basic, robustness, shift, ood = script("suite").main(words)
    n, tuned, grid = 8, 4, 21
    clean = n
    assert (basic.forward, basic.forward_with_graph, basic.backward) == (n, 0, 0)
    assert (shift.forward, shift.backward) == (clean + 75 * n, 0)
    # ODIN on each of two sets: all images at the fixed eps, half of them at every eps, the others at the chosen one.
    odin = 2 * (n + grid * tuned + (n - tuned))
    assert ood.forward == 2 * clean + 1 + odin  # one image finds the head
    assert ood.forward_with_graph == ood.backward == 2 * (n + tuned + (n - tuned))
    assert robustness.backward == robustness.forward_with_graph + n  # two backward passes of one forward pass
    assert robustness.forward >= clean + 6 * n  # FGSM at five eps, and the paper's
    record = json.loads((tmp_path / "a.json").read_text())
    assert [row["measure"] for row in record["rows"]][1:] == ["robustness", "shift", "ood"]
    assert "ratio" in capsys.readouterr().out
