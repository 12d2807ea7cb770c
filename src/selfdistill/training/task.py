"""What the training engine asks of a task: classification with a method is one, object detection another."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import nn

from selfdistill.config.training import TrainingConfig
from selfdistill.data.fingerprint import Fingerprint
from selfdistill.progress import OnProgress
from selfdistill.training.meters import Loss, Meters

B = TypeVar("B")
C = TypeVar("C", covariant=True)

Row = dict[str, float | int | None]
"""One row of ``log.csv``."""


@dataclass
class State:
    """Where a run is.

    Attributes:
        meters: what the current epoch has added up, in this process.
        epoch: epochs done.
        step: optimiser steps done of the current epoch.
        seconds: training time of the current epoch.
        total_seconds: training and evaluation time of the epochs before.
        rows: the log, one row per finished epoch.
        done: whether no further epoch is to be trained.
    """

    meters: Meters
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    done: bool = False


class Loader(Protocol[C]):
    """The training batches of one process, as a function of (seed, epoch, step) alone.

    Attributes:
        steps: optimiser steps of an epoch.
    """

    steps: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[C, ...]]:
        """Yield the micro-batches of each step, of equal size, from step ``start`` on."""


class Record(Protocol):
    """What a finished run leaves as ``result.json``."""

    @property
    def recipe(self) -> TrainingConfig:
        """The resolved recipe that it was made by."""

    def save(self, path: Path) -> None:
        """Write the record atomically."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record, or raise a ValueError."""


class Task(Protocol[B]):
    """Something to train: a network, its batches, loss, evaluation and record.

    It is built for one run and one process. The engine has the rest: optimiser, schedule, steps, processes,
    checkpoints, log, signals and progress.

    Attributes:
        recipe: resolved.
        network: everything that is trained; its state is what a run resumes from.
        network_name: what a checkpoint calls it.
        loader: of this process.
        counts: the log's columns that a :class:`~selfdistill.training.meters.Loss` counts.
        metrics: the log's columns that an evaluation fills.
        labels: the columns that progress shows, and what it calls them.
    """

    recipe: TrainingConfig
    network: nn.Module
    network_name: str
    loader: Loader[B]
    counts: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: Mapping[str, str]

    @property
    def fingerprint(self) -> Fingerprint:
        """What says which data these are, see :mod:`selfdistill.data.fingerprint`."""

    @property
    def model(self) -> nn.Module:
        """The part of the network that is used after the training: unless a task says otherwise, all of it."""
        return self.network

    def callable_network(self) -> nn.Module:
        """Return the network as it is called: itself, or compiled."""
        return self.network

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser; the learning rate is set before each step."""
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return sgd(self.recipe, [{"params": parameters}])

    def set_training_mode(self) -> None:
        """Put the network into training mode."""
        self.network.train()

    def loss(self, module: nn.Module, batch: B, position: int) -> Loss:
        """Return the loss of a micro-batch.

        Args:
            module: the network as it is called, wrapped by Fabric.
            batch: from the loader, on the device.
            position: optimiser steps of the whole run before this one.
        """

    def after_step(self, position: int) -> None:
        """Do what follows an optimiser step, of which ``position`` were before it; nothing unless a task says more."""
        return

    def evaluate(self, progress: OnProgress, epoch: int) -> dict[str, float | None]:
        """Measure the network after an epoch, counted from 1; in the first process alone.

        ``progress`` raises to stop the run.
        """

    def is_done(self, rows: list[Row]) -> bool:
        """Whether to stop before the last epoch, by what the log says so far; unless a task says otherwise, not."""
        return False

    def finish(self, run: Path, state: State) -> Record:
        """Write the trained model into a run's folder and return the record; in the first process alone."""


def sgd(recipe: TrainingConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return SGD over groups of parameters."""
    assert recipe.weight_decay is not None
    return torch.optim.SGD(
        groups,
        lr=1.0,  # set before each step
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )


AnyTask = Task[Any]
