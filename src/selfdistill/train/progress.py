"""Progress reporting: a bar on a terminal, log lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from selfdistill.text import printable


@dataclass(frozen=True)
class Update:
    """How far a run is.

    Attributes:
        kind: ``"step"`` now and then, ``"epoch"`` at each epoch's end, ``"evaluate"`` before the last evaluation.
        epoch: the epoch that is being trained, or was just finished, from 1.
        epochs: epochs in all.
        step: optimiser steps done of the whole run.
        steps: optimiser steps in all.
        loss: mean of this epoch so far.
        terms: each L, unweighted, likewise.
        metrics: shares by their short names: over the training images of this epoch (``train``), or as they were last
            measured (``test``, ``mAP``); what was not measured yet is left out.
        images_per_second: of this epoch.
        seconds_left: until the last epoch is done, by the pace so far.
        measuring: what is measured, where ``kind`` is ``"evaluate"``; ``step`` and ``steps`` then count images.
    """

    kind: Literal["step", "epoch", "evaluate"]
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    terms: dict[str, float]
    metrics: dict[str, float]
    images_per_second: float
    seconds_left: float
    measuring: str = ""


Callback = Callable[[Update], None]


def clock(seconds: float) -> str:
    """Return a duration as ``1:02:03`` or ``2:03``.

    Example:
        >>> clock(3723), clock(123.4)
        ('1:02:03', '2:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe(update: Update) -> str:
    """Return one line: epoch, time left, loss and terms, metrics, images/s; a narrow terminal cuts its end off."""
    if update.measuring:
        return f"measuring {update.measuring}"
    left = "evaluating" if update.kind == "evaluate" else f"{clock(update.seconds_left)} left"
    terms = "  ".join(f"{name} {value:.3f}" for name, value in update.terms.items())
    parts = [f"epoch {update.epoch}/{update.epochs}", left, f"loss {update.loss:.3f}"]
    if len(update.terms) > 1:
        parts[-1] += f" ({terms})"
    parts += [f"{name} {value:.1%}" for name, value in update.metrics.items()]
    parts.append(f"{update.images_per_second:,.{0 if update.images_per_second >= 10 else 1}f} images/s")
    return "  ".join(parts)


def print_line(console: Console, text: str) -> None:
    """Print one line of any origin as it is, however wide the console."""
    console.print(Text(printable(text)), soft_wrap=True)  # a Text: neither markup nor emoji codes


class Bar:
    """A task of a ``rich`` progress display: call it with each :class:`Update`.

    Args:
        display: a display that is already shown; several bars may share it.
        title: what the run is called.
    """

    def __init__(self, display: Progress, title: str):
        self.display = display
        self.title = title
        self.task: TaskID = display.add_task(printable(title), total=None, status="starting")

    def __call__(self, update: Update) -> None:
        """Show how far the run is."""
        self.display.update(self.task, total=update.steps, completed=update.step, status=printable(describe(update)))

    def close(self) -> None:
        """Take the bar off the display."""
        self.display.remove_task(self.task)


class Lines:
    """Plain lines for logs and pipes: the end of an epoch, at most every so many seconds, and the last.

    Args:
        console: where to.
        title: what the run is called.
        every: seconds between two lines.
    """

    def __init__(self, console: Console, title: str, every: float = 10.0):
        self.console = console
        self.title = title
        self.every = every
        self._last = -every

    def __call__(self, update: Update) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        last = update.epoch == update.epochs
        if update.kind == "epoch" and (last or now - self._last >= self.every):
            self._last = now
            prefix = f"{self.title}: " if self.title else ""
            print_line(self.console, prefix + describe(update))


def display_on(console: Console) -> Progress:
    """Return the display that :class:`Bar` draws on."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, refresh_per_second=4)


@contextmanager
def progress_bar(title: str = "", console: Console | None = None) -> Iterator[Callback]:
    """Show a run: a bar on a terminal, otherwise plain lines, on standard error.

    Args:
        title: what the run is called.
        console: another place.

    Example:
        >>> with progress_bar("digits") as progress:
        ...     pass  # train(recipe, out, progress=progress)
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console, title)
        return
    with display_on(console) as display:
        yield Bar(display, title)
