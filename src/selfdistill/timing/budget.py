"""How long will it take? Measure some steps, estimate, and fit the epochs to a budget."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import torch

from selfdistill.config.train_config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.data.steps import steps_per_epoch
from selfdistill.errors import ArgumentError
from selfdistill.methods import parse_method
from selfdistill.network import evaluation_mode
from selfdistill.progress import clock
from selfdistill.training import random_state
from selfdistill.training.classification import Classification, assemble
from selfdistill.training.meters import Meters
from selfdistill.training.run import machine
from selfdistill.training.session import Session, make_fabric

BUDGET = "60m"
"""For everything, where none is given."""

WARMUP_STEPS = 3
_EVAL_BATCHES = 2


@dataclass(frozen=True)
class Timing:
    """What was measured of a recipe on this machine.

    Attributes:
        step: seconds of one optimiser step.
        steps: optimiser steps of an epoch.
        evaluation: seconds to measure the test accuracy once.
        final: seconds of the evaluation at the end, of training and test images.
        eval_every: test accuracy is measured every so many epochs.
        trainings: how many are needed: 2 where a first one finds the method's weight.
    """

    step: float
    steps: int
    evaluation: float
    final: float
    eval_every: int
    trainings: int = 1

    @property
    def epoch(self) -> float:
        """Seconds of an epoch of all trainings, with its share of the evaluations."""
        return self.trainings * (self.step * self.steps + self.evaluation / self.eval_every)

    def run(self, epochs: int) -> float:
        """Return the seconds of a whole run."""
        return self.epoch * epochs + self.final


def measure_step_seconds(recipe: TrainConfig, data: ImageData, steps: int = 20, *, devices: int = 1) -> Timing:
    """Take some steps of a run and throw them away; files and random states are as before.

    Args:
        recipe: what would be run; what it leaves open is filled in.
        steps: how many are measured, after a few to warm up.
        devices: what would be run on; one of them is measured, with its share of each step.
    """
    with random_state.preserved(), machine(recipe.threads):
        resolved = recipe.resolve(data)
        group = parse_method(resolved.method).needs.group
        share = -(-resolved.batch_size // devices)
        passes = resolved.passes_on(devices)
        share += -share % (passes * group)
        fabric = make_fabric(resolved)
        # The time of a step does not depend on where the head starts: no pass over the images to fit it.
        timed = replace(resolved, batch_size=share, accumulate=passes, linear_probe=False)
        session = assemble(timed, data, fabric)
        whole = steps_per_epoch(len(data.train), resolved.batch_size, group=group, shares=resolved.accumulate)
        evaluation = _image_seconds(session)
        return Timing(
            step=_step_seconds(session, steps),
            steps=whole,
            evaluation=0.0 if session.task.trains_on_features else evaluation * len(data.test),
            final=evaluation * (len(data.test) + min(len(data.train), 10_000)),
            eval_every=recipe.eval_every,
            trainings=1 + resolved.finds_weight,
        )


def epochs_for_budget(seconds: float, timings: Sequence[Timing], parallel: float = 1.0) -> int:
    """Return how many epochs each of several runs may have so that all of them take so long.

    Args:
        parallel: how many runs are in progress at a time, on average.

    Example:
        >>> epochs_for_budget(100, [Timing(step=0.1, steps=90, evaluation=1, final=5, eval_every=1)] * 2)
        4
    """
    fixed, epoch = sum(timing.final for timing in timings), sum(timing.epoch for timing in timings)
    epochs = int((seconds * parallel - fixed) / epoch)
    if epochs < 1:
        raise ArgumentError(
            "budget",
            f"{clock(seconds)} is too short: one epoch of {len(timings)} run(s) takes about "
            f"{clock((fixed + epoch) / parallel)}; take fewer images (`per_class`), a narrower model (`width`) or "
            "fewer runs",
        )
    return epochs


def estimate(timings: Sequence[Timing], epochs: int, parallel: float = 1.0) -> str:
    """Return a line that says how long some runs will take, ``parallel`` of them at a time.

    Example:
        >>> estimate([Timing(step=0.1, steps=90, evaluation=1, final=5, eval_every=1)] * 3, epochs=20)
        'about 10:15 for 3 runs of 20 epochs (0:10 an epoch)'
    """
    total = sum(timing.run(epochs) for timing in timings) / parallel
    mean = sum(timing.epoch for timing in timings) / len(timings)
    runs = "1 run" if len(timings) == 1 else f"{len(timings)} runs"
    of = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return f"about {clock(total)} for {runs} of {of} ({clock(mean)} an epoch)"


def _step_seconds(session: Session[Classification], steps: int) -> float:
    session.task.set_training_mode()
    batches = (batch for epoch in count() for batch in session.task.loader.epoch(epoch))
    meters = Meters(session.device, session.task.counts)
    for batch in islice(batches, WARMUP_STEPS):
        session.step(batch, 0, meters)
    _wait(session)
    started = time.perf_counter()
    for batch in islice(batches, steps):
        session.step(batch, 0, meters)
    _wait(session)
    return (time.perf_counter() - started) / steps


def _image_seconds(session: Session[Classification]) -> float:
    """Return the seconds to score one test image."""
    model = session.task.model
    images, started = 0, time.perf_counter()
    with evaluation_mode(model), torch.inference_mode(), session.fabric.autocast():
        for x, y in islice(session.task.test_batches(), _EVAL_BATCHES):
            model(x)
            images += len(y)
    _wait(session)
    return (time.perf_counter() - started) / images


def _wait(session: Session[Classification]) -> None:
    if session.device.type != "cpu":
        torch.accelerator.synchronize(session.device)
