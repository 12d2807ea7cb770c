"""The loop: steps, epochs, and what happens at the end of each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, NoReturn, TypeVar, cast

import torch

from selfdistill.errors import naming
from selfdistill.network import nonfinite_weights
from selfdistill.progress import TRAINING, OnProgress, Progress, Training
from selfdistill.training.checkpoint import Saver
from selfdistill.training.meters import Means, NonFiniteLossError
from selfdistill.training.session import Session
from selfdistill.training.signals import Interruptions
from selfdistill.training.task import Row, State

T = TypeVar("T")

MAX_LOG_STEPS = 50
LOG_SECONDS = 1.0


class Loop:
    """Trains from where ``state`` is to the last epoch.

    Args:
        session: what is trained.
        state: where the run is; kept up to date.
        interruptions: the signals that came.
        saver: writes checkpoints of the state.
        epoch_done: called with the log's new row after each epoch; it may save.
        progress: called with how far the run is.
    """

    def __init__(
        self,
        session: Session[Any],
        state: State,
        interruptions: Interruptions,
        *,
        saver: Saver,
        epoch_done: Callable[[Row], None],
        progress: OnProgress,
    ):
        self.session, self.state, self.interruptions = session, state, interruptions
        self.saver, self.epoch_done, self.progress = saver, epoch_done, progress
        self._several = session.fabric.world_size > 1
        self._agreed = 0
        self._last: Progress | None = None
        self._started = time.perf_counter()
        self._first = self._position()

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            Interrupted: a signal came; the state is saved.
            NonFiniteError: the loss, a weight or a logit is no longer a number; nothing was saved since.
            OSError: a checkpoint or the log cannot be written.
        """
        self._check_weights()  # an earlier version saved them whatever they were
        while not self.state.done:
            self._train()
            means = self._whole_epoch()
            started = time.perf_counter()
            metrics = self._evaluate()
            self.state.total_seconds += self.state.seconds + time.perf_counter() - started
            self._finish(means, metrics)
        if self._last is not None:
            self.progress(replace(self._last, stage="evaluating", total=0, epoch_done=False))

    def _train(self) -> None:
        session, state = self.session, self.state
        if state.step == session.steps:  # the run was interrupted during evaluation
            return
        session.task.set_training_mode()
        started, due = time.perf_counter() - state.seconds, self._pace()
        for batches in self._until_stopped(session.task.loader.epoch(state.epoch, start=state.step)):
            session.step(batches, self._position(), state.meters)
            state.step += 1
            if looked := next(due):
                self._check_and_agree()
                state.seconds = time.perf_counter() - started
                self._report()
            if self._signal():
                break
            if self.saver.is_due_inside_an_epoch(self._position(), looked):
                started += self._save_inside(started)
        self._check_and_agree()  # waits for the device: the steps are done, not only launched
        state.seconds = time.perf_counter() - started
        self._check_weights()
        if self._signal() and state.step < session.steps:
            self._stop()

    def _save_inside(self, started: float) -> float:
        """Save, and return the seconds that it took, which are none of the training's."""
        self._check_and_agree()
        now = time.perf_counter()
        self.state.seconds = now - started
        self._check_weights()
        self.saver.save()
        return time.perf_counter() - now

    def _whole_epoch(self) -> Means:
        """Return the epoch's means over all processes."""
        meters = self.state.meters
        images = torch.tensor(meters.images, device=self.session.device)
        return meters.means(self._over_ranks(meters.sums, "sum"), int(self._over_ranks(images, "sum")))

    def _evaluate(self) -> dict[str, float | None]:
        """Return the task's metrics if they are due after this epoch; measured on rank 0."""
        session, recipe, epoch = self.session, self.session.recipe, self.state.epoch + 1
        metrics: dict[str, float | None] | None = dict.fromkeys(session.task.metrics)
        if session.fabric.is_global_zero and (epoch % recipe.eval_every == 0 or epoch == session.epochs):
            try:
                with naming(f"epoch {epoch}"):
                    metrics = session.task.evaluate(self._evaluation_progress(), epoch)
            except RuntimeError:  # raised by that progress, or because the signal ended a decoding worker too
                if not self._stopped():
                    raise
                metrics = None
        if metrics is None:
            self._stop()
        session.fabric.barrier()
        return metrics

    def _evaluation_progress(self) -> OnProgress:
        """Return what an evaluation calls as it goes: it passes that on, at most every second, and breaks it off."""
        reported = time.perf_counter()

        def report(event: Progress) -> None:
            nonlocal reported
            if self._stopped():
                raise RuntimeError("interrupted during evaluation")
            if time.perf_counter() - reported >= LOG_SECONDS:
                reported = time.perf_counter()
                self.progress(replace(event, training=self._training()))

        return report

    def _finish(self, means: Means, metrics: dict[str, float | None]) -> None:
        state = self.state
        speed = means.images / state.seconds
        row: Row = {
            "epoch": state.epoch + 1,
            "lr": self.session.rate(self._position() - 1),
            "loss": means.loss,
            **means.terms,
            **means.shares,
            **metrics,
            "seconds": round(state.seconds, 3),
            "images_per_second": round(speed, 1 if speed >= 10 else 2),
        }
        state.rows.append(row)
        self._report(means)
        state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
        stop = self.session.task.is_done(state.rows)
        if self._several:  # only the first process has measured anything
            stop = self.session.fabric.broadcast(stop)
        state.done = stop or state.epoch == self.session.epochs
        state.meters.reset()
        self.epoch_done(row)
        self._check_and_agree()
        if self._signal() and not state.done:
            self._stop()

    def _stop(self) -> NoReturn:
        """Save and raise."""
        state, steps = self.state, self.session.steps
        self.saver.save()
        where = f"after epoch {state.epoch}"
        if state.step:
            where = f"in epoch {state.epoch + 1} after step {state.step} of {steps}"
        raise self.interruptions.interrupted(f"{where}, saved", self._signal())

    def _check_and_agree(self) -> None:
        """Raise if a term was not finite in any process; let every process know of a signal that one received."""
        state = self.state
        first = -self._over_ranks(-state.meters.first_nonfinite_step, "max")
        state.meters.check(first, state.epoch, self._remedy())
        if self._several:
            received = torch.tensor(self.interruptions.received, device=self.session.device)
            self._agreed = int(self._over_ranks(received, "max"))

    def _check_weights(self) -> None:
        """Raise if a weight is not finite: a loss may stay so where BatchNorm divides by what has overflown."""
        state = self.state
        if name := nonfinite_weights(self.session.task.network):
            epoch = state.epoch + (state.step > 0)
            raise NonFiniteLossError(f"the weights {name!r} are not finite in epoch {epoch}; {self._remedy()}")

    def _remedy(self) -> str:
        recipe = self.session.recipe
        clip = "a smaller `clip`" if recipe.clip else "`clip=1`"
        return f"try a lower `lr` (it was {recipe.lr:g}) or {clip}"

    def _signal(self) -> int:
        """Return the signal to stop for, or 0; several processes stop together, at the step they agreed on."""
        return self._agreed if self._several else self.interruptions.received

    def _stopped(self) -> bool:
        """Whether to break off at once; several processes, of which one evaluates, do not."""
        return not self._several and self._signal() != 0

    def _over_ranks(self, value: torch.Tensor, operation: Literal["sum", "max"]) -> torch.Tensor:
        if not self._several:
            return value
        return cast(torch.Tensor, self.session.fabric.all_reduce(value.clone(), reduce_op=operation))

    def _pace(self) -> Iterator[bool]:
        """Yield for each step whether to look at the meters, for which a device is waited for: every second.

        Several processes, whose clocks differ, agree after how many steps they look again.
        """
        last, steps, wanted = time.perf_counter(), 0, 1
        while True:
            steps += 1
            due = steps >= wanted if self._several else time.perf_counter() - last >= LOG_SECONDS
            yield due
            if due:
                now = time.perf_counter()
                if self._several:
                    pace = torch.tensor(LOG_SECONDS * steps / (now - last), device=self.session.device)
                    wanted = max(1, min(MAX_LOG_STEPS, int(self._over_ranks(pace, "max"))))
                last, steps = now, 0

    def _until_stopped(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches; workers that a signal ended together with the run are no error."""
        try:
            yield from batches
        except RuntimeError:
            if not self._stopped():
                raise

    def _position(self) -> int:
        return self.state.epoch * self.session.steps + self.state.step

    def _report(self, means: Means | None = None) -> None:
        """Say how far the run is; with the means of an epoch, that it has ended."""
        if self.session.fabric.is_global_zero:
            done, total = self._position(), self.session.epochs * self.session.steps
            training = self._training(means)
            self._last = Progress(TRAINING, done, total, "steps", training=training, epoch_done=means is not None)
            self.progress(self._last)

    def _training(self, means: Means | None = None) -> Training:
        state, task, steps = self.state, self.session.task, self.session.steps
        images = means.images if means else state.meters.images * self.session.fabric.world_size
        means = means or state.meters.means()
        done, elapsed = self._position(), time.perf_counter() - self._started
        latest = {name: row[name] for row in state.rows for name in task.metrics if row[name] is not None}
        latest |= means.shares
        return Training(
            epoch=state.epoch + 1,
            epochs=self.session.epochs,
            loss=means.loss,
            terms=means.terms,
            metrics={label: float(latest[name] or 0) for name, label in task.labels.items() if name in latest},
            images_per_second=images / max(state.seconds, 1e-9),
            seconds_left=(self.session.epochs * steps - done) * elapsed / max(done - self._first, 1),
        )
