"""A run: a folder, a recipe, and at the end a record. ``train`` trains a classifier, ``run_task`` anything else."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from selfdistill.config.duration import parse_save_every
from selfdistill.config.train_config import ResolvedTrainConfig, TrainConfig
from selfdistill.config.training import TrainingConfig
from selfdistill.data import ImageData, load_data
from selfdistill.data.cache import decoded_once
from selfdistill.data.files import explained_worker_losses
from selfdistill.data.fingerprint import Fingerprint, changes
from selfdistill.data.sets import (
    BILINEAR,
    HELD_OUT_BY_HASH,
    VAL_FRACTION,
    Limits,
    Resizing,
    hold_out_validation,
    train_on_validation,
    without_test,
)
from selfdistill.data.sources import check_root
from selfdistill.errors import ArgumentError, blaming, check_folder, naming
from selfdistill.files import make_folder, parse_json, read_file, refuse_link, write_atomically
from selfdistill.models.function import is_function
from selfdistill.models.pretrained import Pretrained, pretrained
from selfdistill.progress import OnProgress, no_progress
from selfdistill.records import RunRecord
from selfdistill.training import random_state
from selfdistill.training.checkpoint import Checkpoints, Saver, resume
from selfdistill.training.classification import assemble, cache_files
from selfdistill.training.export import AGAIN, load_weights, save_weights
from selfdistill.training.folder import RunFolder
from selfdistill.training.loop import Loop
from selfdistill.training.record import changes_since, recipe_values
from selfdistill.training.session import Session, keep_malloc_pools, make_fabric
from selfdistill.training.signals import Interruptions
from selfdistill.training.task import Record, Row, State
from selfdistill.training.trackers import check_tracker, make_tracker

if TYPE_CHECKING:
    from lightning_fabric import Fabric

R = TypeVar("R", bound=Record)


class StoppedError(Exception):
    """A training was stopped after an epoch, as it was asked to; it can be resumed.

    Attributes:
        rows: of its log.
    """

    def __init__(self, rows: list[Row]):
        super().__init__(f"stopped after epoch {len(rows)}, saved")
        self.rows = rows


Stop = Callable[[Row], bool]
"""Asked after each epoch, with its row of the log, whether the training shall stop there."""

SAVE_SECONDS = 5.0
"""Epochs shorter than this do not all get a checkpoint; the last one does."""


def train(
    recipe: TrainConfig,
    out: str | Path,
    *,
    data: ImageData | None = None,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    progress: OnProgress = no_progress,
    save_seconds: float | None = None,
    stop: Stop | None = None,
) -> RunRecord:
    """Train by a recipe into a run folder, or resume what is there; a finished run is returned as it is.

    A run that was killed and is started again ends, on a CPU, with the same bits as one that was not.

    Args:
        recipe: what to do; what it leaves open is filled in from the data.
        out: the run folder; made if need be.
        data: the images; None loads ``recipe.data``.
        devices: GPUs, or CPU processes, on each machine.
        nodes: machines.
        accelerator: ``"cuda"``, ``"mps"``, ``"cpu"``, or ``"auto"`` for a GPU where there is one.
        progress: is called with each :class:`~selfdistill.progress.Progress`.
        save_seconds: at the end of an epoch, save unless the last checkpoint is younger (default: `SAVE_SECONDS`).
        stop: ends the training after an epoch, saved; without it the same call goes on from there.

    Returns:
        The record that is in ``out/result.json``.

    Raises:
        ValueError: the recipe, the data or the folder do not fit; one line.
        OSError: something cannot be written; the last checkpoint is kept.
        NonFiniteError: the loss, a weight or a logit was not finite; names the run, the epoch and the remedy.
        Interrupted: SIGTERM, SIGHUP or SIGINT came; the state is saved and the message says how to resume.
        StoppedError: ``stop`` said so.
    """
    with interruptible(Path(out)) as interruptions:
        images = load(recipe) if data is None else as_pretrained(recipe, data)
        if data is not None and recipe.val_fraction and images.val is None:
            images = hold_out_validation(images, recipe.val_fraction)
        if data is not None and recipe.train_on_val and images.val is not None:
            images = train_on_validation(images)
        resolved = recipe.resolve(images)
        if (finished := check_run(resolved, Path(out), images)) is not None:
            return finished

        def run(resolved: ResolvedTrainConfig, out: Path, images: ImageData, stop: Stop | None = None) -> RunRecord:
            return run_task(
                resolved,
                out,
                lambda fabric: assemble(resolved, images, fabric),
                RunRecord,
                interruptions,
                devices=devices,
                nodes=nodes,
                accelerator=accelerator,
                progress=progress,
                save_seconds=save_seconds,
                stop=stop,
            )

        if resolved.finds_weight and resolved.auto_weight is None:
            if devices * nodes > 1:
                raise ArgumentError("devices", "must be 1 for weight='auto', which trains twice; give the found weight")
            weight = find_weight(resolved, Path(out), images, run)
            resolved = replace(resolved, auto_weight=weight)
        return run(resolved, Path(out), images, stop)


def find_weight(
    recipe: ResolvedTrainConfig,
    out: Path,
    images: ImageData,
    run: Callable[[ResolvedTrainConfig, Path, ImageData], RunRecord],
) -> float:
    """Return the weight of ``weight="auto"``: that of a first training, which follows held-out images.

    It is kept in ``auto_weight.json``; the first training's folder is deleted once it is known.

    Args:
        images: of the run; where none are held out, a fifth of the training images is.
    """
    known, pilot = out / "auto_weight.json", refuse_link(out / "pilot")
    if not known.is_file():
        parts = images if images.val is not None else hold_out_validation(images, VAL_FRACTION)
        first = replace(recipe, keep="last", patience=None, keep_epochs=(), eval_every=1, log=None)
        weight = run(first, pilot, without_test(parts)).recipe.auto_weight
        make_folder(out)
        write_atomically(known, json.dumps({"auto_weight": weight}).encode())
    shutil.rmtree(pilot, ignore_errors=True)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        weight = float(parse_json(read_file(known))["auto_weight"])
        if 0 <= weight < float("inf"):
            return weight
    raise ValueError(f"{known} is damaged: delete it, and the weight is found again")


@contextmanager
def interruptible(out: Path) -> Iterator[Interruptions]:
    """Note signals meanwhile, leave the caller's random states as they were, and name the run that diverges."""
    hint = f"run the same command again to resume ({out})"
    with naming(out), explained_worker_losses(), random_state.preserved(), Interruptions(hint) as interruptions:
        yield interruptions


def check_run(recipe: ResolvedTrainConfig, out: Path, images: ImageData) -> RunRecord | None:
    """Return the record of a finished run, None if it is not finished; refuse the run of another recipe or of others.

    Raises:
        ValueError: the run has another recipe or other images, or its record is damaged.
    """

    def changed(record: RunRecord) -> str:
        return changes_since(record.data, images)

    return load_finished(recipe, out, RunRecord, images.fingerprint, changed, load_weights)


def load_finished(
    recipe: TrainingConfig,
    out: Path,
    record: type[R],
    data: Fingerprint,
    changed: Callable[[R], str],
    check_weights: Callable[[Path], object],
) -> R | None:
    """Return the record of a finished run; None if it is not finished, or its weights must be made again.

    Args:
        changed: says what of the data is different since a record.
        check_weights: raises a ValueError where the run's weights are missing or damaged.

    Raises:
        ValueError: the run, finished or not, is another recipe's or of other data, or its record is damaged.
    """
    folder = RunFolder(out)
    folder.check(recipe)
    if folder.finished():
        finished = record.load(folder.result)
        folder.check(recipe, None if folder.recipe.is_file() else vars(finished.recipe), changed(finished))
        try:
            check_weights(out)
        except ValueError as error:
            warnings.warn(f"{str(error).removesuffix(AGAIN)}it is made again", stacklevel=2)
            return None
        return finished
    if (found := Checkpoints(folder.checkpoints).newest()) is not None:
        there, made_by = (found[1].get(name) for name in ("data", "recipe"))  # earlier versions wrote neither
        if made_by is None and not folder.recipe.is_file():
            raise ValueError(f"{out} has lost its recipe.yaml: choose another `out`, or delete it")
        unknown = "the test images were held out in another way" if data["split"] in HELD_OUT_BY_HASH else ""
        folder.check(recipe, made_by, unknown if there is None else changes(there, data))
    return None


def run_task(
    recipe: TrainingConfig,
    out: Path,
    assemble: Callable[["Fabric"], Session[Any]],
    record: type[R],
    interruptions: Interruptions,
    *,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    cudnn_benchmark: bool = True,
    progress: OnProgress = no_progress,
    save_seconds: float | None = None,
    stop: Stop | None = None,
) -> R:
    """Train any task into the folder of a run that is not finished, or resume what is there; return its record.

    Args:
        out: the run folder; made if need be.
        assemble: builds the session, in each process, once the folder is known to be this recipe's.
        interruptions: from :func:`interruptible`.
        devices: as for :func:`train`, like the rest.
        cudnn_benchmark: let cuDNN choose each convolution by measuring: for batches of one shape.
        progress: is called with each :class:`~selfdistill.progress.Progress`.
        save_seconds: as for :func:`train`.
        stop: as for :func:`train`.

    Raises:
        ValueError: the folder is another recipe's, or what ``assemble`` raises.
        OSError: something cannot be written; the last checkpoint is kept.
        NonFiniteError: the loss, a weight or a logit was not finite.
        Interrupted: a signal came; the state is saved.
        StoppedError: ``stop`` said so; the state is saved.
    """
    check_tracker(recipe.log)
    with ExitStack() as cleanup:
        fabric = make_fabric(recipe, devices=devices, nodes=nodes, accelerator=accelerator)
        folder = RunFolder(out)
        if fabric.is_global_zero:
            cleanup.enter_context(folder.opened(recipe))
        fabric.launch()
        # The launcher sets threads of its own.
        cleanup.enter_context(machine(recipe.threads, cudnn_benchmark=cudnn_benchmark))
        session = assemble(fabric)
        if session.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(session.device)
        checkpoints = Checkpoints(folder.checkpoints)
        state = resume(session, checkpoints)
        state.done = state.epoch == recipe.epochs or session.task.is_done(state.rows)
        only_weights = folder.finished() and state.done
        fabric.barrier()
        saver = Saver(session, state, checkpoints, parse_save_every(recipe.save_every), save_seconds or SAVE_SECONDS)
        _train(session, state, saver, folder, interruptions, progress, stop)
        if fabric.is_global_zero:
            made = session.task.finish(out, state)
            if not only_weights:  # the record that is there is of these weights, and so are its evaluations
                made.save(folder.result)
        fabric.barrier()
        return record.load(folder.result)


def load(recipe: TrainConfig, data: ImageData | None = None, *, decode_once: bool = True) -> ImageData:
    """Load the data that a recipe names, with their decoded files where it wants those kept.

    Args:
        data: the whole set, if it is there already: the recipe's part of it is returned.
        decode_once: for fine-tuning, keep the decoded files if they are few, so that its epochs and other runs find
            them in ``data_root/cache``.
    """
    check_folder("data_root", Path(recipe.data_root))
    described = pretrained(recipe.model, recipe.weights)
    fixed = described.size if described and described.fixed_size else None  # from scratch too
    known = described if recipe.fine_tunes else None
    with blaming("data"):
        if data is not None:
            data = Limits(recipe.classes, recipe.per_class, recipe.test_per_class).apply(data)
        else:
            data = _load(recipe, recipe.image_size or fixed)
            if known and recipe.image_size is None and data.train.is_small and data.from_files:
                data = _load(recipe, known.size)  # small files are enlarged
    if recipe.val_fraction:
        data = hold_out_validation(data, recipe.val_fraction)
    if recipe.train_on_val:
        data = train_on_validation(data)
    if recipe.cache and data.train.is_small:
        raise ArgumentError("cache", f"would be ignored: {data.name} is in memory")
    if known and recipe.image_size is None and not data.train.is_small:  # not decoded yet
        data = replace(data, image_size=known.size)
    data = as_pretrained(recipe, data)
    if recipe.fine_tunes and not recipe.cache and decode_once:
        check_root(Path(recipe.data_root))
        return decoded_once(data, Path(recipe.data_root) / "cache")
    return cache_files(recipe, data)


def _load(recipe: TrainConfig, image_size: int | None) -> ImageData:
    return load_data(
        recipe.data,
        root=Path(recipe.data_root),
        image_size=image_size,
        classes=recipe.classes,
        per_class=recipe.per_class,
        test_per_class=recipe.test_per_class,
        skip_unreadable=recipe.skip_unreadable,
        max_pixels=recipe.max_pixels,
        as_they_are=is_function(recipe.model),
    )


def as_pretrained(recipe: TrainConfig, data: ImageData) -> ImageData:
    """Return images prepared as a recipe's pretrained weights are used to: normalised, resized and cut out.

    Raises:
        ArgumentError: the model takes images of another size alone, or the images are not resized.
    """
    known = pretrained(recipe.model_for(data.image_size), recipe.weights) if recipe.fine_tunes else None
    data = replace(data, resizing=_resizing(recipe, data, known))
    if known is None:
        return data
    if known.fixed_size and data.image_size != known.size:
        raise ArgumentError("image_size", f"must be {known.size} for {recipe.model}, not {data.image_size}")
    return replace(data, mean=known.mean, std=known.std)


def _resizing(recipe: TrainConfig, data: ImageData, known: Pretrained | None) -> Resizing:
    """Return how files are resized: as the recipe says, otherwise as the weights do."""
    given = {name: value for name in vars(BILINEAR) if (value := getattr(recipe, name)) is not None}
    if data.train.is_small:
        for name, value in given.items():
            if value != getattr(BILINEAR, name):
                raise ArgumentError(name, f"would be ignored: {data.name} is in memory")
        return BILINEAR
    usual = {} if known is None else {name: getattr(known, name) for name in vars(BILINEAR)}
    return Resizing(**usual | given)


def _train(
    session: Session[Any],
    state: State,
    saver: Saver,
    folder: RunFolder,
    interruptions: Interruptions,
    progress: OnProgress,
    stop: Stop | None,
) -> None:
    """Run the loop with what belongs to the end of an epoch: the log, kept weights, a checkpoint now and then."""
    fabric, recipe = session.fabric, session.recipe

    def epoch_done(row: Row) -> None:
        if fabric.is_global_zero:
            if state.epoch in recipe.keep_epochs:
                save_weights(session.task.model, folder.path / f"model@{state.epoch}.safetensors")
            folder.write_log(state.rows)
            if tracker is not None:
                tracker.write({name: value for name, value in row.items() if value is not None}, state.epoch)
        stopped = stop is not None and not state.done and stop(row)
        if stopped or state.done or saver.is_due_after_an_epoch():
            saver.save()
        if stopped:
            raise StoppedError(state.rows)

    with ExitStack() as cleanup:
        tracker = None
        if fabric.is_global_zero:
            if recipe.log is not None:
                tracker = make_tracker(recipe.log, folder.path, recipe_values(recipe), state.epoch)
                cleanup.callback(tracker.close)
            folder.write_log(state.rows)
        interruptions.at_once = False
        Loop(session, state, interruptions, saver=saver, epoch_done=epoch_done, progress=progress).run()
        interruptions.at_once = True
        if interruptions.received:
            raise interruptions.interrupted("after the last epoch, saved", interruptions.received)


@contextmanager
def machine(threads: int | None, *, cudnn_benchmark: bool = True) -> Iterator[None]:
    """Set torch's threads, keep freed memory, and let cuDNN choose by measuring; put all of it back."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=cudnn_benchmark, deterministic=False, allow_tf32=True)
    try:
        with keep_malloc_pools(), cudnn:
            yield
    finally:
        torch.set_num_threads(before)
