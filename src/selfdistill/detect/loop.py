"""The loop of a detector: steps, epochs, and what happens at the end of each."""

import time
from collections.abc import Callable
from typing import Literal

import torch

from selfdistill.detect.session import Session
from selfdistill.detect.state import State
from selfdistill.train.progress import Callback, Update
from selfdistill.train.signals import Interruptions
from selfdistill.train.state import Row

TELL_SECONDS = 1.0


class Loop:
    """Trains from where ``state`` is to the last epoch.

    Args:
        session: what a step needs.
        state: where the run is; kept up to date.
        interruptions: the signals that came.
        save: writes a checkpoint of the state.
        epoch_done: called with the log's new row after each epoch; it may save.
        progress: is told how far the run is, or None.
    """

    def __init__(
        self,
        session: Session,
        state: State,
        interruptions: Interruptions,
        *,
        save: Callable[[], None],
        epoch_done: Callable[[Row], None],
        progress: Callback | None,
    ):
        assert session.recipe.epochs is not None
        self.session, self.state, self.interruptions = session, state, interruptions
        self.save, self.epoch_done, self.progress = save, epoch_done, progress
        self.epochs, self.steps = session.recipe.epochs, session.loader.steps
        self._started, self._first = time.perf_counter(), self._position()

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            Interrupted: a signal came; the state is saved.
            NonFiniteLossError: the loss is no longer a number; nothing was saved since.
            OSError: a checkpoint or the log cannot be written.
            RuntimeError: an image cannot be read.
        """
        while self.state.epoch < self.epochs:
            self._train()
            self._finish()

    def _train(self) -> None:
        session, state = self.session, self.state
        session.detector.train()
        started = told = time.perf_counter() - state.seconds
        for batch in session.loader.epoch(state.epoch, start=state.step):
            values = session.step(batch, self._position())
            state.add(values, len(batch.images) * session.fabric.world_size)
            now = time.perf_counter()
            state.seconds = now - started
            if now - told >= TELL_SECONDS:
                told = now
                self._tell("step")
            if state.step < self.steps and (signal := self._signal()):
                self._stop(signal)

    def _finish(self) -> None:
        state, means = self.state, self.state.means()
        row: Row = {
            "epoch": state.epoch + 1,
            "lr": self.session.rate(self._position() - 1),
            "loss": sum(means.values()),
            **means,
            "seconds": round(state.seconds, 3),
            "images_per_second": round(state.images / state.seconds, 2),
        }
        state.rows.append(row)
        self._tell("epoch")
        state.next_epoch()
        self.epoch_done(row)
        if state.epoch < self.epochs and (signal := self._signal()):
            self._stop(signal)

    def _stop(self, signal: int) -> None:
        """Save and raise."""
        state = self.state
        self.save()
        where = f"after epoch {state.epoch}"
        if state.step:
            where = f"in epoch {state.epoch + 1} after step {state.step} of {self.steps}"
        raise self.interruptions.interrupted(f"{where}, saved", signal)

    def _signal(self) -> int:
        """Return the signal to stop for, or 0; several processes stop together, whichever of them received it."""
        received, fabric = self.interruptions.received, self.session.fabric
        if fabric.world_size == 1:
            return received
        agreed = fabric.all_reduce(torch.tensor(received, device=self.session.device), reduce_op="max")
        assert isinstance(agreed, torch.Tensor)
        return int(agreed)

    def _position(self) -> int:
        return self.state.epoch * self.steps + self.state.step

    def _tell(self, kind: Literal["step", "epoch"]) -> None:
        if self.progress is None or not self.session.fabric.is_global_zero:
            return
        state, means = self.state, self.state.means()
        done, elapsed = self._position(), time.perf_counter() - self._started
        self.progress(
            Update(
                kind=kind,
                epoch=state.epoch + 1,
                epochs=self.epochs,
                step=done,
                steps=self.epochs * self.steps,
                loss=sum(means.values()),
                terms=means,
                metrics={},
                images_per_second=state.images / max(state.seconds, 1e-9),
                seconds_left=(self.epochs * self.steps - done) * elapsed / max(done - self._first, 1),
            )
        )
