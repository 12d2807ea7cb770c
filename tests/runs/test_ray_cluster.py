"""A grid on a Ray cluster: the numbers of the sequential run, also where a machine is lost; mistakes are told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from selfdistill.cli import main
from selfdistill.config import TrainConfig
from selfdistill.errors import ArgumentError
from selfdistill.paper import TABLES, PaperConfig, collect_result, reproduce_table
from selfdistill.paper.scales import Training
from selfdistill.progress import OnProgress, Progress
from selfdistill.runs.executor import Listener, Task
from selfdistill.runs.failures import Failure
from selfdistill.runs.grid import ExecutorConfig, PlannedRun
from selfdistill.runs.ray_cluster import RayCluster
from selfdistill.training import Interrupted
from selfdistill.training.folder import BusyError

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # read at Ray's import
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open
    pytest.mark.timeout(900),  # a lost machine is noticed late where the processors are busy
]

_STORE = 80 * 2**20  # bytes; Ray takes no less than 75 MiB


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose first node does no runs, and two with one processor each."""
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": _STORE, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=_STORE)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_lost_machine_changes_no_number_of_a_table(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs, one per node; one is killed when both have a checkpoint, and its run goes on where there is room."""
    short = PaperConfig.plan_run

    def longer(self: PaperConfig, training: Training, seed: int) -> PlannedRun:
        cell = short(self, training, seed)
        return replace(cell, recipe=replace(cell.recipe, epochs=60))

    monkeypatch.setattr(PaperConfig, "plan_run", longer)
    table = TABLES["table13"]
    alone = reproduce_table(table, PaperConfig("smoke", tmp_path / "alone"))
    config = PaperConfig("smoke", tmp_path / "there")
    runs = [config.runs / cell.name for cell in table.planned_runs(config).values()]
    logs: dict[str, list[str]] = {}

    def kill_a_node() -> None:
        until = time.monotonic() + 200
        # Whole ones: one that is still being written begins with a dot.
        while not all(list(run.glob("checkpoints/[!.]*")) for run in runs) and time.monotonic() < until:
            time.sleep(0.05)
        logs.update({run.name: (run / "log.csv").read_text().splitlines()[:3] for run in runs})
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    killer = Thread(target=kill_a_node)
    killer.start()
    there = reproduce_table(table, config, ExecutorConfig(ray=cluster.address))
    killer.join()
    cluster.add_node(num_cpus=1, object_store_memory=_STORE)  # for the next test
    assert [line.values for line in there.cells] == [line.values for line in alone.cells]
    for run in runs:
        weights = [out / "runs" / run.name / "model.safetensors" for out in (tmp_path / "alone", config.out)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        # The seconds of the first epochs are those from before: the run was gone on with, not begun anew.
        assert len(logs[run.name]) == 3
        assert (run / "log.csv").read_text().splitlines()[:3] == logs[run.name]


def test_the_others_go_on_where_one_fails_or_has_to_wait(cluster: Any, tmp_path: Path) -> None:
    def work(name: str) -> Any:
        def done(progress: OnProgress, **_: Any) -> str:
            if name == "b":
                raise ValueError("not this one")
            if name == "c" and not (tmp_path / "tried").exists():  # a folder that is let go of late
                (tmp_path / "tried").touch()
                raise BusyError("another process is training in c")
            return f"{name} in {Path.cwd()}"

        return done

    found: dict[Path, str] = {}
    works = {Path(name): work(name) for name in "abc"}
    failed: dict[Path, Failure] = {}
    on(cluster, works, finished=found.__setitem__, failed=failed.__setitem__)
    assert failed == {Path("b"): Failure("not this one")}
    assert found == {Path(name): f"{name} in {Path.cwd()}" for name in "ac"}


@pytest.mark.parametrize(
    "sent", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=lambda sent: sent.name
)
def test_an_interrupt_reaches_the_runs(cluster: Any, tmp_path: Path, sent: signal.Signals) -> None:
    """One from outside, which comes while the first process waits for the runs."""

    def work(progress: OnProgress, **_: Any) -> None:
        received: list[int] = []
        signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
        progress(Progress("working"))
        until = time.monotonic() + 60
        while not received and time.monotonic() < until:
            time.sleep(0.05)
        (tmp_path / "saved").write_text(str(received))

    def running(folder: Path, event: Progress) -> None:
        subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -{int(sent)} {os.getpid()}; sleep 5"])

    with pytest.raises(Interrupted, match=f"stopped by {sent.name} and saved; go on") as stopped:
        on(cluster, {Path("a"): work}, running=running)
    assert stopped.value.exit_status == 128 + sent
    assert (tmp_path / "saved").read_text() == f"[{int(signal.SIGINT)}]"


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait(cluster: Any, tmp_path: Path) -> None:
    def work(progress: OnProgress, **_: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        progress(Progress("working"))
        until = time.monotonic() + 60
        while not (tmp_path / "over").exists() and time.monotonic() < until:
            time.sleep(0.05)

    def running(folder: Path, event: Progress) -> None:
        kill = f"kill -INT {os.getpid()}"
        subprocess.Popen(["sh", "-c", f"sleep 0.7; {kill}; sleep 2; {kill}"])

    try:
        with pytest.raises(Interrupted, match="stopped by SIGINT before all had saved"):
            on(cluster, {Path("a"): work}, running=running)
    finally:
        (tmp_path / "over").touch()


def test_the_command(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training and what is measured of it; a second call does nothing, and needs no cluster."""
    given = ["reproduce", "lemma1", "--scale", "smoke", "--out", str(tmp_path), "--ray"]
    assert status([*given, cluster.address]) == 0
    first = capsys.readouterr().out
    result = collect_result(TABLES["lemma1"], PaperConfig("smoke", tmp_path))
    assert all(line.values for line in result.cells)
    assert status([*given, "127.0.0.1:1"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers there"), ("nonsense", "must be auto, HOST:PORT or ray://HOST:PORT")],
)
def test_nobody_there(address: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert status(["reproduce", "table13", "--scale", "smoke", "--out", str(tmp_path), "--ray", address]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("selfdistill: ")] == [lines[-1]]
    assert "--ray " in lines[-1]
    assert address in lines[-1]
    assert said in lines[-1]
    assert time.monotonic() - started < 30


def test_jobs_are_not_the_clusters(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^`jobs` "):
        ExecutorConfig(jobs=2, ray="auto")


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"^`ray` needs Ray"):
        RayCluster("auto").execute([task("a", print)], Listener(print, print, print), "")


def status(arguments: list[str]) -> Any:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def task(folder: Path | str, job: Any) -> Task:
    """A task on the fewest images that can be loaded."""
    return Task(Path(folder), TrainConfig(data="digits", per_class=1, test_per_class=1), job)


def on(cluster: Any, works: dict[Path, Any], *, running: Any = None, finished: Any = None, failed: Any = None) -> None:
    ignored = lambda *_: None  # noqa: E731
    listener = Listener(running or ignored, finished or ignored, failed or ignored)
    RayCluster(cluster.address).execute([task(folder, job) for folder, job in works.items()], listener, "go on")
