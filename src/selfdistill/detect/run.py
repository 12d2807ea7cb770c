"""A detector's run: a folder, a recipe, and at the end a record. ``detect`` is the one function that does it all."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from selfdistill.detect.coco import Coco, load_coco
from selfdistill.detect.loop import Loop
from selfdistill.detect.measuring import measure_and_tell
from selfdistill.detect.network import Backbone, load_backbone
from selfdistill.detect.recipe import DetectRecipe
from selfdistill.detect.record import DetectRecord, make_record
from selfdistill.detect.session import Session, assemble
from selfdistill.detect.state import State, resume, save
from selfdistill.train import random_state
from selfdistill.train.checkpoint import Checkpoints
from selfdistill.train.export import save_weights
from selfdistill.train.folder import RunFolder
from selfdistill.train.progress import Callback
from selfdistill.train.recipe import Recipe
from selfdistill.train.run import machine
from selfdistill.train.session import make_fabric
from selfdistill.train.signals import Interruptions
from selfdistill.train.state import Row

SAVE_SECONDS = 5.0
"""Epochs shorter than this do not all get a checkpoint; the last one does."""


def detect(
    recipe: DetectRecipe,
    out: str | Path,
    *,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    progress: Callback | None = None,
    announce: Callable[[str], None] | None = None,
) -> DetectRecord:
    """Train a detector by a recipe into a folder, or go on with what is there, and measure it.

    A run that was killed and is started again ends, on a CPU, with the same bits as one that was not.

    Args:
        recipe: what to do.
        out: the run folder; made if need be.
        devices: GPUs, or CPU processes, on each machine.
        nodes: machines.
        accelerator: ``"cuda"``, ``"cpu"``, or ``"auto"`` for a GPU where there is one.
        progress: is called with each :class:`~selfdistill.train.progress.Update`.
        announce: is called with a line on what is done, before it begins.

    Returns:
        The record that is in ``out/result.json``; the weights are in ``out/model.safetensors``.

    Raises:
        ValueError: the recipe, the data or the folder do not fit; one line.
        OSError: something cannot be written; the last checkpoint is kept.
        RuntimeError: an image cannot be read; or, as NonFiniteLossError, the loss was not finite.
        Interrupted: SIGTERM or SIGINT came; the state is saved and the message says how to go on.
    """
    out = Path(out)
    with ExitStack() as cleanup:
        cleanup.enter_context(random_state.preserved())
        interruptions = cleanup.enter_context(Interruptions(f"run the same command again to go on ({out})"))
        backbone = load_backbone(recipe)
        recipe = recipe.resolve(backbone.model, trained=backbone.state is not None)
        folder = RunFolder(out)
        if folder.finished():
            record = DetectRecord.load(folder.result)
            folder.check(recipe)
            return record
        data = load_coco(
            recipe.data,
            images=recipe.images,
            measure_on=recipe.measure_on,
            measured_images=recipe.measured_images,
        )
        # Of a recipe it reads the precision alone; a detector has its own way to half precision.
        fabric = make_fabric(Recipe(precision="32-true"), devices=devices, nodes=nodes, accelerator=accelerator)
        if fabric.is_global_zero:
            cleanup.enter_context(folder.opened(recipe))
        fabric.launch()
        cleanup.enter_context(machine(recipe.threads))  # the launcher sets threads of its own
        # Images differ in shape: to measure the fastest convolution for each takes longer than it saves.
        cleanup.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True))
        session = assemble(recipe, data, backbone, fabric)
        if announce is not None and fabric.is_global_zero:
            announce(plan(recipe, data, backbone))
        if session.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(session.device)
        checkpoints = Checkpoints(folder.checkpoints)
        state = resume(session, checkpoints)
        fabric.barrier()
        _train(session, state, checkpoints, folder, interruptions, progress)
        if fabric.is_global_zero:
            started = time.perf_counter()
            measured = measure_and_tell(session, progress)
            save_weights(session.detector, out / "model.safetensors")
            seconds = time.perf_counter() - started
            record = make_record(out.name, session, state, measured, backbone=backbone, seconds=seconds)
            record.save(folder.result)
        fabric.barrier()
        return DetectRecord.load(folder.result)


def plan(recipe: DetectRecipe, data: Coco, backbone: Backbone) -> str:
    """Return a line on the images, the network and the schedule of a detector.

    Args:
        recipe: resolved.
        data: what it is trained and measured on.
        backbone: what it starts from.
    """
    train, measured = data.train, data.measured
    parts = [
        f"{data.name}: {len(train):,} images of {train.name}, {train.boxes:,} boxes ({train.crowds:,} crowds and "
        f"{train.degenerate:,} degenerate ones left out), measured on {len(measured):,} of {measured.name}",
        f"{backbone.model}, weights: {backbone.source['weights']}, {recipe.norm} BatchNorm, {recipe.image_size} px",
        f"{recipe.name_of_schedule}, batches of {recipe.batch_size}, lr {recipe.lr:g}",
    ]
    return "; ".join(parts)


def _train(
    session: Session,
    state: State,
    checkpoints: Checkpoints,
    folder: RunFolder,
    interruptions: Interruptions,
    progress: Callback | None,
) -> None:
    """Run the loop with what belongs to the end of an epoch: the log, a checkpoint now and then."""
    fabric = session.fabric
    saved_at = time.monotonic()

    def save_now() -> None:
        nonlocal saved_at
        save(session, state, checkpoints)
        saved_at = time.monotonic()

    def epoch_done(row: Row) -> None:
        if fabric.is_global_zero:
            folder.write_log(state.rows)
        due = state.epoch == session.recipe.epochs or time.monotonic() - saved_at >= SAVE_SECONDS
        if fabric.broadcast(due):  # rank 0's clock decides: every rank takes part
            save_now()

    if fabric.is_global_zero:
        folder.write_log(state.rows)
    interruptions.at_once = False
    Loop(session, state, interruptions, save=save_now, epoch_done=epoch_done, progress=progress).run()
    interruptions.at_once = True
    if interruptions.received:
        raise interruptions.interrupted("after the last epoch, saved", interruptions.received)
