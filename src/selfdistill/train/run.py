"""A run: a folder, a recipe, and at the end a record. ``train`` is the one function that does it all."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from selfdistill.data import ImageData, load_data
from selfdistill.evaluate.evaluation import Evaluation
from selfdistill.evaluate.suite import evaluate
from selfdistill.records import RunRecord
from selfdistill.train import random_state
from selfdistill.train.checkpoint import Checkpoints
from selfdistill.train.export import save_model, save_weights
from selfdistill.train.folder import RunFolder
from selfdistill.train.loop import Loop
from selfdistill.train.memory import freed_memory_kept
from selfdistill.train.progress import Callback
from selfdistill.train.recipe import Recipe
from selfdistill.train.record import make_record
from selfdistill.train.session import Session, assemble, cached, make_fabric
from selfdistill.train.signals import Interruptions
from selfdistill.train.state import Row, State, resume, save

SAVE_SECONDS = 5.0
"""Epochs shorter than this do not all get a checkpoint; the last one does."""


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    data: ImageData | None = None,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    tensorboard: bool = False,
    progress: Callback | None = None,
    save_seconds: float | None = None,
) -> RunRecord:
    """Train by a recipe into a run folder, or go on with what is there; a finished run is returned as it is.

    A run that was killed and is started again ends, on a CPU, with the same bits as one that was not.

    Args:
        recipe: what to do; what it leaves open is filled in from the data.
        out: the run folder; made if need be.
        data: the images; None loads ``recipe.data``.
        devices: GPUs, or CPU processes, on each machine.
        nodes: machines.
        accelerator: ``"cuda"``, ``"cpu"``, or ``"auto"`` for a GPU where there is one.
        tensorboard: also write ``out/tensorboard``.
        progress: is called with each :class:`~selfdistill.train.progress.Update`.
        save_seconds: at the end of an epoch, save unless the last checkpoint is younger (default: `SAVE_SECONDS`).

    Returns:
        The record that is in ``out/result.json``.

    Raises:
        ValueError: the recipe, the data or the folder do not fit; one line.
        OSError: something cannot be written; the last checkpoint is kept.
        NonFiniteLossError: the loss was not finite; names the term, the epoch and the step.
        Interrupted: SIGTERM or SIGINT came; the state is saved and the message says how to go on.
    """
    out = Path(out)
    with ExitStack() as cleanup:
        cleanup.enter_context(random_state.preserved())
        go_on = f"run the same command again to go on ({out})"
        interruptions = cleanup.enter_context(Interruptions(go_on))
        data = load(recipe) if data is None else data
        recipe = recipe.resolve(data)
        fabric = make_fabric(recipe, devices=devices, nodes=nodes, accelerator=accelerator)
        folder = RunFolder(out)
        if folder.finished():
            folder.check(recipe)
            return RunRecord.load(folder.result)
        if fabric.is_global_zero:
            cleanup.enter_context(folder.opened(recipe))
        fabric.launch()
        cleanup.enter_context(machine(recipe.threads))  # the launcher sets threads of its own
        session = assemble(recipe, data, fabric)
        if session.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(session.device)
        checkpoints = Checkpoints(folder.checkpoints)
        state = resume(session, checkpoints)
        fabric.barrier()
        _train(session, state, checkpoints, folder, interruptions, tensorboard, progress, save_seconds or SAVE_SECONDS)
        if fabric.is_global_zero:
            evaluation, seconds = _evaluate(session)
            save_model(session.distiller.model, recipe, data, out)
            record = make_record(out.name, session, state, evaluation, seconds)
            record.save(folder.result)
        fabric.barrier()
        return RunRecord.load(folder.result)


def load(recipe: Recipe) -> ImageData:
    """Load the data that a recipe names, with their decoded files where it wants those kept."""
    data = load_data(
        recipe.data,
        root=Path(recipe.data_root),
        image_size=recipe.image_size,
        classes=recipe.classes,
        per_class=recipe.per_class,
        test_per_class=recipe.test_per_class,
        skip_unreadable=recipe.skip_unreadable,
    )
    return cached(recipe, data)


def _train(
    session: Session,
    state: State,
    checkpoints: Checkpoints,
    folder: RunFolder,
    interruptions: Interruptions,
    tensorboard: bool,
    progress: Callback | None,
    save_seconds: float,
) -> None:
    """Run the loop with what belongs to the end of an epoch: the log, kept weights, a checkpoint now and then."""
    fabric, recipe = session.fabric, session.recipe
    saved_at = time.monotonic()

    def save_now() -> None:
        nonlocal saved_at
        save(session, state, checkpoints)
        saved_at = time.monotonic()

    def epoch_done(row: Row) -> None:
        if fabric.is_global_zero:
            if state.epoch in recipe.keep_epochs:
                save_weights(session.distiller.model, folder.path / f"model@{state.epoch}.safetensors")
            folder.write_log(state.rows)
            if board is not None:
                board.write(row)
        due = state.epoch == recipe.epochs or time.monotonic() - saved_at >= save_seconds
        if fabric.broadcast(due):  # rank 0's clock decides: every rank takes part
            save_now()

    with ExitStack() as cleanup:
        board = None
        if fabric.is_global_zero:
            folder.write_log(state.rows)
            if tensorboard:
                from selfdistill.train.board import Board

                board = cleanup.enter_context(Board(folder.path / "tensorboard", state.epoch))
        interruptions.at_once = False
        Loop(session, state, interruptions, save=save_now, epoch_done=epoch_done, progress=progress).run()
        interruptions.at_once = True
        if interruptions.received:
            raise interruptions.interrupted("after the last epoch, saved", interruptions.received)


def _evaluate(session: Session) -> tuple[Evaluation, float]:
    started = time.perf_counter()
    evaluation = evaluate(
        session.distiller.model,
        session.data,
        device=session.device,
        batch_size=session.eval_batch_size,
        workers=session.workers,
        precision=session.recipe.precision,
    )
    return evaluation, time.perf_counter() - started


@contextmanager
def machine(threads: int | None) -> Iterator[None]:
    """Set torch's threads, keep freed memory, and let cuDNN choose by measuring; put all of it back."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)
    try:
        with freed_memory_kept(), cudnn:
            yield
    finally:
        torch.set_num_threads(before)
