"""The executor of several processes: who does what, how progress comes back, and how they are stopped.

A pool of the standard library would not do: one kind waits for ever for a worker that was killed, the other cannot
ask its workers to save and stop.
"""

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import cuda

from selfdistill.progress import Progress
from selfdistill.runs.executor import FAILURES, Listener, Task, cpus_per_job
from selfdistill.runs.failures import Failure
from selfdistill.training import Interrupted
from selfdistill.training.run import load
from selfdistill.training.signals import Interruptions


@dataclass(frozen=True)
class _Done:
    returned: Any


class _Worker(NamedTuple):
    """A busy process, its number, and the folder of its task."""

    process: SpawnProcess
    number: int
    folder: Path


AtWork = dict[Connection, _Worker]


@dataclass(frozen=True)
class Processes:
    """Does tasks in parallel processes; each loads the images once and sees one GPU where there are any.

    Attributes:
        jobs: how many processes; each has an equal share of the CPUs.
    """

    jobs: int

    def execute(self, tasks: Sequence[Task], listener: Listener, resume_hint: str) -> None:
        """Do all tasks; the process of one that fails ends, and a new one goes on."""
        if not tasks:
            return
        at_work: AtWork = {}
        waiting = iter(tasks)
        with Interruptions(resume_hint) as interruptions:
            try:
                for number, task in zip(range(self.jobs), waiting, strict=False):
                    _start(number, cpus_per_job(self.jobs), task, at_work)
                while at_work:
                    for ready in cast(list[Connection], wait(list(at_work))):
                        worker = at_work[ready]
                        message = _receive(ready, worker.process)
                        if isinstance(message, Progress):
                            listener.on_progress(worker.folder, message)
                        elif isinstance(message, Warning):
                            warnings.warn(message, stacklevel=2)
                        else:
                            if isinstance(message, Failure):
                                listener.on_failure(worker.folder, message)
                            else:
                                listener.on_result(worker.folder, message.returned)
                            self._go_on(ready, worker, isinstance(message, Failure), next(waiting, None), at_work)
            except Interrupted:
                _stop(at_work)
                raise interruptions.interrupted("and saved", interruptions.received) from None
            except BaseException:
                _stop(at_work)
                raise

    def _go_on(self, connection: Connection, worker: _Worker, ended: bool, task: Task | None, at_work: AtWork) -> None:
        """Give the next task to a process, or to a new one in its place; without a task it goes home."""
        if not ended:
            connection.send(task)
        if task is not None and not ended:
            at_work[connection] = worker._replace(folder=task.folder)
            return
        worker.process.join()
        del at_work[connection]
        if task is not None:
            _start(worker.number, cpus_per_job(self.jobs), task, at_work)


def _start(number: int, cpus: int, task: Task, at_work: AtWork) -> None:
    """Start a process with its first task."""
    context = get_context("spawn")
    here, there = context.Pipe()
    gpu = gpu_of(number, cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    process = context.Process(target=_work, args=(there, gpu, cpus))
    with _interrupts_ignored():  # until the process handles them itself
        process.start()
    there.close()  # so that the pipe ends with the process
    at_work[here] = _Worker(process, number, task.folder)
    here.send(task)


def gpu_of(process: int, gpus: int, visible: str | None) -> str | None:
    """Return the one GPU that a process shall see: they go round; None where there is none.

    Args:
        process: its number, from 0.
        visible: ``CUDA_VISIBLE_DEVICES``, if it is set.

    Example:
        >>> [gpu_of(process, 2, None) for process in range(3)], gpu_of(1, 2, "4,6"), gpu_of(0, 0, None)
        (['0', '1', '0'], '6', None)
    """
    if gpus == 0:
        return None
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return names[process % gpus]


def _work(connection: Connection, gpu: str | None, cpus: int) -> None:
    """Do what comes through the connection, and tell how it goes (in a process of its own)."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used
    if hasattr(os, "setpgrp"):  # not on Windows: Ctrl-C reaches all, and each saves
        os.setpgrp()  # Ctrl-C reaches the first process alone, which asks this one to save and stop
    warnings.showwarning = lambda message, *_, **__: connection.send(UserWarning(str(message)))
    data = None
    with suppress(Interrupted, EOFError, BrokenPipeError):  # stopped; or the first process is gone
        while (task := connection.recv()) is not None:
            try:
                data = load(task.recipe) if data is None else data
                connection.send(_Done(task.run(data=data, cpus=cpus, progress=connection.send)))
            except BrokenPipeError:
                raise
            except FAILURES as error:
                connection.send(Failure.of(error, task.folder))
                return  # after an error of CUDA nothing works here any more


def _receive(connection: Connection, process: SpawnProcess) -> Progress | Warning | _Done | Failure:
    try:
        message: Progress | Warning | _Done | Failure = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        status = process.exitcode or 0
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return Failure(f"its process {how} before it was done; use fewer `jobs` if memory ran out")
    return message


def _stop(at_work: AtWork) -> None:
    """Ask all to save and stop, and wait for them."""
    for worker in at_work.values():
        worker.process.terminate()
    for connection, worker in at_work.items():
        with suppress(EOFError, OSError):  # what it still tells would fill the pipe, and it would wait for us
            while True:
                connection.recv()
        worker.process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
