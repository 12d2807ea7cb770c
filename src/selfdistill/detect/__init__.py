"""Object detection on a trained backbone (Table 4): Faster R-CNN, COCO's layout, COCO's mAP.

Names are resolved on first use, so that reading a recipe (and ``selfdistill --help``) needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfdistill.detect.coco import Coco, load_coco
    from selfdistill.detect.config import DetectConfig
    from selfdistill.detect.record import AveragePrecision, DetectRecord
    from selfdistill.detect.run import detect, load_detector
    from selfdistill.detect.task import average_precision

_WHERE = {
    "AveragePrecision": "record",
    "Coco": "coco",
    "DetectConfig": "config",
    "DetectRecord": "record",
    "average_precision": "task",
    "detect": "run",
    "load_coco": "coco",
    "load_detector": "run",
}

__all__ = [
    "AveragePrecision",
    "Coco",
    "DetectConfig",
    "DetectRecord",
    "average_precision",
    "detect",
    "load_coco",
    "load_detector",
]


def __getattr__(name: str) -> object:
    """Import the module that holds a public name when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
