"""Progress of runs, jobs and evaluations: bars on a terminal, lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import TaskID

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.evaluate.suite import Progress
from selfdistill.records import RunRecord
from selfdistill.runs.grid import PlannedRun
from selfdistill.train import Update
from selfdistill.train.progress import Bar, Lines, display_on


def describe_plan(recipe: TrainConfig, data: ImageData) -> str:
    """Return a line on the images and the network of some runs."""
    resolved = recipe.resolve(data)
    skipped = f", {len(data.skipped):,} unreadable files left out" if data.skipped else ""
    cache = data.train.cache
    cached = "" if cache is None else f", decoded into {cache.file} (delete it when you like)"
    return (
        f"{data.name}: {len(data.train):,} training images, {len(data.test):,} test images "
        f"({data.test_split_description}), {len(data.classes)} classes, {data.image_size} px{skipped}{cached}; "
        f"{resolved.model}, weights: {resolved.weights}, batches of {resolved.batch_size}, lr {resolved.lr:g}"
    )


def describe_record(record: RunRecord) -> str:
    """Return a line on a finished run."""
    top1, ece, gap = (record.evaluation[name] for name in ("top1", "ece", "gap"))
    return (
        f"{record.method} seed {record.seed}: test {top1:.1%}, ECE {ece:.3f} (gap {gap:+.3f}), {record.seconds:.0f} s"
    )


@contextmanager
def grid_progress(
    console: Console, runs: int
) -> Iterator[
    tuple[
        Callable[[PlannedRun, Update], None],
        Callable[[PlannedRun, RunRecord], None],
        Callable[[PlannedRun, str], None],
    ]
]:
    """Show a grid's progress, as `job_progress` does; yields what is called with updates, records and failures.

    Args:
        console: where to.
        runs: how many there are in all.
    """
    with job_progress(console, runs, "runs") as (move, close):
        yield (
            lambda run, update: move(run.name, update),
            lambda run, record: close(run.name, describe_record(record)),
            lambda run, reason: close(run.name, f"{run.name} failed: {reason}".replace("`", "")),
        )


@contextmanager
def job_progress(
    console: Console, total: int, things: str
) -> Iterator[tuple[Callable[[str, Update], None], Callable[[str, str], None]]]:
    """Show jobs that run in parallel: on a terminal a bar for each in progress and one for all, elsewhere lines.

    Yields what is called with a name and its update, and what is called with a name and a line when it is done.

    Args:
        console: where to.
        total: how many there are in all.
        things: what they are, such as ``"runs"``.
    """
    done = 0

    def say(line: str) -> None:
        nonlocal done
        done += 1
        console.print(f"[{done}/{total}] {line}", highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        tell: dict[str, Callable[[Update], None]] = {}

        def line(name: str, update: Update) -> None:
            tell.setdefault(name, Lines(console, name, every=30.0))(update)

        yield line, lambda name, line: say(line)
        return
    with display_on(console) as display:
        whole = display.add_task(f"all {things}", total=total, status=f"0/{total} {things}")
        bars: dict[str, Bar] = {}

        def move(name: str, update: Update) -> None:
            if name not in bars:
                bars[name] = Bar(display, name)
            bars[name](update)

        def close(name: str, line: str) -> None:
            say(line)
            if name in bars:
                bars.pop(name).close()
            display.update(whole, completed=done, status=f"{done}/{total} {things}")

        yield move, close


@contextmanager
def evaluation_progress(console: Console) -> Iterator[Progress]:
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
def item_progress(console: Console, things: int, title: str) -> Iterator[Callable[[str], None]]:
    """Show which of several items is in progress: on a terminal a bar, elsewhere nothing.

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
