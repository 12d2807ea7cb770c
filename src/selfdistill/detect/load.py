"""A finished detector, to be used."""

from pathlib import Path

from safetensors.torch import load_file
from torchvision.models.detection import FasterRCNN

from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import Backbone, build_detector
from selfdistill.detect.record import DetectRecord


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
    path, weights = run / "result.json", run / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"{run} holds no finished detector: {path.name} is missing in it")
    record = DetectRecord.load(path)
    known = record.backbone
    backbone = Backbone(known["model"], None, tuple(known["mean"]), tuple(known["std"]), {})
    detector = build_detector(backbone, DetectConfig(**record.recipe), record.data["classes"])
    try:
        detector.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise ValueError(f"{weights} is missing: delete {path} and run the same command again") from None
    except Exception as error:  # safetensors raises a bare Exception subclass for a damaged file
        raise ValueError(f"{weights} does not fit {path}: {' '.join(str(error).split())}") from None
    return detector.eval()
