"""Progress: one event for training, evaluation, search and downloads, and one place that shows it."""

from __future__ import annotations

import errno
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self, TypeVar

from selfdistill.text import printable

if TYPE_CHECKING:  # who computes without showing anything needs no rich
    from rich.console import Console
    from rich.progress import TaskID

T = TypeVar("T")

LOGGER = logging.getLogger("selfdistill")
"""At INFO, as it is at first, progress is shown; at WARNING it is not; at DEBUG files and devices are logged too."""
if LOGGER.level == logging.NOTSET:
    LOGGER.setLevel(logging.INFO)

TRAINING = "training"
"""The stage of a training in its steps; while it evaluates, its stage is another."""


@dataclass(frozen=True)
class Training:
    """Where a training is.

    Attributes:
        epoch: the epoch that is being trained, or was just finished, from 1.
        epochs: epochs in all.
        loss: mean of this epoch so far.
        terms: each L, unweighted, likewise.
        metrics: shares by their short names: over the training images of this epoch (``train``), or as they were last
            measured (``test``, ``mAP``); what was not measured yet is left out.
        images_per_second: of this epoch.
        seconds_left: until the last epoch is done, by the pace so far.
    """

    epoch: int
    epochs: int
    loss: float
    terms: dict[str, float]
    metrics: dict[str, float]
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Attributes:
        stage: what is done, such as ``TRAINING``, ``"measuring attacks"`` or ``"reading images"``.
        done: units done.
        total: units in all; 0 where that is not known.
        unit: what is counted; where it is empty, the share done is shown.
        detail: which unit is in progress.
        training: of a training, also while it evaluates.
        epoch_done: whether an epoch has just ended.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = "images"
    detail: str = ""
    training: Training | None = None
    epoch_done: bool = False


OnProgress = Callable[[Progress], None]
"""Called with each event; it raises if the work has to stop."""


def no_progress(*_: object) -> None:
    """Report nothing."""


class Counter:
    """Counts the units of a stage and reports them: call it with how many were just done.

    Example:
        >>> count = Counter(lambda event: print(event.stage, event.done, event.total), "reading", 5)
        reading 0 5
        >>> count(3)
        reading 3 5
    """

    def __init__(self, report: OnProgress, stage: str, total: int):
        self.report, self.stage, self.total, self.done = report, stage, total, 0
        self(0)

    def __call__(self, units: int) -> None:
        """Count so many more."""
        self.done += units
        self.report(Progress(self.stage, self.done, self.total))


def clock(seconds: float) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``.

    Example:
        >>> clock(3723), clock(123.4)
        ('1:02:03', '2:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe(event: Progress, width: float = math.inf) -> str:
    """Return one line; of a training epoch, time left, loss and terms, metrics, images/s, as far as there is room.

    Args:
        width: characters; of a training the least important parts go first; its epoch and last metric stay.
    """
    counted = ""
    if event.total:
        counted = (
            f", {event.done:,} of {event.total:,} {event.unit}" if event.unit else f", {event.done / event.total:.0%}"
        )
    what = f"{event.stage}{counted}{event.detail and f': {event.detail}'}"
    if event.training is None:
        return what
    at = event.training
    parts = {"epoch": f"epoch {at.epoch}/{at.epochs}"}
    parts["doing"] = f"{clock(at.seconds_left)} left" if event.stage == TRAINING else what
    terms = "  ".join(f"{name} {value:.3f}" for name, value in at.terms.items())
    parts["loss and terms"] = f"loss {at.loss:.3f}" + (f" ({terms})" if len(at.terms) > 1 else "")
    parts |= {name: f"{name} {value:.1%}" for name, value in at.metrics.items()}
    parts["speed"] = f"{at.images_per_second:,.{0 if at.images_per_second >= 10 else 1}f} images/s"
    for name in ("speed", "terms", "train", "loss and terms", "doing"):
        if len("  ".join(parts.values())) <= width:
            break
        if name == "terms":
            parts["loss and terms"] = f"loss {at.loss:.3f}"
        else:
            parts.pop(name, None)
    return "  ".join(parts.values())


def make_console() -> Console:
    """Return standard error, on which nothing shows while the logger ``selfdistill`` is above INFO."""
    from rich.console import Console

    return Console(stderr=True, quiet=not LOGGER.isEnabledFor(logging.INFO))


def print_line(console: Console, text: str) -> None:
    """Print one line of any origin as it is, however wide the console.

    A line that finds no room on a full disk is lost: it must not end a training.
    """
    from rich.text import Text

    try:
        console.print(Text(printable(text)), soft_wrap=True)  # a Text: neither markup nor emoji codes
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


class Display:
    """Shows events on standard error: on a terminal, or in a notebook with ipywidgets, a bar for each name; else lines.

    Lines are few: each stage as it begins; of a training the end of an epoch, at most every so many seconds, and the
    last.

    Args:
        console: another place.
        jobs: where several jobs run: how many there are; one more bar is for all of them.
        things: what the jobs are.
        every: seconds between two lines on the epochs of one name.
        transient: whether the bars vanish at the end.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        jobs: int = 0,
        things: str = "runs",
        every: float = 10.0,
        transient: bool = False,
    ):
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        self.console = console or make_console()
        self.jobs, self.things, self.every, self.finished = jobs, things, every, 0
        self.bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[tuple[str, str], float] = {}
        self._printed: dict[str, float] = {}
        if self.console.is_terminal or (self.console.is_jupyter and find_spec("ipywidgets")):
            wide = self.console.width >= 120
            self._title, self._bar = self.console.width // 3, 20 if wide else 10
            title, status = (
                TextColumn(text, markup=False, table_column=Column(no_wrap=True, max_width=width))
                for text, width in (("{task.description}", self._title), ("{task.fields[status]}", None))
            )
            elapsed = (TimeElapsedColumn(),) if wide else ()
            columns = (title, BarColumn(bar_width=self._bar), status, *elapsed)
            self.bars = Bars(*columns, console=self.console, refresh_per_second=4, transient=transient)

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self.bars is not None:
            self.bars.start()
            if self.jobs:
                self._tasks[""] = self.bars.add_task(f"all {self.things}", total=self.jobs, status=self._counted())
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self.bars is not None:
            self.bars.stop()

    def update(self, name: str, event: Progress) -> None:
        """Show how far what has this name is."""
        began = self._began.setdefault((name, event.stage), time.monotonic())
        if self.bars is None:
            self._print(name, event)
            return
        if name not in self._tasks:
            self._tasks[name] = self.bars.add_task(printable(name), total=None, status="starting")
        title = min(self._title, max(len(task.description) for task in self.bars.tasks))
        elapsed = 9 if len(self.bars.columns) > 3 else 0
        room = self.console.width - title - self._bar - elapsed - 2
        text = describe(event, room).removeprefix(f"{name}, ")
        if event.training is None and 0 < event.done < event.total:
            text += f", {clock((time.monotonic() - began) * (event.total - event.done) / event.done)} left"
        self.bars.update(self._tasks[name], total=event.total or None, completed=event.done, status=printable(text))

    def finish(self, name: str, line: str) -> None:
        """Count a job as done: print a line on it and take its bar away."""
        self.finished += 1
        self.say(f"[{self._counted().partition(' ')[0]}] {line}")
        if self.bars is not None:
            if name in self._tasks:
                self.bars.remove_task(self._tasks.pop(name))
            self.bars.update(self._tasks[""], completed=self.finished, status=self._counted())

    def say(self, line: str) -> None:
        """Print a line, above the bars."""
        print_line(self.console, line)

    def _counted(self) -> str:
        return f"{self.finished}/{self.jobs} {self.things}"

    def _print(self, name: str, event: Progress) -> None:
        if event.training is None:
            due = self._printed.get(f"{name}\n{event.stage}") is None
            self._printed[f"{name}\n{event.stage}"] = 0.0
            text = event.stage
        else:
            last = event.training.epoch == event.training.epochs
            since = time.monotonic() - self._printed.get(name, -self.every)
            due = event.epoch_done and (last or since >= self.every)
            text = describe(event)
            if due:
                self._printed[name] = time.monotonic()
        if due:
            self.say(f"{name}: {text}" if name not in ("", event.stage) else text)


@contextmanager
def progress_bar(title: str = "", console: Console | None = None) -> Iterator[OnProgress]:
    """Show one thing, on standard error or another place; yields what is called with its events.

    Example:
        >>> with progress_bar("digits") as progress:
        ...     pass  # train(recipe, out, progress=progress)
    """
    with Display(console) as display:
        yield partial(display.update, title)


@contextmanager
def stage_bars(console: Console | None = None) -> Iterator[OnProgress]:
    """Show one thing that has several stages, each with a bar of its own."""
    with Display(console) as display:
        yield lambda event: display.update(event.stage, event)


def track(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """Yield the items, on a terminal under a bar; a ``total`` of 0 is not known."""
    if not sys.stderr.isatty():
        yield from items
        return
    with Display(transient=True) as display:
        display.update(stage, Progress(stage, 0, total, unit=""))
        for done, item in enumerate(items, start=1):
            yield item
            display.update(stage, Progress(stage, done, total, unit=""))
