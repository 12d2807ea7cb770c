"""The loop: steps, epochs, and what happens at the end of each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, TypeVar, cast

import torch

from selfdistill.tap import evaluation_mode, logits_of
from selfdistill.train.meters import Means
from selfdistill.train.progress import Callback, Update
from selfdistill.train.session import Session
from selfdistill.train.signals import Interruptions
from selfdistill.train.state import Row, State

T = TypeVar("T")

LOG_STEPS = 50
LOG_SECONDS = 1.0


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
        self.session, self.state, self.interruptions = session, state, interruptions
        self.save, self.epoch_done, self.progress = save, epoch_done, progress
        self._several = session.fabric.world_size > 1
        self._agreed = 0
        self._told: Update | None = None
        self._started = time.perf_counter()
        self._first = self._position()

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            Interrupted: a signal came; the state is saved.
            NonFiniteLossError: the loss is no longer a number; nothing was saved since.
            OSError: a checkpoint or the log cannot be written.
        """
        while self.state.epoch < self.session.recipe.epochs:
            self._train()
            means = self._whole_epoch()
            started = time.perf_counter()
            accuracies = self._test_accuracies()
            self.state.total_seconds += self.state.seconds + time.perf_counter() - started
            self._finish(means, accuracies)
        if self._told is not None and self.progress is not None:
            self.progress(replace(self._told, kind="evaluate"))

    def _train(self) -> None:
        session, state = self.session, self.state
        if state.step == session.loader.steps:  # it was stopped while it was evaluated
            return
        session.distiller.train()
        started, due = time.perf_counter() - state.seconds, self._pace()
        for batches in self._until_stopped(session.loader.epoch(state.epoch, start=state.step)):
            outputs = session.step(batches, self._position())
            for batch, output in zip(batches, outputs, strict=True):
                state.meters.add(output, batch.y, state.step)
            state.step += 1
            if next(due):
                self._check_and_agree()
                state.seconds = time.perf_counter() - started
                self._tell("step")
            if self._signal():
                break
        self._check_and_agree()  # waits for the device: the steps are done, not only launched
        state.seconds = time.perf_counter() - started
        if self._signal() and state.step < session.loader.steps:
            self._stop()

    def _whole_epoch(self) -> Means:
        """Return the epoch's means over all processes."""
        meters = self.state.meters
        images = torch.tensor(meters.images, device=self.session.device)
        return meters.means(self._over_ranks(meters.sums, "sum"), int(self._over_ranks(images, "sum")))

    def _test_accuracies(self) -> dict[str, float | None]:
        """Return the accuracy on the test images, and a peer's beside it, if it is due after this epoch; on rank 0."""
        session, state = self.session, self.state
        recipe, distiller = session.recipe, session.distiller
        due = (state.epoch + 1) % recipe.eval_every == 0 or state.epoch + 1 == recipe.epochs
        networks = {"test_top1": distiller.model} | ({} if distiller.peer is None else {"peer_top1": distiller.peer})
        hits = dict.fromkeys(networks, 0)
        if due and session.fabric.is_global_zero:
            for name, network in networks.items():
                hits[name] = self._hits(network)
            if not self._several and self._signal():
                self._stop()
        session.fabric.barrier()
        return {name: count / len(session.data.test) if due else None for name, count in hits.items()}

    def _hits(self, network: torch.nn.Module) -> int:
        """Return how many test images a network classifies right; fewer if a signal came meanwhile."""
        session = self.session
        hits = torch.zeros((), dtype=torch.int64, device=session.device)
        with evaluation_mode(network), torch.inference_mode(), session.fabric.autocast():
            for x, y in self._until_stopped(session.test_batches()):
                hits += (logits_of(network(x)).argmax(dim=1) == y).sum()
                if not self._several and self._signal():
                    break
        return int(hits)

    def _finish(self, means: Means, accuracies: dict[str, float | None]) -> None:
        state = self.state
        row: Row = {
            "epoch": state.epoch + 1,
            "lr": self.session.rate(self._position() - 1),
            "loss": means.loss,
            **means.terms,
            "train_accuracy": means.accuracy,
            **accuracies,
            "seconds": round(state.seconds, 3),
            "images_per_second": round(means.images / state.seconds, 1),
        }
        state.rows.append(row)
        self._tell("epoch", means)
        state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
        state.meters.reset()
        self.epoch_done(row)
        self._check_and_agree()
        if self._signal() and state.epoch < self.session.recipe.epochs:
            self._stop()

    def _stop(self) -> None:
        """Save and raise."""
        state, steps = self.state, self.session.loader.steps
        self.save()
        where = f"after epoch {state.epoch}"
        if state.step:
            where = f"in epoch {state.epoch + 1} after step {state.step} of {steps}"
        raise self.interruptions.interrupted(f"{where}, saved", self._signal())

    def _check_and_agree(self) -> None:
        """Raise if a term was not finite in any process; let every process know of a signal that one received."""
        state, recipe = self.state, self.session.recipe
        first_bad = -self._over_ranks(-state.meters.first_bad, "max")
        clip = "a smaller `clip`" if recipe.clip else "`clip=1`"
        remedy = f"try a lower `lr` (it was {recipe.lr:g}) or {clip}"
        state.meters.check(first_bad, state.epoch, remedy)
        if self._several:
            received = torch.tensor(self.interruptions.received, device=self.session.device)
            self._agreed = int(self._over_ranks(received, "max"))

    def _signal(self) -> int:
        """Return the signal to stop for, or 0; several processes stop together, at the step they agreed on."""
        return self._agreed if self._several else self.interruptions.received

    def _over_ranks(self, value: torch.Tensor, operation: Literal["sum", "max"]) -> torch.Tensor:
        if not self._several:
            return value
        return cast(torch.Tensor, self.session.fabric.all_reduce(value.clone(), reduce_op=operation))

    def _pace(self) -> Iterator[bool]:
        """Yield for each step whether to look at the meters, for which a device is waited for: every second.

        Several processes, whose clocks differ, look at the same steps.
        """
        last = time.perf_counter()
        while True:
            if self._several:
                yield self.state.step % LOG_STEPS == 0
            else:
                due = time.perf_counter() - last >= LOG_SECONDS
                last = time.perf_counter() if due else last
                yield due

    def _until_stopped(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches; workers that a signal ended together with the run are no error."""
        try:
            yield from batches
        except RuntimeError:
            if self._several or not self._signal():
                raise

    def _position(self) -> int:
        return self.state.epoch * self.session.loader.steps + self.state.step

    def _tell(self, kind: Literal["step", "epoch"], means: Means | None = None) -> None:
        if self.progress is None or not self.session.fabric.is_global_zero:
            return
        state, recipe, steps = self.state, self.session.recipe, self.session.loader.steps
        means = means or state.meters.means()
        done, elapsed = self._position(), time.perf_counter() - self._started
        measured = [row["test_top1"] for row in state.rows if row["test_top1"] is not None]
        self._told = Update(
            kind=kind,
            epoch=state.epoch + 1,
            epochs=recipe.epochs,
            step=done,
            steps=recipe.epochs * steps,
            loss=means.loss,
            terms=means.terms,
            accuracy=means.accuracy,
            test_accuracy=float(measured[-1]) if measured else None,
            images_per_second=state.step * (recipe.batch_size or 1) / max(state.seconds, 1e-9),
            seconds_left=(recipe.epochs * steps - done) * elapsed / max(done - self._first, 1),
        )
        self.progress(self._told)
