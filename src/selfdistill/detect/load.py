"""A finished detector, to be used."""

from pathlib import Path

from torch import Tensor
from torchvision.models.detection import FasterRCNN

from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import Backbone, build_detector
from selfdistill.detect.record import DetectRecord
from selfdistill.errors import NonFiniteError
from selfdistill.network import DIVERGED, nonfinite_weights
from selfdistill.train.export import read_run_weights


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
        raise ValueError(f"{run} holds no finished detector: there is no {path.name} in it")
    record = DetectRecord.load(path)
    known = record.backbone
    backbone = Backbone(known["model"], None, tuple(known["mean"]), tuple(known["std"]), {})
    detector = build_detector(backbone, DetectConfig(**record.recipe), record.data["classes"])
    try:
        detector.load_state_dict(load_weights(run))
    except RuntimeError as error:
        raise ValueError(f"the weights of {run} do not fit {path}: {' '.join(str(error).split())}") from None
    if name := nonfinite_weights(detector):
        raise NonFiniteError(f"{run}: the weights {name!r} are not finite after epoch {record.epochs}; {DIVERGED}")
    return detector.eval()


def load_weights(run: Path) -> dict[str, Tensor]:
    """Return a detector's weights, if their checksum agrees; those of earlier versions have none.

    Raises:
        ValueError: they are missing or damaged.
    """
    return read_run_weights(run / "model.safetensors")
