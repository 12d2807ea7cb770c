"""What a user sees of a grid of runs while it goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import TaskID

from selfdistill.data import ImageData
from selfdistill.evaluate.suite import Progress
from selfdistill.experiments.grid import Cell, Finished, Running
from selfdistill.records import RunRecord
from selfdistill.train import Recipe, Update
from selfdistill.train.progress import Bar, Lines, display_on


def plan(recipe: Recipe, data: ImageData) -> str:
    """Return a line on the images and the network of some runs."""
    resolved = recipe.resolve(data)
    skipped = f", {len(data.skipped):,} unreadable files left out" if data.skipped else ""
    cache = data.train.cache
    kept = "" if cache is None else f", decoded into {cache.file} (delete it when you like)"
    return (
        f"{data.name}: {len(data.train):,} training images, {len(data.test):,} test images ({data.test_is}), "
        f"{len(data.classes)} classes, {data.image_size} px{skipped}{kept}; {resolved.model}, "
        f"weights: {resolved.weights}, batches of {resolved.batch_size}, lr {resolved.lr:g}"
    )


def summary(record: RunRecord) -> str:
    """Return a line on a finished run."""
    top1, ece, gap = (record.evaluation[name] for name in ("top1", "ece", "gap"))
    return (
        f"{record.method} seed {record.seed}: test {top1:.1%}, ECE {ece:.3f} (gap {gap:+.3f}), {record.seconds:.0f} s"
    )


@contextmanager
def shown(console: Console, runs: int) -> Iterator[tuple[Running, Finished]]:
    """Show a grid's progress: on a terminal a bar for each run at hand and one for all, elsewhere lines.

    Args:
        console: where to.
        runs: how many there are in all.
    """
    done = 0

    def say(record: RunRecord) -> None:
        nonlocal done
        done += 1
        console.print(f"[{done}/{runs}] {summary(record)}", highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        tell: dict[str, Callable[[Update], None]] = {}

        def line(cell: Cell, update: Update) -> None:
            tell.setdefault(cell.name, Lines(console, cell.name, every=30.0))(update)

        yield line, lambda cell, record: say(record)
        return
    with display_on(console) as display:
        whole = display.add_task("all runs", total=runs, status=f"0/{runs} runs")
        bars: dict[str, Bar] = {}

        def move(cell: Cell, update: Update) -> None:
            if cell.name not in bars:
                bars[cell.name] = Bar(display, cell.name)
            bars[cell.name](update)

        def close(cell: Cell, record: RunRecord) -> None:
            say(record)
            if cell.name in bars:
                bars.pop(cell.name).close()
            display.update(whole, completed=done, status=f"{done}/{runs} runs")

        yield move, close


@contextmanager
def measured_on(console: Console) -> Iterator[Progress]:
    """Show what is measured of a network: on a terminal a bar for each measure, elsewhere a line as each begins.

    Args:
        console: where to.
    """
    if not console.is_terminal:
        begun: set[str] = set()

        def line(measure: str, done: int, total: int) -> None:
            if measure not in begun:
                begun.add(measure)
                console.print(f"measuring {measure}", highlight=False, markup=False)

        yield line
        return
    with display_on(console) as display:
        bars: dict[str, TaskID] = {}

        def move(measure: str, done: int, total: int) -> None:
            if measure not in bars:
                bars[measure] = display.add_task(measure, total=total, status="")
            display.update(bars[measure], completed=done, status=f"{done:,} of {total:,} images")

        yield move


@contextmanager
def counted(console: Console, things: int, title: str) -> Iterator[Callable[[str], None]]:
    """Show which of several things is at hand: on a terminal a bar, elsewhere nothing.

    Args:
        console: where to.
        things: how many there are.
        title: what is done with them.
    """
    if not console.is_terminal:
        yield lambda name: None
        return
    with display_on(console) as display:
        bar = display.add_task(title, total=things, completed=-1, status="")
        yield lambda name: display.update(bar, advance=1, status=name)
