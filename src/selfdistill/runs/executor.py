"""The interface of executors, which do a list of tasks, and the one that works in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.data.decode import cpu_count
from selfdistill.own_code import explained_own_code
from selfdistill.progress import OnProgress, Progress
from selfdistill.runs.failures import Failure


class Job(Protocol):
    """The work of a task; it is pickled, as is what it returns."""

    def __call__(self, *, data: ImageData, cpus: int | None, progress: OnProgress) -> Any:
        """Work with the images on so many CPUs (None: all) and report progress."""


@dataclass(frozen=True)
class Task:
    """A piece of work in a folder of its own.

    Attributes:
        folder: where it works; it identifies the task.
        recipe: which images it needs.
        job: the work.
    """

    folder: Path
    recipe: TrainConfig
    job: Job

    def run(self, *, data: ImageData, cpus: int | None, progress: OnProgress) -> Any:
        """Do the job; what code of the user's own raises is an OwnCodeError of one line."""
        with explained_own_code():
            return self.job(data=data, cpus=cpus, progress=progress)


class Listener(NamedTuple):
    """Functions of a task's folder, and of how far it is, of what its job returned, or of why it failed."""

    on_progress: Callable[[Path, Progress], None]
    on_result: Callable[[Path, Any], None]
    on_failure: Callable[[Path, Failure], None]


FAILURES = (ValueError, RuntimeError, OSError, MemoryError)
"""What a task may raise without ending the others; all else is an error in this package."""


class Executor(Protocol):
    """Does tasks that all need the same images."""

    def execute(self, tasks: Sequence[Task], listener: Listener, resume_hint: str) -> None:
        """Do all tasks; where one fails, the others go on.

        Args:
            tasks: in the order in which they begin.
            resume_hint: what a user who interrupts is told, such as how to resume.

        Raises:
            RuntimeError: the executor itself cannot work.
            Interrupted: SIGINT, SIGTERM or SIGHUP came; all tasks have saved.
        """


@dataclass(frozen=True)
class InThisProcess:
    """Does one task after another, here.

    Attributes:
        data: the images, loaded once.
    """

    data: ImageData

    def execute(self, tasks: Sequence[Task], listener: Listener, resume_hint: str) -> None:
        """Do all tasks."""
        for task in tasks:
            try:
                returned = task.run(data=self.data, cpus=None, progress=partial(listener.on_progress, task.folder))
            except FAILURES as error:
                listener.on_failure(task.folder, Failure.of(error, task.folder))
            else:
                listener.on_result(task.folder, returned)


def share_cpus(recipe: TrainConfig, jobs: int) -> TrainConfig:
    """Return the recipe with its share of the CPUs where ``jobs`` run in parallel; it computes the same."""
    return recipe if jobs == 1 else with_cpus(recipe, cpus_per_job(jobs))


def cpus_per_job(jobs: int) -> int:
    """Return how many CPUs each of so many processes has for itself, at least 1."""
    return max(1, cpu_count() // jobs)


def with_cpus(recipe: TrainConfig, cpus: int | None) -> TrainConfig:
    """Return the recipe with so many threads and decoding processes where it leaves them open; it computes the same."""
    if cpus is None:
        return recipe
    workers = cpus if recipe.workers is None else recipe.workers
    return replace(recipe, threads=recipe.threads or cpus, workers=workers)
