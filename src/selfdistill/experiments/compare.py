"""Compare methods on one set of images: how long it may take, the runs, what is shown meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.experiments.grid import Cell, Finished, Running, expand, run_grid
from selfdistill.records import RunRecord
from selfdistill.train import Recipe, Update, epochs_for_budget, estimate, measure_step_seconds, parse_duration
from selfdistill.train.progress import Bar, Lines, display_on
from selfdistill.train.run import load

MOST_EPOCHS = 200
"""The paper's schedule: a budget that would allow more is not used up."""


def run_comparison(
    recipe: Recipe,
    methods: Sequence[str],
    *,
    seeds: int,
    epochs: int | None,
    budget: str,
    jobs: int,
    out: Path,
) -> list[RunRecord]:
    """Train every method with every seed and return the records, the first method's first.

    Args:
        recipe: everything but method, seed and epochs.
        methods: methods as text; the first is what the others are compared with.
        seeds: how many seeds, 0 and up.
        epochs: passes over the training images, or None: as many as fit in the budget, at most 200.
        budget: how long the whole comparison may take, such as ``"60m"``.
        jobs: processes at a time.
        out: the folder; a comparison that was stopped goes on where it was.

    Raises:
        ValueError: no method, a number below 1, a budget too small for one epoch, or what loading and training raise.
    """
    for option, value in (("--seeds", seeds), ("--jobs", jobs), ("--epochs", epochs)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, not {value}")
    allowed = parse_duration(budget)
    cells = expand(recipe, methods, range(seeds))
    console = Console(stderr=True)
    data = load(recipe)
    epochs = epochs or _epochs_of_earlier_runs(cells, out)
    missing = [cell for cell in cells if not (out / cell.name / "result.json").is_file()]
    if missing:
        with console.status("measuring 20 steps of each method"):
            timings = {method: measure_step_seconds(one, data) for method, one in _one_a_method(missing).items()}
        if epochs is None:
            epochs = min(MOST_EPOCHS, epochs_for_budget(allowed * jobs, [timings[c.recipe.method] for c in missing]))
        console.print(_plan(recipe, data), highlight=False, soft_wrap=True)
        time = estimate([timings[cell.recipe.method] for cell in missing], epochs)
        console.print(f"{time}{f', {jobs} at a time' if jobs > 1 else ''}", highlight=False, soft_wrap=True)
    cells = [replace(cell, recipe=replace(cell.recipe, epochs=epochs or recipe.epochs)) for cell in cells]
    with _shown(console, len(cells)) as (running, finished):
        records = run_grid(cells, out, data=data, jobs=jobs, running=running, finished=finished)
    order = list(dict.fromkeys(record.method for record in records))
    return sorted(records, key=lambda record: (order.index(record.method), record.seed))


def _epochs_of_earlier_runs(cells: Sequence[Cell], out: Path) -> int | None:
    # A comparison that goes on must not measure the budget anew: its runs belong to recipes with these epochs.
    recipes = [out / cell.name / "recipe.yaml" for cell in cells]
    return next((Recipe.from_yaml(recipe).epochs for recipe in recipes if recipe.is_file()), None)


def _one_a_method(cells: Sequence[Cell]) -> dict[str, Recipe]:
    return {cell.recipe.method: cell.recipe for cell in reversed(cells)}


def _plan(recipe: Recipe, data: ImageData) -> str:
    resolved = recipe.resolve(data)
    skipped = f", {len(data.skipped)} unreadable files left out" if data.skipped else ""
    return (
        f"{data.name}: {len(data.train):,} training images, {len(data.test):,} test images ({data.test_is}), "
        f"{len(data.classes)} classes, {data.image_size} px{skipped}; {resolved.model}, weights: {resolved.weights}"
    )


@contextmanager
def _shown(console: Console, runs: int) -> Iterator[tuple[Running, Finished]]:
    """Show the grid's progress: two bars on a terminal, otherwise a line a run."""
    done = 0

    def summary(record: RunRecord) -> str:
        top1, ece, gap = (record.evaluation[name] for name in ("top1", "ece", "gap"))
        return (
            f"[{done}/{runs}] {record.method} seed {record.seed}: test {top1:.1%}, ECE {ece:.3f} (gap {gap:+.3f}), "
            f"{record.seconds:.0f} s"
        )

    def say(record: RunRecord) -> None:
        nonlocal done
        done += 1
        console.print(summary(record), highlight=False, markup=False, soft_wrap=True)

    if not console.is_terminal:
        lines: dict[str, Lines] = {}

        def line(cell: Cell, update: Update) -> None:
            lines.setdefault(cell.name, Lines(console, cell.name, every=30.0))(update)

        yield line, lambda cell, record: say(record)
        return
    with display_on(console) as display:
        whole = display.add_task("all runs", total=runs, status="")
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
