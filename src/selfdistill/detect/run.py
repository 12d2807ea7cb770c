"""An object detector's run. ``detect`` is the one function that does it all."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from selfdistill.detect.coco import Coco, load_coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.load import load_weights
from selfdistill.detect.network import Backbone, load_backbone
from selfdistill.detect.record import DetectRecord
from selfdistill.detect.task import Detection, assemble
from selfdistill.train.checkpoint import SaveEvery
from selfdistill.train.progress import Callback
from selfdistill.train.run import interruptible, load_finished, run_task
from selfdistill.train.session import Session

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def detect(
    recipe: DetectConfig,
    out: str | Path,
    *,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    progress: Callback | None = None,
    announce: Callable[[str], None] | None = None,
    save_every: SaveEvery | None = None,
) -> DetectRecord:
    """Train an object detector by a recipe into a folder, or resume what is there, and evaluate it.

    A run that was killed and is started again ends, on a CPU, with the same bits as one that was not.

    Args:
        recipe: what to do.
        out: the run folder; made if need be.
        devices: GPUs, or CPU processes, on each machine.
        nodes: machines.
        accelerator: ``"cuda"``, ``"cpu"``, or ``"auto"`` for a GPU where there is one.
        progress: is called with each :class:`~selfdistill.train.progress.Update`.
        announce: is called with a line on what is done, before it begins.
        save_every: how often to save inside an epoch.

    Returns:
        The record that is in ``out/result.json``; the weights are in ``out/model.safetensors``.

    Raises:
        ValueError: the recipe, the data or the folder do not fit; one line.
        OSError: something cannot be written; the last checkpoint is kept.
        RuntimeError: an image cannot be read.
        NonFiniteError: the loss or a weight was not finite; names the run, the epoch and the remedy.
        Interrupted: SIGTERM, SIGHUP or SIGINT came; the state is saved and the message says how to resume.
    """
    with interruptible(Path(out)) as interruptions:
        backbone = load_backbone(recipe)
        resolved = recipe.resolve(backbone.model, trained=backbone.state is not None)
        if (finished := load_finished(resolved, Path(out), DetectRecord, load_weights)) is not None:
            return finished
        data = load_coco(
            recipe.data, images=recipe.images, eval_split=recipe.eval_split, eval_images=recipe.eval_images
        )

        def assemble_detection(fabric: "Fabric") -> Session[Detection]:
            if announce is not None and fabric.is_global_zero:
                announce(plan(resolved, data, backbone))
            return assemble(resolved, data, backbone, fabric)

        return run_task(
            resolved,
            Path(out),
            assemble_detection,
            DetectRecord,
            interruptions,
            devices=devices,
            nodes=nodes,
            accelerator=accelerator,
            cudnn_benchmark=False,  # images differ in shape: measuring takes longer than it saves
            progress=progress,
            save_every=save_every,
        )


def plan(recipe: DetectConfig, data: Coco, backbone: Backbone) -> str:
    """Return a line on the images, the network and the schedule of a detector.

    Args:
        recipe: resolved.
        data: what it is trained and evaluated on.
        backbone: what it starts from.
    """
    train, evaluation = data.train, data.evaluation
    parts = [
        f"{data.name}: {len(train):,} images of {train.name}, {train.boxes:,} boxes ({train.crowds:,} crowds and "
        f"{train.degenerate:,} degenerate ones left out), evaluated on {len(evaluation):,} of {evaluation.name}",
        f"{backbone.model}, weights: {backbone.source['weights']}, {recipe.norm} BatchNorm, {recipe.image_size} px",
        f"{recipe.schedule_name}, batches of {recipe.batch_size}, lr {recipe.lr:g}",
    ]
    return "; ".join(parts)
