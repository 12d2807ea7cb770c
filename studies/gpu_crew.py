"""The runs of the GPU program that are in hand: begun, watched and stopped, each in a process of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from gpu_benchmarks import LONGEST, Benchmark
from gpu_kit import Kit, last_epoch, last_line, say
from gpu_plan import Pace, Planned, at_once, fits
from gpu_records import publish

POLL = 0.5

STOP = 20.0
"""Seconds before the end at which all runs are told to save and stop; what has not by then is killed."""

_STOPPED = {-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT}


@dataclass
class InHand:
    """A run that has a process."""

    planned: Planned
    process: subprocess.Popen[bytes]
    stopped: bool = False


@dataclass
class Crew:
    """The runs in hand: begins them, watches them, stops them.

    Attributes:
        kit: what is asked for.
        program: what trains a run, with ``--train NAME``.
        words: the options as they were typed, which each process gets too.
        end: when to stop, in the clock of `time.time`.
        later: seconds that later calls will have, which go on with what this one has not finished.
    """

    kit: Kit
    program: str
    words: Sequence[str]
    end: float
    later: float
    asked_to_stop: bool = False
    in_hand: list[InHand] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    pace: Pace | None = None

    def __post_init__(self) -> None:
        """Take what earlier calls measured."""
        self.rates = {int(number): rate for number, rate in self.kit.noted().get(self._rates_of, {}).items()}

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM and SIGINT."""
        self.asked_to_stop = True

    @property
    def out_of_time(self) -> bool:
        """Whether to stop."""
        return self.asked_to_stop or time.time() >= self.end

    def measure(self, todo: Sequence[Benchmark], seconds: float) -> None:
        """Call the benchmarks that were not tried yet; none is begun after so many seconds."""
        work, started = self.kit.given.work, time.time()
        for one in todo:
            if one.log(work).exists() or time.time() - started >= seconds or self.out_of_time:
                continue
            say(f"{one.name}: measuring")
            one.record(work).parent.mkdir(parents=True, exist_ok=True)
            running = one.log(work).with_suffix(".running")  # a log says that it was tried
            process = self._start(one.command(work), running)
            until = min(time.time() + LONGEST, self.end)
            while process.poll() is None and time.time() < until and not self.asked_to_stop:
                time.sleep(POLL)
            _kill(process)
            if self.out_of_time and not one.record(work).exists():
                break  # not its fault: the next call tries again
            running.rename(one.log(work))
            if not one.record(work).exists():
                self.failed[one.name] = f"not measured: {last_line(one.log(work)) or f'longer than {LONGEST:.0f} s'}"
            self.publish()

    def work(self) -> None:
        """Train and measure until all is done, or the time is over."""
        while not self.out_of_time:
            self._reap()
            self._look_at_the_pace()
            wanted = at_once(self.rates, self.kit.given.at_once)
            if len(self.in_hand) > wanted:
                self._stop(self.in_hand[-1:])
            while len(self.in_hand) < wanted and (planned := self._next()) is not None:
                self._begin(planned)
            if not self.in_hand:
                break
            time.sleep(POLL)
        self._stop(self.in_hand)
        self.publish()

    def publish(self) -> None:
        """Hand over what there is."""
        given = self.kit.given
        publish(given.work, self.kit.config, given.out or given.work / "records", given.commit)

    def _next(self) -> Planned | None:
        """Return the run to begin now: one that was begun before, otherwise the first, if it would be finished."""
        here = [one.planned.name for one in self.in_hand]
        waiting = [
            one
            for one in self.kit.plan
            if one.name not in here and one.name not in self.failed and not self.kit.is_done(one)
        ]
        left = self.end + self.later - time.time()
        work = [self._work_left(one.planned) for one in self.in_hand]
        for one in sorted(waiting, key=lambda one: self._epochs(one) == 0):
            if fits([*work, self._work_left(one)], self.rates, left):
                return one
        return None

    def _begin(self, planned: Planned) -> None:
        say(f"{planned.name}: from epoch {self._epochs(planned)} of {planned.cell.recipe.epochs}")
        words = [self.program, *self.words, "--train", planned.name, "--until", str(self.end)]
        self.in_hand.append(InHand(planned, self._start(words, self.kit.log_of(planned))))
        self.pace = self._new_pace()

    def _start(self, words: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
        log.parent.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C reaches this process alone, which then asks that one to save and stop.
        with log.open("ab") as out:
            return subprocess.Popen([sys.executable, *words], stdout=out, stderr=out, start_new_session=True)

    def _reap(self) -> None:
        for one in list(self.in_hand):
            if (status := one.process.poll()) is None:
                continue
            self.in_hand.remove(one)
            self.pace = self._new_pace()
            name = one.planned.name
            if status == 0 and self.kit.is_done(one.planned):
                say(f"{name}: done")
            elif not one.stopped and status not in _STOPPED:
                self._failed(one.planned, status)
            self.publish()

    def _failed(self, planned: Planned, status: int) -> None:
        """Try a run again without the compiler if it has not come through an epoch; otherwise leave it."""
        why = last_line(self.kit.log_of(planned)) or f"it ended with status {status}"
        say(f"{planned.name}: failed: {why}")
        if planned.cell.recipe.compile and self._epochs(planned) == 0:
            say(f"{planned.name}: tried again without the compiler")
            shutil.rmtree(self.kit.run_of(planned), ignore_errors=True)  # nothing was trained; its recipe changes
            self.kit.note(eager=[*self.kit.noted().get("eager", []), planned.name])
        else:
            self.failed[planned.name] = why

    def _look_at_the_pace(self) -> None:
        """Note how much all runs do together, once it is known for so many."""
        number = len(self.in_hand)
        if number == 0 or number in self.rates or self.pace is None:
            return
        found = self.pace.seconds_per_epoch({one.planned.name: self._last_epoch(one.planned) for one in self.in_hand})
        if found is not None:
            passes = {one.planned.name: one.planned.epoch for one in self.in_hand}
            self.rates[number] = sum(passes[name] / max(s, 1e-9) for name, s in found.items())
            say(f"{number} at once: {self.rates[number]:,.0f} images per second together, each pass counted")
            self.kit.note(**{self._rates_of: self.rates})

    def _new_pace(self) -> Pace:
        return Pace({one.planned.name: self._epochs(one.planned) for one in self.in_hand})

    @property
    def _rates_of(self) -> str:
        return f"rates {self.kit.given.precision}{' mps' if self.kit.given.mps else ''}"

    def _work_left(self, planned: Planned) -> float:
        return planned.work(self._epochs(planned))

    def _epochs(self, planned: Planned) -> int:
        return self._last_epoch(planned)[0]

    def _last_epoch(self, planned: Planned) -> tuple[int, float]:
        """Return the epochs that a run has done, and when the last one ended."""
        return last_epoch(self.kit.run_of(planned))

    def _stop(self, some: Sequence[InHand]) -> None:
        """Ask processes to save and stop, and wait for it."""
        until = time.time() + STOP - 5
        for one in some:
            one.stopped = True
            one.process.terminate()
        for one in some:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, until - time.time()))
            _kill(one.process)
        self._reap()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and what it started, if it is still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
