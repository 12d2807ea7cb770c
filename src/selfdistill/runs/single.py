"""Train one classifier or one detector with a progress bar."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.detect.config import DetectConfig
from selfdistill.errors import ArgumentError, blaming
from selfdistill.methods import parse_method
from selfdistill.progress import Display, Progress
from selfdistill.records import RunRecord
from selfdistill.runs.folders import name_of
from selfdistill.runs.grid import describe_plan, plan_runs
from selfdistill.training import train
from selfdistill.training.run import load

if TYPE_CHECKING:
    from selfdistill.detect.record import DetectRecord


def run_single(
    recipe: TrainConfig,
    out: Path | None,
    *,
    devices: int,
    nodes: int,
    accelerator: str,
    data: ImageData | None = None,
) -> tuple[RunRecord | None, Path]:
    """Train by a recipe, say what and how far, and return the record and the run's folder.

    Of several processes only the first returns the record: what is shown afterwards is shown once.

    Args:
        out: the run's folder; None is ``runs/<data>-<method>-seed<N>``.
        devices: as for :func:`selfdistill.training.train`, like the rest.
        data: the images, if they are there already; None loads those of the recipe.
    """
    with blaming("method"):
        method = parse_method(recipe.method)
    if recipe.stages and not method.needs.stages:
        raise ArgumentError("stages", f"would be ignored: {method!r} has no branches at inner stages")
    (run,) = plan_runs(recipe, [recipe.method], [recipe.seed])
    out = out or Path("runs") / f"{name_of(recipe.data)}-{run.name}"
    data = load(recipe, data)
    with Display() as display:
        started = False

        def report(event: Progress) -> None:
            nonlocal started
            if not started:  # not before: what is wrong with the recipe shows up as the run starts
                display.say(describe_plan(recipe, data))
                started = True
            display.update(run.name, event)

        record = train(
            run.recipe,
            out,
            data=data,
            devices=devices,
            nodes=nodes,
            accelerator=accelerator,
            progress=report,
        )
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    return record if first else None, out


def run_detector(
    recipe: DetectConfig, out: Path | None, *, devices: int, nodes: int, accelerator: str
) -> tuple["DetectRecord | None", Path]:
    """Train and evaluate a detector with a progress bar; return the record and the run's folder.

    Of several processes only the first returns the record, so that its results are printed once.

    Args:
        out: the run's folder; None is ``detectors/<data>-<backbone>-<E>-epochs-seed<N>``.
        devices: as for :func:`run_single`, like the rest.
    """
    from selfdistill.detect.run import detect  # which needs the extra [detect]

    start = recipe.model if recipe.backbone is None else Path(recipe.backbone).expanduser().resolve().name
    data = Path(recipe.data).expanduser().resolve().name
    name = f"{data}-{start}-{recipe.epochs}-epochs-seed{recipe.seed}"
    out = out or Path("detectors") / name
    with Display() as display:
        record = detect(
            recipe,
            out,
            devices=devices,
            nodes=nodes,
            accelerator=accelerator,
            progress=partial(display.update, out.name),
            announce=display.say,
        )
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    return record if first else None, out
