"""The paper's CIFAR-100 runs at full scale on one GPU, as far as a budget of minutes reaches; call it again to go on.

uv run python studies/gpu.py                            everything, however long it takes
uv run python studies/gpu.py --minutes 9 --later 18     stop before nine minutes are over; 18 more will follow
uv run python studies/gpu.py --minutes 9 --later 0      begin nothing that would not be finished in this call
uv run python studies/gpu.py --scale medium             the miniature of few images, and Caltech-101, instead
uv run python studies/gpu.py --rehearse --minutes 2     tiny networks on synthetic images, on a CPU too

Runs whose records are committed are not made again. Everything is kept in the work folder, and what was interrupted
goes on there where it was: SIGTERM and SIGINT stop it cleanly, and whatever kills it costs a few seconds of work. The
records are written to --out as they come. The status is 0 when all is done, 3 when there is more to do, and 1 when
something failed. docs/gpu.md says more.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError
from math import inf
from pathlib import Path
from typing import Any

import torch
from gpu_benchmarks import REHEARSED, benchmarks
from gpu_crew import STOP, Crew
from gpu_kit import TABLES, Kit, say, state_of
from rich.console import Console

from selfdistill.paper.reproduce import evaluate_run
from selfdistill.paper.scales import DatasetSize, dataset_size, write_synthetic_images
from selfdistill.progress import Display, Progress
from selfdistill.runs.executor import cpus_per_job, with_cpus
from selfdistill.training import Interrupted, train
from selfdistill.training.folder import BusyError
from selfdistill.training.record import provenance
from selfdistill.training.run import load

SAVE = 30.0
"""Seconds between checkpoints: one of a ResNet-18 and its momentum, 90 MB, takes about half a second."""

_DONE, _FAILED, _MORE = 0, 1, 3


def train_one(kit: Kit, name: str, until: float) -> int:
    """Train a run and measure it, in a process of its own; it stops by itself in time, or if nobody waits for it."""
    (planned,) = (one for one in kit.plan if one.name == name)
    parent, told = os.getppid(), False
    display = Display(Console())

    def progress(event: Progress) -> None:
        nonlocal told
        display.update(name, event)
        if not told and (time.time() >= until or os.getppid() != parent):
            told = True
            signal.raise_signal(signal.SIGTERM)

    recipe = with_cpus(planned.cell.recipe, cpus_per_job(kit.given.at_once))
    data, run = load(recipe), kit.run_of(planned)
    try:
        _when_free(lambda: train(recipe, run, data=data, progress=progress, save_seconds=SAVE))
    except Interrupted as stopped:
        say(str(stopped))
        return stopped.exit_status
    for evaluation in kit.missing_evaluations(planned):
        seconds = evaluate_run(run, evaluation, kit.config, data=data, progress=progress)
        say(f"{evaluation.name}: measured in {seconds:.0f} s")
    return _DONE


def _when_free(work: Any, patience: float = 60.0) -> None:
    """Do it, once the process of a call that was killed has seen that and left the folder."""
    until = time.time() + patience
    while True:
        try:
            work()
        except BusyError:
            if time.time() >= until:
                raise
            time.sleep(1)
        else:
            return


@contextmanager
def shared_by_mps(work: Path) -> Iterator[None]:
    """Let kernels of several processes run on the GPU at the same time, by NVIDIA's Multi-Process Service."""
    if shutil.which("nvidia-cuda-mps-control") is None:
        raise ValueError("nvidia-cuda-mps-control is not on PATH: leave --mps out")
    folder = (work / "mps").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    subprocess.run(["nvidia-cuda-mps-control", "-d"], check=False)  # it says so itself where it runs already
    try:
        yield
    finally:
        subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", check=False)


def _check(kit: Kit) -> None:
    """Refuse what would be found out after hours."""
    if not (kit.given.rehearse or torch.cuda.is_available()):
        raise ValueError("no GPU is seen, and a run would take weeks: try --rehearse, or selfdistill reproduce")
    if kit.given.scale == "medium" and kit.given.precision != "bf16-mixed":
        raise ValueError("the scale medium trains in bf16-mixed alone: leave --precision out")
    try:
        there = provenance(torch.device("cpu"))
    except PackageNotFoundError as error:
        raise ValueError(f"{error}; install it, as docs/gpu.md says: the records name the versions") from None
    if there["commit"] is None and kit.given.commit is None:
        say("the code lies here without its repository: give --commit, or the records do not say which it was")
    todo = [one for one in kit.plan if not kit.is_done(one)]
    for name in dict.fromkeys(one.training.data for one in todo):
        runs = [one for one in todo if one.training.data == name]
        data, size = load(runs[0].cell.recipe), dataset_size(name, kit.config.scale)
        if (found := DatasetSize(len(data.train), len(data.test), len(data.classes))) != size:
            raise ValueError(f"{kit.given.data_root}: {name} has {found}, not {size}")
        for evaluation in dict.fromkeys(evaluation for one in runs for evaluation in kit.missing_evaluations(one)):
            evaluation.check_data(kit.config, data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=inf, help="of this call (default: no end)")
    parser.add_argument(
        "--later", type=float, default=inf, help="minutes of later calls with this work folder (default: no end)"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder of all state")
    parser.add_argument("--out", type=Path, help="folder for the records (default: WORK/records)")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where cifar100/train.npz is")
    parser.add_argument("--precision", choices=("bf16-mixed", "32-true"), default="bf16-mixed")
    parser.add_argument("--seeds", type=int, nargs="+", default=(), help="(default: 41 42 43)")
    parser.add_argument("--at-once", type=int, default=4, help="at most so many runs side by side")
    parser.add_argument("--scale", choices=("full", "medium"), default="full", help="(default: full)")
    parser.add_argument("--tables", nargs="+", default=TABLES, help="what finished runs are measured for")
    parser.add_argument("--benchmarks", type=float, default=2.0, help="minutes after which no benchmark is begun")
    parser.add_argument("--mps", action="store_true", help="share the GPU by NVIDIA's Multi-Process Service")
    parser.add_argument("--commit", help="of the code, where it lies without its repository")
    parser.add_argument("--rehearse", type=int, nargs="?", const=3, metavar="EPOCHS", help="tiny networks (default: 3)")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what can be done in time; return the status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    started = time.time()
    given = _parser().parse_args(words)
    kit = Kit(given)
    if given.train is not None:
        return train_one(kit, given.train, given.until)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((given.work / "compiled").resolve()))
    if given.rehearse:
        write_synthetic_images(kit.config.images_folder("cifar100"), "cifar100")
    given.work.mkdir(parents=True, exist_ok=True)
    kit.take_committed()
    _check(kit)
    crew = Crew(kit, __file__, words, started + 60 * given.minutes - STOP, 60 * given.later)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, crew.interrupt)
    crew.measure(REHEARSED if given.rehearse else benchmarks(given.data_root / "cifar100"), 60 * given.benchmarks)
    with shared_by_mps(given.work) if given.mps else nullcontext():
        crew.work()
    plan = kit.plan
    for one in plan:
        say(f"{one.name}: {state_of(kit, one, crew.failed.get(one.name))}")
    for name in sorted(crew.failed.keys() - {one.name for one in plan}):
        say(f"{name}: {crew.failed[name]}")
    if all(kit.is_done(one) for one in plan):
        say("all done")
        return _FAILED if crew.failed else _DONE
    say(f"to go on: {shlex.join(['python', __file__, *words])}")
    return _FAILED if crew.failed else _MORE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, RuntimeError, OSError) as error:
        if "--train" in sys.argv:
            raise  # its log shows where
        sys.exit(f"error: {error}")
