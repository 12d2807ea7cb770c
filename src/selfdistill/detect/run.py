"""An object detector's run: ``detect`` does it all, ``load_detector`` loads what it left."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torchvision.models.detection import FasterRCNN

from selfdistill.data.fingerprint import changes
from selfdistill.detect.coco import Coco, load_coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import Backbone, build_detector, load_backbone
from selfdistill.detect.record import DetectRecord
from selfdistill.detect.task import Detection, assemble
from selfdistill.errors import NonFiniteError, blaming
from selfdistill.network import DIVERGED, nonfinite_weights
from selfdistill.progress import OnProgress, no_progress
from selfdistill.training.export import read_run_weights
from selfdistill.training.run import interruptible, load_finished, run_task
from selfdistill.training.session import Session, check_devices

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def detect(
    recipe: DetectConfig,
    out: str | Path,
    *,
    devices: int = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    progress: OnProgress = no_progress,
    announce: Callable[[str], None] | None = None,
) -> DetectRecord:
    """Train an object detector by a recipe into a folder, or resume what is there, and evaluate it.

    A run that was killed and is started again ends, on a CPU, with the same bits as one that was not.

    Args:
        out: the run folder; made if need be.
        accelerator: ``"cuda"``, ``"mps"``, ``"cpu"``, or ``"auto"`` for a GPU where there is one.
        progress: is called with each :class:`~selfdistill.progress.Progress`.
        announce: is called with a line on what is done, before it begins.

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
        check_devices(devices, nodes, accelerator)  # before seconds of reading annotations
        with blaming("data"):
            data = load_coco(
                recipe.data, images=recipe.images, eval_split=recipe.eval_split, eval_images=recipe.eval_images
            )
        here = data.fingerprint

        def changed(record: DetectRecord) -> str:
            return changes(record.data.fingerprint or here, here)

        finished = load_finished(resolved, Path(out), DetectRecord, here, changed, load_weights)
        if finished is not None:
            return finished

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
        )


def plan(recipe: DetectConfig, data: Coco, backbone: Backbone) -> str:
    """Return a line on the images, the network and the schedule of a detector."""
    train, evaluation = data.train, data.evaluation
    parts = [
        f"{data.name}: {len(train):,} images of {train.name}, {train.boxes:,} boxes ({train.crowds:,} crowds and "
        f"{train.degenerate:,} degenerate ones left out), evaluated on {len(evaluation):,} of {evaluation.name}",
        f"{backbone.model}, weights: {backbone.source['weights']}, {recipe.norm} BatchNorm, {recipe.image_size} px",
        f"{recipe.schedule_name}, batches of {recipe.batch_size}, lr {recipe.lr:g}",
    ]
    return "; ".join(parts)


def load_detector(run: str | Path) -> FasterRCNN:
    """Load a run's detector, in evaluation mode on the CPU.

    It takes a list of images, each float32 ``(3, H, W)`` in [0, 1], and returns for each ``boxes`` ``(m, 4)`` in its
    pixels, ``labels`` (the data's category ids) and ``scores``.

    Args:
        run: the folder that ``selfdistill detect`` wrote.

    Raises:
        ValueError: there is no finished detector, or its files are damaged or do not fit each other.
    """
    run = Path(run)
    path = run / "result.json"
    if not path.is_file():
        raise ValueError(f"{run} is not a finished detector: {path.name} is missing")
    record = DetectRecord.load(path)
    start = record.backbone
    backbone = Backbone(start.model, None, start.mean, start.std, {})
    detector = build_detector(backbone, record.recipe, record.data.classes)
    try:
        detector.load_state_dict(load_weights(run))
    except RuntimeError as error:
        raise ValueError(f"the weights of {run} do not fit {path}: {' '.join(str(error).split())}") from None
    if name := nonfinite_weights(detector):
        raise NonFiniteError(f"{run}: the weights {name!r} are not finite after epoch {record.epochs}; {DIVERGED}")
    return detector.eval()


def load_weights(run: Path) -> dict[str, Tensor]:
    """Return a detector's weights, if their checksum agrees; those of earlier versions have none."""
    return read_run_weights(run / "model.safetensors")
