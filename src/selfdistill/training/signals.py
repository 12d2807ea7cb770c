"""SIGTERM, SIGHUP and SIGINT: finish the step, save, say how to resume."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from selfdistill.data.files import ignore_lost_workers

_HANG_UP = getattr(signal, "SIGHUP", None)  # not on Windows


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal and can be continued.

    A ``KeyboardInterrupt``, so that an ``except Exception`` around one run of many does not carry on with the next.

    Attributes:
        exit_status: what the process should exit with, 128 + the signal's number.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_status = 128 + number


class Interruptions:
    """Note SIGTERM, SIGHUP and SIGINT instead of dying of them, while the ``with`` block runs in the main thread.

    Under ``nohup``, which ignores SIGHUP, it stays ignored.

    A second signal, or one that comes while ``at_once`` is set, raises :class:`Interrupted` on the spot. The former
    handlers are put back at the end. In another thread Python delivers no signals, and nothing is installed.

    Args:
        how_to_go_on: the second half of the message.
    """

    def __init__(self, how_to_go_on: str):
        self.how_to_go_on = how_to_go_on
        self.at_once = True
        self.received: int = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            noted = [signal.SIGTERM, signal.SIGINT]
            if _HANG_UP is not None and signal.getsignal(_HANG_UP) is not signal.SIG_IGN:
                noted.append(_HANG_UP)
            self._former = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            # None: the former handler was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def interrupted(self, where: str, number: int) -> Interrupted:
        """Return the exception to raise once everything is saved."""
        name = signal.Signals(number).name
        return Interrupted(f"stopped by {name} {where}; {self.how_to_go_on}", number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received, number
        if again or self.at_once:
            raise self.interrupted("before anything new was saved", number)
        # A signal to the whole group ends the decoding workers too; torch's handler would raise for each of them,
        # whatever is being done, until the process ends: so this one stays off.
        ignore_lost_workers()
