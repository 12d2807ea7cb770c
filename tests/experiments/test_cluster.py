"""A grid on a Ray cluster: the numbers of the sequential run, also where a machine is lost; mistakes are told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfdistill.cli import main
from selfdistill.experiments.cluster import run_on_ray
from selfdistill.experiments.grid import Cell, expand, run_grid
from selfdistill.experiments.paper import Setting, gather, reproduce, tables_named
from selfdistill.train import Interrupted, Recipe, Update
from selfdistill.train.folder import BusyError
from selfdistill.train.progress import Callback
from selfdistill.train.run import load

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # read at Ray's import
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves its log files open

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


def test_a_lost_machine_changes_no_number(cluster: Any, tmp_path: Path) -> None:
    """Two runs, one a node; one is killed when both have a checkpoint, and there is room for its run on a third."""
    small = {"per_class": 10, "test_per_class": 5, "model": "resnet10_cifar", "width": 4, "threads": 1}
    recipe = Recipe(data="digits", batch_size=20, epochs=40, **small)  # type: ignore[arg-type]
    cells, images = expand(recipe, ["CrossEntropy()", "SDDropout()"], [0]), load(recipe)
    alone = run_grid(cells, tmp_path / "alone", data=images)
    out, logs = tmp_path / "there", dict[str, list[str]]()

    def kill_a_node(cell: Cell, update: Update) -> None:
        saved = all(list((out / one.name / "checkpoints").glob("*")) for one in cells)
        if saved and not logs:
            logs.update({one.name: (out / one.name / "log.csv").read_text().splitlines()[:3] for one in cells})
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=_STORE)

    there = run_grid(cells, out, data=images, ray=cluster.address, running=kill_a_node)
    assert logs, "no node was killed"
    for cell, one, other in zip(cells, there, alone, strict=True):
        assert one.evaluation == other.evaluation
        weights = [folder / cell.name / "model.safetensors" for folder in (out, tmp_path / "alone")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        # The seconds of the first epochs are those from before: the run was gone on with, not begun anew.
        assert (out / cell.name / "log.csv").read_text().splitlines()[:3] == logs[cell.name]


def test_the_others_go_on_where_one_fails(cluster: Any, tmp_path: Path) -> None:
    def work(name: str) -> Any:
        def done(tell: Callback) -> str:
            if name == "b":
                raise ValueError("not this one")
            return f"{name} in {Path.cwd()}"

        return done

    found: dict[Path, str] = {}
    works = {Path(name): work(name) for name in "abc"}
    with pytest.raises(RuntimeError, match=r"^b: not this one; the other runs are done$"):
        on(cluster, works, finished=found.__setitem__)
    assert found == {Path(name): f"{name} in {Path.cwd()}" for name in "ac"}


def test_a_folder_that_is_let_go_of_late_is_waited_for(cluster: Any, tmp_path: Path) -> None:
    def work(tell: Callback) -> bool:
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            raise BusyError("another process is training in a")
        return True

    found: dict[Path, bool] = {}
    on(cluster, {Path("a"): work}, finished=found.__setitem__)
    assert found == {Path("a"): True}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_an_interrupt_reaches_the_runs(cluster: Any, tmp_path: Path, sent: signal.Signals) -> None:
    """One from outside, which comes while the first process waits for the runs."""

    def work(tell: Callback) -> None:
        received: list[int] = []
        signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
        tell(Update("step", 1, 1, 1, 1, 0.0, {}, None, None, 0.0, 0.0))
        until = time.monotonic() + 60
        while not received and time.monotonic() < until:
            time.sleep(0.05)
        (tmp_path / "saved").write_text(str(received))

    def running(folder: Path, update: Update) -> None:
        subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -{int(sent)} {os.getpid()}"])

    with pytest.raises(Interrupted, match=rf"^stopped by {sent.name} and saved; go on$") as stopped:
        on(cluster, {Path("a"): work}, running=running)
    assert stopped.value.exit_status == 128 + sent
    assert (tmp_path / "saved").read_text() == f"[{int(signal.SIGINT)}]"


def test_a_second_interrupt_does_not_wait(cluster: Any, tmp_path: Path) -> None:
    def work(tell: Callback) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        tell(Update("step", 1, 1, 1, 1, 0.0, {}, None, None, 0.0, 0.0))
        until = time.monotonic() + 60
        while not (tmp_path / "over").exists() and time.monotonic() < until:
            time.sleep(0.05)

    def running(folder: Path, update: Update) -> None:
        kill = f"kill -INT {os.getpid()}"
        subprocess.Popen(["sh", "-c", f"sleep 0.7; {kill}; sleep 2; {kill}"])

    try:
        with pytest.raises(Interrupted, match=r"^stopped by SIGINT before all had saved; go on$"):
            on(cluster, {Path("a"): work}, running=running)
    finally:
        (tmp_path / "over").touch()


def test_the_command(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trainings and what is measured of them; a second call does nothing, and needs no cluster."""
    given = ["reproduce", "table6", "--scale", "smoke", "--out", str(tmp_path), "--ray"]
    assert status([*given, cluster.address]) == 0
    first = capsys.readouterr().out
    result = gather(tables_named("table6")[0], Setting("smoke", tmp_path))
    assert len([line for line in result.lines if line.values]) == 2
    assert status([*given, "127.0.0.1:1"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers there"), ("nonsense", "an address is auto, HOST:PORT or ray://HOST:PORT")],
)
def test_nobody_there(address: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert status(["reproduce", "table13", "--scale", "smoke", "--out", str(tmp_path), "--ray", address]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("selfdistill: ")] == [lines[-1]]
    assert f"--ray {address}: " in lines[-1]
    assert said in lines[-1]
    assert time.monotonic() - started < 30


def test_jobs_are_not_the_clusters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--jobs and --ray exclude each other"):
        reproduce(tables_named("table13")[0], Setting("smoke", tmp_path), jobs=2, ray="auto")


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r'^--ray needs Ray: pip install "selfdistill\[ray\]"$'):
        run_on_ray({}, address="auto", cpus=1, running=print, finished=print, how_to_go_on="")


def status(arguments: list[str]) -> Any:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def on(cluster: Any, works: dict[Path, Any], *, running: Any = None, finished: Any = None) -> None:
    ignored = lambda *_: None  # noqa: E731
    run_on_ray(
        works,
        address=cluster.address,
        cpus=1,
        running=running or ignored,
        finished=finished or ignored,
        how_to_go_on="go on",
    )
