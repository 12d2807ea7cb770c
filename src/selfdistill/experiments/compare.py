"""Compare methods on one set of images: how long it may take, then the runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from selfdistill.data import ImageData
from selfdistill.data.decode import cpu_count
from selfdistill.errors import ArgumentError
from selfdistill.experiments.folders import check_writable
from selfdistill.experiments.grid import Cell, at_a_time, expand, finished_in, run_grid, trained_in
from selfdistill.experiments.measuring import NOTHING_MORE, Asked, fitted, outside, passes
from selfdistill.experiments.show import plan, shown
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.train import Recipe, Timing, epochs_for_budget, estimate, measure_step_seconds, parse_duration
from selfdistill.train.folder import RunFolder
from selfdistill.train.run import load

MOST_EPOCHS = 200
"""The paper's schedule: a budget that would allow more is not used up."""


def run_comparison(
    recipe: Recipe,
    methods: Sequence[str],
    *,
    seeds: int,
    epochs: int | None,
    budget: str = "60m",
    jobs: int,
    out: Path,
    asked: Asked = NOTHING_MORE,
    fit: bool = False,
) -> list[RunRecord]:
    """Train and measure every method with every seed and return the records, the first method's first.

    Args:
        recipe: everything but method, seed and epochs.
        methods: methods as text; the first is what the others are compared with.
        seeds: how many seeds, from 0 up.
        epochs: passes over the training images, or None: those of the runs that are in ``out`` already; without such,
            as many as fit in the budget, at most 200.
        budget: how long everything may take, such as ``"60m"``.
        jobs: processes at a time.
        out: the folder; a comparison that was stopped goes on where it was.
        asked: what is measured of each network beyond accuracy and calibration.
        fit: measure on fewer images, or not at all, so that it takes at most a quarter of the budget.

    Raises:
        ValueError: no method, a number below 1, a budget too small for one epoch, or what loading and training raise.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs), ("epochs", epochs)):
        if value is not None and value < 1:
            raise ArgumentError(name, f"must be at least 1, not {value}")
    seconds = parse_duration(budget)
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    cells = expand(recipe, methods, range(seeds))
    check_writable(out)
    if epochs is None:
        epochs = _epochs_of_earlier_runs(cells, out)
    data = load(recipe)
    if epochs is not None:
        cells = [_with_epochs(cell, epochs) for cell in cells]
        for cell in cells:  # now, not after hours of other runs
            RunFolder(out / cell.name).check(cell.recipe.resolve(data))
    console = Console(stderr=True)
    outside_n = sum(len(one.split) for one in outside(asked, data.image_size))  # now, too, a wrong set is refused
    measured = next((path for cell in cells if (path := out / cell.name / "evaluation.json").is_file()), None)
    if fit and measured:  # what goes on is measured as what is there
        asked = replace(asked, max_images=EvaluationRecord.load(measured).asked["max_images"])
    untrained = [cell for cell in cells if not trained_in(cell, out)]
    if untrained:
        with console.status("measuring how long a step takes"):
            timings = _measured(untrained, data, jobs)
        at_once = _at_once(len(untrained), jobs, on_cpu=not torch.cuda.is_available())
        image = max(timing.evaluation for timing in timings) / len(data.test)
        if fit and not measured:
            asked = fitted(asked, len(data.test), outside_n, seconds * at_once / 4 / len(cells) / image)
        more = image * passes(asked, len(data.test), outside_n)
        timings = [replace(timing, final=timing.final + more) for timing in timings]
        if epochs is None:
            epochs = min(MOST_EPOCHS, epochs_for_budget(seconds, timings, at_once))
        _say(console, plan(recipe, data))
        if fit and not asked.measures:
            _say(console, f"measuring accuracy and calibration alone: more would not fit in the budget of {budget}")
        _say(console, estimate(timings, epochs, at_once) + (f", {jobs} at a time" if jobs > 1 else ""))
    done = sum(finished_in(cell, out, asked) for cell in cells)
    if done:
        _say(console, f"{done} of {len(cells)} runs are in {out} already")
    epochs = epochs or recipe.epochs
    cells = [_with_epochs(cell, epochs) for cell in cells]
    with shown(console, len(cells)) as (running, finished):
        records = run_grid(cells, out, data=data, asked=asked, jobs=jobs, running=running, finished=finished)
    order = list(dict.fromkeys(cell.recipe.method for cell in cells))
    return sorted(records, key=lambda record: (order.index(record.method), record.seed))


def _with_epochs(cell: Cell, epochs: int) -> Cell:
    return replace(cell, recipe=replace(cell.recipe, epochs=epochs))


def _epochs_of_earlier_runs(cells: Sequence[Cell], out: Path) -> int | None:
    # A comparison that goes on must not measure the budget anew: its runs belong to recipes with these epochs.
    recipes = [out / cell.name / "recipe.yaml" for cell in cells]
    return next((Recipe.from_yaml(recipe).epochs for recipe in recipes if recipe.is_file()), None)


def _measured(cells: Sequence[Cell], data: ImageData, jobs: int) -> list[Timing]:
    """Return the timing of each run, measured once a method."""
    of_method: dict[str, Timing] = {}
    for cell in cells:
        if cell.recipe.method not in of_method:
            of_method[cell.recipe.method] = measure_step_seconds(at_a_time(cell.recipe, jobs), data)
    return [of_method[cell.recipe.method] for cell in cells]


def _at_once(runs: int, jobs: int, *, on_cpu: bool) -> float:
    """How many runs go on at a time, on average: on a CPU each has processors of its own, a GPU is shared.

    Example:
        >>> _at_once(runs=3, jobs=1, on_cpu=True), _at_once(runs=3, jobs=2, on_cpu=False)
        (1.0, 1.0)
    """
    jobs = min(jobs, cpu_count()) if on_cpu else 1
    return runs / -(-runs // jobs)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
