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
from typing import Any

from torch import cuda

from selfdistill.progress import Progress
from selfdistill.runs.executor import OnResult, OnTaskProgress, Task, cpus_per_job
from selfdistill.train import Interrupted
from selfdistill.train.run import load
from selfdistill.train.signals import Interruptions

AtWork = dict[Connection, tuple[SpawnProcess, Path]]
"""Of each busy process its connection, itself, and the folder of its task."""


@dataclass(frozen=True)
class _Done:
    returned: Any


@dataclass(frozen=True)
class _Failure:
    message: str


@dataclass(frozen=True)
class Processes:
    """Does tasks in parallel processes; each loads the images once and sees one GPU where there are any.

    Attributes:
        jobs: how many processes; each has an equal share of the CPUs.
    """

    jobs: int

    def execute(
        self, tasks: Sequence[Task], *, on_progress: OnTaskProgress, on_result: OnResult, resume_hint: str
    ) -> None:
        """Do all tasks; a task that fails ends the others, which save."""
        if not tasks:
            return
        processes: list[SpawnProcess] = []
        at_work: AtWork = {}
        waiting = iter(tasks)
        with Interruptions(resume_hint) as interruptions:
            try:
                for number in range(min(self.jobs, len(tasks))):
                    process, connection = _start(number, cpus_per_job(self.jobs))
                    processes.append(process)
                    _give(next(waiting, None), connection, process, at_work)
                while at_work:
                    for ready in wait(list(at_work)):
                        assert isinstance(ready, Connection)
                        process, folder = at_work[ready]
                        message = _receive(ready, process, folder)
                        if isinstance(message, Progress):
                            on_progress(folder, message)
                        elif isinstance(message, Warning):
                            warnings.warn(message, stacklevel=2)
                        else:
                            on_result(folder, message.returned)
                            _give(next(waiting, None), ready, process, at_work)
            except Interrupted:
                _stop(at_work)
                raise interruptions.interrupted("and saved", interruptions.received) from None
            except BaseException:
                _stop(at_work)
                raise
            for process in processes:
                process.join()


def _start(number: int, cpus: int) -> tuple[SpawnProcess, Connection]:
    """Start a process, which waits for tasks on the connection."""
    context = get_context("spawn")
    here, there = context.Pipe()
    gpu = gpu_of(number, cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    process = context.Process(target=_work, args=(there, gpu, cpus))
    with _interrupts_ignored():  # until the process handles them itself
        process.start()
    there.close()  # so that the pipe ends with the process
    return process, here


def _give(task: Task | None, connection: Connection, process: SpawnProcess, at_work: AtWork) -> None:
    """Send a process its next task, or send it home."""
    if task is None:
        at_work.pop(connection, None)
    else:
        at_work[connection] = process, task.folder
    connection.send(task)


def gpu_of(process: int, gpus: int, visible: str | None) -> str | None:
    """Return the one GPU that a process shall see: they go round; None where there is none.

    Args:
        process: its number, from 0.
        gpus: how many there are.
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
    os.setpgrp()  # Ctrl-C reaches the first process alone, which asks this one to save and stop
    warnings.showwarning = lambda message, *_, **__: connection.send(UserWarning(str(message)))
    data = None
    with suppress(Interrupted, EOFError, BrokenPipeError):  # stopped; or the first process is gone
        while (task := connection.recv()) is not None:
            try:
                data = load(task.recipe) if data is None else data
                connection.send(_Done(task.job(data=data, cpus=cpus, progress=connection.send)))
            except BrokenPipeError:
                raise
            except (ValueError, RuntimeError, OSError) as error:
                connection.send(_Failure(f"{task.folder}: {error}"))
                return


def _receive(connection: Connection, process: SpawnProcess, folder: Path) -> Progress | Warning | _Done:
    try:
        message: Progress | Warning | _Done | _Failure = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        status = process.exitcode or 0
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise RuntimeError(
            f"{folder}: its process {how} before it was done; run the same command again to resume, with fewer "
            "`jobs` if memory ran out"
        ) from None
    if isinstance(message, _Failure):
        raise RuntimeError(message.message)
    return message


def _stop(at_work: AtWork) -> None:
    """Ask all to save and stop, and wait for them."""
    for process, _ in at_work.values():
        process.terminate()
    for connection, (process, _) in at_work.items():
        with suppress(EOFError, OSError):  # what it still tells would fill the pipe, and it would wait for us
            while True:
                connection.recv()
        process.join()


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
