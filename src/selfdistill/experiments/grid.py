"""A grid of runs: the same recipe for each method and seed, one folder a run, only what is missing is run."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import cuda

from selfdistill.data import ImageData
from selfdistill.data.decode import cpu_count
from selfdistill.errors import ArgumentError
from selfdistill.experiments.cluster import run_on_ray
from selfdistill.experiments.measuring import NOTHING_MORE, Asked, measured_in, train_and_measure
from selfdistill.experiments.workers import Task, run_in_processes
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord
from selfdistill.train import Recipe, Update
from selfdistill.train.progress import Callback
from selfdistill.train.run import load


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
            raise ArgumentError("methods", f"must be different: {method} is given twice")
    return [
        Cell(f"{slug(method)}-seed{seed}", replace(recipe, method=method, seed=seed))
        for seed in seeds
        for method in spelled
    ]


def slug(method: str) -> str:
    """Return a method as a folder's name.

    Example:
        >>> slug("LabelSmoothing() + SDDropout(at='layer3', weight=0.1)")
        'labelsmoothing-sddropout-at-layer3-weight-0.1'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", method).strip("-").lower()


def trained_in(cell: Cell, out: Path) -> bool:
    """Whether a run of the grid in ``out`` is trained."""
    return (out / cell.name / "result.json").is_file()


def finished_in(cell: Cell, out: Path, asked: Asked) -> bool:
    """Whether a run of the grid in ``out`` is trained and measured."""
    return trained_in(cell, out) and measured_in(out / cell.name, asked)


def at_a_time(recipe: Recipe, jobs: int) -> Recipe:
    """Return the recipe with its share of the processors where ``jobs`` run at a time; it computes the same."""
    return recipe if jobs == 1 else with_processors(recipe, processors_each(jobs))


def processors_each(jobs: int) -> int:
    """Return how many processors each of so many processes has for itself, at least 1."""
    return max(1, cpu_count() // jobs)


def with_processors(recipe: Recipe, count: int) -> Recipe:
    """Return the recipe with so many threads and loading processes where it leaves them open; it computes the same."""
    workers = count if recipe.workers is None else recipe.workers
    return replace(recipe, threads=recipe.threads or count, workers=workers)


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    data: ImageData,
    asked: Asked = NOTHING_MORE,
    jobs: int = 1,
    ray: str | None = None,
    cpus: int = 1,
    running: Running | None = None,
    finished: Finished | None = None,
) -> list[RunRecord]:
    """Run what is missing under ``out`` and return the records of all cells, in their order.

    Args:
        cells: the runs, all on the same images.
        out: the grid's folder; a run's folder is ``out/<cell.name>``.
        data: the images, loaded once; with several jobs each process loads them itself.
        asked: what is measured of each network beyond accuracy and calibration.
        jobs: processes at a time; 1 runs them in this process. Each gets an equal share of the processors.
        ray: address of a Ray cluster that does them instead, as for `run_on_ray`; one GPU each.
        cpus: of a cluster without GPUs, processors for each.
        running: called with the updates of the runs at hand.
        finished: called with each record.

    Raises:
        ValueError: ``jobs`` below 1; or what a run raises.
        RuntimeError: with several jobs, or on a cluster, that a run failed.
        Interrupted: SIGINT or SIGTERM came, and the runs at hand are saved.
    """
    if jobs < 1:
        raise ArgumentError("jobs", f"must be at least 1, not {jobs}")
    records: dict[str, RunRecord] = {}
    tell = running or (lambda cell, update: None)

    def done(cell: Cell, record: RunRecord) -> None:
        records[cell.name] = record
        if finished is not None:
            finished(cell, record)

    elsewhere = jobs > 1 or ray is not None
    apart = [cell for cell in cells if elsewhere and not finished_in(cell, out, asked)]
    for cell in cells:
        if cell not in apart:
            folder, recipe = out / cell.name, cell.recipe
            done(cell, train_and_measure(recipe, folder, asked, data=data, progress=partial(tell, cell)))
    by_folder = {out / cell.name: cell for cell in apart}
    told: dict[str, Any] = {
        "running": lambda folder, update: tell(by_folder[folder], update),
        "finished": lambda folder, record: done(by_folder[folder], record),
        "how_to_go_on": f"give the same command again to go on ({out})",
    }
    if apart and ray is not None:
        works = {folder: partial(_load_and_run, cell.recipe, folder, asked, cpus) for folder, cell in by_folder.items()}
        run_on_ray(works, address=ray, cpus=cpus, **told)
    elif apart:
        recipes = {folder: at_a_time(cell.recipe, jobs) for folder, cell in by_folder.items()}
        tasks = [
            Task(folder, recipe, partial(train_and_measure, recipe, folder, asked))
            for folder, recipe in recipes.items()
        ]
        run_in_processes(tasks, jobs=jobs, **told)
    return [records[cell.name] for cell in cells]


def _load_and_run(recipe: Recipe, folder: Path, asked: Asked, cpus: int, progress: Callback) -> RunRecord:
    """Train and measure on a machine of the cluster: on its GPU, or on so many processors."""
    if not cuda.is_available():
        recipe = with_processors(recipe, cpus)
    return train_and_measure(recipe, folder, asked, data=load(recipe), progress=progress)
