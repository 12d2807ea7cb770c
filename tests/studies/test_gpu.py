"""The GPU program: its order, its estimates, what it does when it is stopped, and a whole rehearsal."""

import doctest
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from selfdistill.paper import PaperConfig
from selfdistill.records import EvaluationRecord, RunRecord

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "studies"

CHILD = """
import json, sys, time
from pathlib import Path
name, work = sys.argv[sys.argv.index("--train") + 1], Path(sys.argv[sys.argv.index("--work") + 1])
with (work / "begun").open("a") as begun:
    begun.write(name + chr(10))
run = work / "smoke" / "runs" / name
run.mkdir(parents=True, exist_ok=True)
log = run / "log.csv"
rows = log.read_text().splitlines() if log.exists() else ["epoch"]
{fails}
while len(rows) <= 3:
    time.sleep({pause})
    rows.append(str(len(rows)))
    log.write_text(chr(10).join(rows) + chr(10))
(run / "result.json").write_text(json.dumps({{"commit": None}}))
"""
"""What the program starts for each run, but that it only writes what a training would."""


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


@pytest.fixture
def gpu() -> ModuleType:
    return importlib.import_module("gpu")


@pytest.fixture
def plan() -> ModuleType:
    return importlib.import_module("gpu_plan")


@pytest.fixture
def crew_of(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a crew of processes that only pretend to train."""
    monkeypatch.setattr(importlib.import_module("gpu_crew"), "POLL", 0.02)

    def make(*words: str, seconds: float = 60, pause: float = 0.01, fails: str = "") -> Any:
        child = tmp_path / "child.py"
        child.write_text(CHILD.format(pause=pause, fails=fails))
        words = ("--rehearse", "--seeds", "41", "--tables", "table1", "--work", str(tmp_path), *words)
        given = gpu._parser().parse_args(words)
        return gpu.Crew(gpu.Kit(given), str(child), words, time.time() + seconds, 60 * given.later)

    return make


def begun(work: Path) -> list[str]:
    return (work / "begun").read_text().split()


def test_sd_dropout_and_cross_entropy_come_first_seed_by_seed(gpu: ModuleType, plan: ModuleType) -> None:
    runs = plan.order(PaperConfig("full", Path("out"), fast=True))
    texts = [(one.cell.recipe.method, one.cell.recipe.seed) for one in runs]
    assert texts[:6] == [(method, seed) for seed in (41, 42, 43) for method in ("SDDropout()", "CrossEntropy()")]
    assert texts[6:9] == [("CSKD()", 41), ("CSKD() + SDDropout(weight=0.1)", 41), ("DDGSD()", 41)]
    assert [method for method, _ in texts[30:33]] == ["LabelSmoothing()", "LabelSmoothing() + SDDropout()", "Dropout()"]
    assert len(set(texts)) == len({one.name for one in runs}) == 39
    fast = {(one.cell.recipe.precision, one.cell.recipe.channels_last, one.cell.recipe.compile) for one in runs}
    assert fast == {("bf16-mixed", True, True)}
    assert {(one.cell.recipe.epochs, one.cell.recipe.batch_size, one.cell.recipe.eval_every) for one in runs} == {
        (200, 128, 1)
    }


def test_the_miniature_is_planned_on_both_data_sets(plan: ModuleType) -> None:
    runs = plan.order(PaperConfig("medium", Path("out")))
    assert [(one.training.data, one.cell.recipe.method, one.cell.recipe.seed) for one in runs] == [
        (data, method, seed)
        for data in ("cifar100", "caltech101")
        for seed in (41, 42, 43)
        for method in ("SDDropout()", "CrossEntropy()", "LabelSmoothing()", "Dropout()")
    ]
    assert [runs[0].epoch, runs[-1].epoch] == [3000, 3030]


def test_committed_runs_are_not_made_again(gpu: ModuleType, tmp_path: Path) -> None:
    kit = gpu.Kit(gpu._parser().parse_args(["--work", str(tmp_path)]))
    committed = importlib.import_module("archive").read(ROOT / "results" / "paper-full.jsonl.xz")
    names = {Path(path).parts[1] for path in committed}
    assert names
    kit.take_committed()
    assert {one.name for one in kit.plan if kit.is_done(one)} == names
    again = gpu.Kit(gpu._parser().parse_args(["--work", str(tmp_path / "again"), "--tables", "table6"]))
    again.take_committed()  # Table 6 needs the weights, which are not committed
    assert not [one for one in again.plan if again.is_done(one)]


def test_the_examples_of_the_plan(plan: ModuleType) -> None:
    found = doctest.testmod(plan)
    assert (found.failed, found.attempted) == (0, 3)


def test_the_estimate_is_that_of_a_simulation(plan: ModuleType) -> None:
    """The GPU's rate by the number of runs, shared out evenly, in small steps of time."""
    work, rates, step = [300.0, 50.0, 120.0], {1: 10.0, 2: 16.0, 3: 18.0}, 0.001
    left, seconds = list(work), 0.0
    while left:
        left = [one - step * rates[len(left)] / len(left) for one in left]
        left = [one for one in left if one > 0]
        seconds += step
    assert plan.seconds_to_finish(work, rates) == pytest.approx(seconds, abs=0.1)


def test_a_run_fits_only_if_those_in_hand_are_finished_too(plan: ModuleType) -> None:
    rates = {1: 10.0, 2: 10.0}
    assert plan.fits([100], rates, 72)  # 60 s to begin, and a tenth more than 10 s
    assert not plan.fits([100], rates, 70)
    assert not plan.fits([100, 100], rates, 80)
    assert plan.fits([100, 100], {}, 0.0)  # nothing is known yet


def test_an_epoch_of_compiling_does_not_count(plan: ModuleType) -> None:
    pace = plan.Pace({"a": 7, "b": 0})
    assert pace.seconds_per_epoch({"a": (9, 20.0), "b": (0, 0.0)}) is None  # b has only started
    assert pace.seconds_per_epoch({"a": (10, 30.0), "b": (1, 32.0)}) is None
    assert pace.seconds_per_epoch({"a": (13, 45.0), "b": (3, 36.0)}) is None
    assert pace.seconds_per_epoch({"a": (14, 50.0), "b": (4, 38.0)}) == {"a": 5.0, "b": 2.0}


def test_every_run_is_made_in_order(gpu: ModuleType, crew_of: Callable[..., Any], tmp_path: Path) -> None:
    crew = crew_of("--at-once", "2")
    crew.work()
    names = [one.name for one in crew.kit.plan]
    assert all(crew.kit.is_done(one) for one in crew.kit.plan)
    assert sorted(begun(tmp_path)) == sorted(names)
    assert set(begun(tmp_path)[:2]) == set(names[:2])
    assert not crew.failed
    records = importlib.import_module("archive").read(tmp_path / "records" / "paper-smoke.jsonl.xz")
    assert set(records) == {f"runs/{name}/result.json" for name in names}


def test_what_was_begun_goes_on_before_anything_new(crew_of: Callable[..., Any], tmp_path: Path) -> None:
    third = crew_of().kit.plan[2]
    (tmp_path / "smoke" / "runs" / third.name).mkdir(parents=True)
    (tmp_path / "smoke" / "runs" / third.name / "log.csv").write_text("epoch\n1\n2\n")
    crew = crew_of("--at-once", "1")
    crew.work()
    assert begun(tmp_path)[:2] == [third.name, crew.kit.plan[0].name]


def test_it_stops_in_time_and_leaves_no_process(crew_of: Callable[..., Any], tmp_path: Path) -> None:
    crew = crew_of("--at-once", "2", seconds=4, pause=60)
    started = time.time()
    crew.work()
    assert time.time() - started < 20
    assert (crew.in_hand, crew.failed) == ([], {})
    assert len(begun(tmp_path)) == 2


def test_nothing_is_begun_that_would_not_be_finished(crew_of: Callable[..., Any], tmp_path: Path) -> None:
    """A run has 3 epochs of 64 images: 19.2 s at 10 images per second."""
    (tmp_path / "notes.json").write_text(json.dumps({"rates bf16-mixed": {"1": 10.0}}))
    crew_of("--later", "0", seconds=75).work()
    assert not (tmp_path / "begun").exists()
    crew = crew_of("--later", "0.2", seconds=75)
    assert crew._next() is not None


def test_a_failed_run_is_tried_without_the_compiler_and_stops_no_other(
    crew_of: Callable[..., Any], tmp_path: Path
) -> None:
    """Both failures of it, before its first epoch and without the compiler, and the run after it."""
    fails = "if 'sddropout-seed41' in name: sys.exit('no such kernel')"
    crew = crew_of("--at-once", "1", fails=fails)
    first, second = crew.kit.plan[:2]
    crew.work()
    assert first.cell.recipe.compile
    assert not crew.kit.plan[0].cell.recipe.compile
    assert begun(tmp_path)[:3] == [first.name, first.name, second.name]
    assert crew.failed[first.name] == "no such kernel"
    assert crew.kit.is_done(second)


def test_what_is_handed_over_is_laid_out_as_results(tmp_path: Path) -> None:
    """A finished run beside one that was there before; a benchmark; a run on its way."""
    publish, archive = (importlib.import_module(name) for name in ("gpu_records", "archive"))
    config, out = PaperConfig("full", tmp_path / "full"), tmp_path / "out"
    for path, text in (
        (config.runs / "a" / "result.json", '{"commit": null}'),
        (config.runs / "a" / "measured" / "robustness.json", '{"commit": "there"}'),
        (config.runs / "a" / "model.safetensors", "large"),
        (config.runs / "b" / "log.csv", "epoch\n1\n"),
        (tmp_path / "performance" / "gpu_step.json", '{"commit": null}'),
        (tmp_path / "logs" / "b.log", "it goes"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    archive.write(out / "paper-full.jsonl.xz", {"runs/before/result.json": {"commit": "0"}})
    for _ in range(2):
        publish.publish(tmp_path, config, out, "1234")
    assert archive.read(out / "paper-full.jsonl.xz") == {
        "runs/before/result.json": {"commit": "0"},
        "runs/a/result.json": {"commit": "1234"},
        "runs/a/measured/robustness.json": {"commit": "there"},
    }
    assert json.loads((out / "performance" / "gpu_step.json").read_text()) == {"commit": "1234"}
    with zipfile.ZipFile(out / "gpu-logs.zip") as logs:
        assert {name: logs.read(name).decode() for name in logs.namelist()} == {
            "b.csv": "epoch\n1\n",
            "b.log": "it goes",
        }
    assert len([path for path in out.rglob("*") if path.is_file()]) == 3


def test_what_would_spoil_hours_is_refused_at_once(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^no GPU is seen"):
        gpu.main(["--work", str(tmp_path)])


def test_the_service_that_shares_the_gpu_is_ended(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = tmp_path / "bin" / "nvidia-cuda-mps-control"
    service.parent.mkdir()
    service.write_text(f'#!/bin/sh\necho "$@" "$CUDA_MPS_PIPE_DIRECTORY" >>{tmp_path}/calls\ncat >>{tmp_path}/calls\n')
    service.chmod(0o755)
    monkeypatch.setenv("PATH", f"{service.parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
        monkeypatch.setenv(name, "")  # so that they are put back
    with gpu.shared_by_mps(tmp_path):
        pass
    assert (tmp_path / "calls").read_text().splitlines() == [f"-d {tmp_path}/mps", f"{tmp_path}/mps", "quit"]


def test_a_training_is_stopped_and_goes_on(gpu: ModuleType, tmp_path: Path) -> None:
    """One process's share: first out of time, so that it stops and saves; then to the end, measured for Table 5."""
    words = ["--rehearse", "2", "--precision", "32-true", "--work", str(tmp_path), "--tables", "table1", "table5"]
    kit = gpu.Kit(gpu._parser().parse_args(words))
    gpu.write_synthetic_images(kit.config.images_folder("cifar100"), "cifar100")
    planned = kit.plan[1]
    assert gpu.train_one(kit, planned.name, until=0.0) == 128 + signal.SIGTERM
    assert importlib.import_module("gpu_kit").last_epoch(kit.run_of(planned))[0] == 1
    assert list(kit.run_of(planned).glob("checkpoints/*.pt"))
    assert "at epoch 1 of 2" in gpu.state_of(kit, planned, None)
    assert gpu.train_one(kit, planned.name, until=float("inf")) == 0
    assert gpu.state_of(kit, planned, None).startswith("done: top-1 ")
    record = RunRecord.load(kit.run_of(planned) / "result.json")
    assert [row.epoch for row in record.log] == [1, 2]
    assert all(row.test_top1 is not None for row in record.log)
    assert EvaluationRecord.load(kit.run_of(planned) / "measured" / "robustness.json").belongs_to(record)
    importlib.import_module("gpu_records").publish(tmp_path, kit.config, tmp_path / "out", "1234")
    importlib.import_module("archive").unpack(tmp_path / "out" / "paper-smoke-float32.jsonl.xz", kit.config.out)
    problems = importlib.import_module("paper").problems
    assert list(problems(kit.config)) == []
    (problem,) = problems(replace(kit.config, fast=True))
    assert re.search(r"its recipe is not the table's: precision \(.*\), channels_last \([^)]*\)$", problem)


def test_the_tables_of_a_gpu_are_those_of_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    performance = importlib.import_module("performance")
    there = performance.FOLDER
    monkeypatch.setattr(performance, "FOLDER", tmp_path)
    assert performance.gpu_tables() == "Not measured yet: no GPU was at hand."
    sources = {
        "gpu_step": "step_fp32",
        "gpu_step_compiled": "step_compiled",
        "gpu_throughput": "throughput",
        "gpu_input": "input",
        "gpu_scale": "scale",
    }
    for name, source in sources.items():
        record = json.loads((there / f"{source}.json").read_text())
        device = {"device": f"the GPU of {name}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(record | device | {"photographs": 0, "kilobytes": 0.0}))
    text = performance.gpu_tables()
    assert [name for name in sources if f"the GPU of {name}," not in text] == []
    assert "50,000 images, batches of 128; the GPU of gpu_input" in text


@pytest.mark.slow
def test_a_rehearsal_that_is_killed_and_called_again(tmp_path: Path) -> None:
    words = ["--rehearse", "400", "--precision", "32-true", "--tables", "table1", "--benchmarks", "0", "--at-once", "2"]
    command = [sys.executable, str(STUDIES / "gpu.py"), *words, "--work", str(tmp_path)]
    log = tmp_path / "smoke-float32" / "runs" / "cifar100-resnet18-sddropout-seed41-smoke" / "log.csv"
    first = subprocess.Popen(command)
    while not log.exists() or len(log.read_text().splitlines()) < 3:
        assert first.poll() is None
        time.sleep(0.1)
    first.kill()
    done = len(log.read_text().splitlines())
    second = subprocess.run([*command, "--minutes", "2.5"], capture_output=True, text=True, check=False)
    assert second.returncode == 3, second.stderr
    assert "from epoch 0 of 400" not in second.stdout.splitlines()[0]
    assert "failed" not in second.stdout
    assert len(log.read_text().splitlines()) > done
