"""A grid of runs: the same recipe for each method and seed, one folder a run, only what is missing is run."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from selfdistill.data import ImageData
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord
from selfdistill.train import Recipe, Update, train


@dataclass(frozen=True)
class Cell:
    """One run of a grid: its folder's name and its recipe."""

    name: str
    recipe: Recipe


Running = Callable[[Cell, Update], None]
Finished = Callable[[Cell, RunRecord], None]


def expand(recipe: Recipe, methods: Iterable[str], seeds: Iterable[int]) -> list[Cell]:
    """Return a cell for each method and seed, seed by seed, so that a grid cut short has compared what it ran.

    Raises:
        ValueError: an unknown method, or the same method twice.

    Example:
        >>> [cell.name for cell in expand(Recipe(), ["CrossEntropy()", "SDDropout(weight=0.1)"], range(1))]
        ['crossentropy-seed0', 'sddropout-weight-0.1-seed0']
    """
    spelled = [repr(parse_method(method)) for method in methods]
    for method in spelled:
        if spelled.count(method) > 1:
            raise ValueError(f"--methods: {method} is given twice")
    return [
        Cell(f"{_slug(method)}-seed{seed}", replace(recipe, method=method, seed=seed))
        for seed in seeds
        for method in spelled
    ]


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    data: ImageData,
    jobs: int = 1,
    running: Running | None = None,
    finished: Finished | None = None,
) -> list[RunRecord]:
    """Run what is missing under ``out`` and return the records of all cells, in their order.

    Args:
        cells: the runs.
        out: the grid's folder; a run's folder is ``out/<cell.name>``.
        data: the images, loaded once.
        jobs: processes at a time; 1 runs them in this process. Each gets an equal share of the CPU cores.
        running: called with the updates of the run at hand; with one job only.
        finished: called with each record.

    Raises:
        ValueError: ``jobs`` below 1; or what a run raises.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    records: dict[str, RunRecord] = {}
    if jobs == 1:
        for cell in cells:
            updates = None if running is None else partial(running, cell)
            records[cell.name] = train(cell.recipe, out / cell.name, data=data, progress=updates)
            if finished is not None:
                finished(cell, records[cell.name])
        return [records[cell.name] for cell in cells]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(_run_alone, replace(cell.recipe, threads=cell.recipe.threads or threads), out / cell.name): cell
            for cell in cells
        }
        try:
            for future in as_completed(futures):
                cell = futures[future]
                records[cell.name] = future.result()
                if finished is not None:
                    finished(cell, records[cell.name])
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [records[cell.name] for cell in cells]


def _run_alone(recipe: Recipe, out: Path) -> RunRecord:
    return train(recipe, out)


def _slug(method: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", method).strip("-").lower()
