"""Each benchmark runs; its numbers are for people, on a quiet machine."""

import json
import random
import subprocess
import sys
from math import comb
from pathlib import Path
from types import ModuleType

import pytest
import torch

from selfdistill import SDDropout
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.timing.profiler import StepProfiler
from selfdistill.timing.synthetic import make_batch
from tests.counting import rows_of_calls
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def script(name: str) -> ModuleType:
    return load_script(f"benchmarks/{name}.py")


def test_the_interval_of_a_median_holds_it_with_95_percent() -> None:
    """By its own definition for 30 pairs, and by drawing: the true median is 0."""
    interval = script("common").interval
    assert interval(list(range(1, 31))) == (10, 21)
    assert sum(comb(30, k) for k in range(10)) / 2**30 <= 0.025 < sum(comb(30, k) for k in range(11)) / 2**30
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        low, high = interval(sorted(draw.gauss(0, 1) for _ in range(30)))
        held += low <= 0 <= high
    assert 0.945 < held / 2000 < 0.975


def test_a_step_of_each_method(tmp_path: Path) -> None:
    words = ["--model", "resnet10_cifar", "--width", "2", "--batch-size", "4", "--pairs", "3", "--json"]
    rows = script("step").main([*words, str(tmp_path / "a.json"), "--methods", "SDDropout()", "CSKD()", "DDGSD()"])
    assert [row.passes for row in rows] == pytest.approx([1, 4 / 3, 2])
    assert rows[0].memory < 1.05
    assert rows[2].memory > 1.5
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["time"]["pairs"] for row in written["rows"]] == [3, 3, 3]
    assert {"commit", "date", "device", "threads", "versions", "setting"} <= written.keys()


def test_sd_dropout_passes_the_backbone_once_and_the_head_twice() -> None:
    model = build("resnet10_cifar", 5, width=2)
    trial = StepProfiler(model, SDDropout(), make_batch(SDDropout().needs, batch_size=4, classes=5))
    backbone, head = (rows_of_calls(getattr(trial.distiller.model, part)) for part in ("layer4", "fc"))
    trial.seconds()
    assert (backbone, head) == ([4], [4, 8])


def test_the_peak_of_a_step_holds_weights_momentum_gradients_and_logits() -> None:
    scale = script("scale")
    case = scale.Case(batch=8, classes=50_000, features=16, head_alone=True)
    model, batch = scale.network(case)
    head, logits = 4 * 50_000 * 16, 4 * 50_000 * 8
    at_least = 3 * head + logits  # the weights, their momentum and gradient, the gradient of the logits
    assert at_least < scale.peak(StepProfiler(model, parse_method("CrossEntropy()"), batch)) < at_least + 2**20


def test_how_cost_grows(tmp_path: Path) -> None:
    words = ["--batch", "4", "--classes", "7", "--features", "8", "--size", "16", "--pairs", "2"]
    rows = script("scale").main([*words, "--json", str(tmp_path / "a.json")])
    assert [(row.axis, row.value) for row in rows] == [("batch", 4), ("classes", 7), ("features", 8), ("size", 16)]
    assert all(row.baseline_bytes > 0 and row.memory > 0.9 for row in rows)


def test_training_beside_a_plain_script(tmp_path: Path) -> None:
    words = [
        "--images",
        "8",
        "--batch-size",
        "4",
        "--epochs",
        "1",
        "--workers",
        "0",
        "--recipes",
        "32-true",
        "--methods",
        "CrossEntropy()",
    ]
    with torch.random.fork_rng():
        (row,) = script("throughput").main([*words, "--methods", "CrossEntropy()", "--json", str(tmp_path / "a.json")])
    assert row.over_plain.median > 0
    assert len((ROOT / "benchmarks" / "plain_script.py").read_text().splitlines()) < 80
    assert json.loads((tmp_path / "a.json").read_text())["plain_images_per_second"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("ddp", "--methods SDDropout() --model resnet10_cifar --width 2 --batch-size 4 --steps 1", "SDDropout()"),
        ("startup", "--rounds 1 --width 2", "first step, compiled, again"),
    ],
)
def test_benchmarks_of_several_processes(name: str, words: str, says: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *words.split()]
    assert says in subprocess.run(command, capture_output=True, text=True, check=True).stdout


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
    assert ood.forward == 2 * clean + 2 + odin  # two images find the head
    assert ood.forward_with_graph == ood.backward == 2 * (n + tuned + (n - tuned))
    assert robustness.backward == robustness.forward_with_graph + n  # two backward passes of one forward pass
    assert robustness.forward >= clean + 6 * n  # FGSM at five eps, and the paper's
    record = json.loads((tmp_path / "a.json").read_text())
    assert [row["measure"] for row in record["rows"]][1:] == ["robustness", "shift", "ood"]
    assert "ratio" in capsys.readouterr().out


def test_images_are_counted_where_they_come_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--images 64 --batch-size 16 --width 4 --photographs 3 --workers 1 --rounds 2 --json"
    rows = script("input").main([*words.split(), str(tmp_path / "a.json")])
    of = {part: [row for row in rows if row.part == part] for part in ("small", "stages", "epochs")}
    step, loader = of["small"]
    assert (step.what, loader.what) == ("training step, width 4", "loader")
    assert loader.ratio.low <= loader.images_per_second / step.images_per_second <= loader.ratio.high
    names = ["decode", "augment", "to tensor", "collate", "normalise", "all of it"]
    plain, resized = of["stages"][:6], of["stages"][6:]
    assert [row.what for row in plain] == [f"as they are: {name}" for name in names]
    assert [row.what for row in resized] == [f"resized: {name}" for name in ["decode", "resize", *names[1:]]]
    for chain in (plain, resized):
        *parts, whole = chain
        assert sum(row.share for row in parts) == pytest.approx(1)
        assert sum(1 / row.images_per_second for row in parts) == pytest.approx(1 / whole.images_per_second)
    assert [row.workers for row in of["epochs"]] == [0] * 4 + [1] * 4
    assert [row.what for row in of["epochs"]][2:4] == ["resized, cached", "resized, cached: first epoch"]
    assert all((row.ratio.median == 1) == (row.what == "resized") for row in of["epochs"])
    record = json.loads((tmp_path / "a.json").read_text())
    assert (record["photographs"], len(record["rows"])) == (3, len(rows))
    assert "first epoch" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["shards", pytest.param("dataset", marks=pytest.mark.slow)])
def test_tiny_images_from_each_source(kind: str) -> None:
    rows = script("sources").main(["--images", "40", "--workers", "0", "--kinds", kind])
    assert [row.kind for row in rows] == [kind]
    assert all(row.images_per_second > 0 and row.bytes >= 0 for row in rows)


@pytest.mark.filterwarnings("ignore:weights .* are for 1000 classes")
def test_a_comparison_beside_a_plain_loop(tmp_path: Path) -> None:
    words = ["--photographs", "20", "--classes", "2", "--size", "72", "--model", "test_resnet", "--seeds", "1"]
    words += ["--epochs", "1", "--methods", "CrossEntropy()", "--parts", "frozen", "probe"]
    rows = script("comparison").main([*words, "--json", str(tmp_path / "a.json")])
    assert [row.part for row in rows] == ["frozen", "probe"]
    assert all(taken.processor > 0 for row in rows for taken in (row.ours, row.theirs))
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["ours"].keys() == {"processor", "clock"}
