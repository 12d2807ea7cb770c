"""The processes that decode images: what they do about signals, and what is said where one is lost."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process, active_children, get_context
from multiprocessing.context import DefaultContext

_GRACE = 5
"""Seconds that a worker keeps working after SIGTERM or SIGHUP."""


class DecodingProcess(Process):
    """A worker of a DataLoader of ours."""


class DecodingContext(DefaultContext):
    """What a DataLoader starts its workers with, so that they can be told from other processes."""

    Process = DecodingProcess

    def __init__(self) -> None:
        super().__init__(get_context())


def ignore_termination_signals(worker: int) -> None:
    """Let a worker process survive SIGINT, and SIGTERM or SIGHUP for some seconds, so that the run can still save."""
    # Ctrl-C, a closed terminal and a scheduler's SIGTERM reach every process at once, and the run still needs the next
    # batch before it can save. Ignoring SIGTERM for good would hold up a process that ends its workers by it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, frame: signal.alarm(_GRACE))
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))


@contextmanager
def explained_worker_losses() -> Iterator[None]:
    """Say in one line that a decoding process was lost, and end the others: they may wait for what it held.

    Raises:
        RuntimeError: one was lost; the remedy.
    """
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if not reason.startswith("DataLoader worker"):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for each that is ended here
        for process in active_children():
            if isinstance(process, DecodingProcess):
                process.kill()
        reason = reason.removeprefix("DataLoader worker ").partition(". ")[0].rstrip(".")
        raise RuntimeError(
            f"a decoding worker {reason}, as happens where memory runs out: run the same command again, with fewer "
            "`workers` if it did"
        ) from None
