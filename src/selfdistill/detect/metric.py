"""COCO's mean average precision, by torchmetrics with the kernels of faster-coco-eval."""

from collections.abc import Iterable, Mapping

from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from selfdistill.detect.record import AveragePrecision

_NAMES = {
    "map": "map",
    "map_50": "map_50",
    "map_75": "map_75",
    "map_small": "map_small",
    "map_medium": "map_medium",
    "map_large": "map_large",
    "recall": "mar_100",
}


def average_precision(
    detected: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]],
) -> AveragePrecision:
    r"""Measure detections against the boxes that are there.

    .. math:: \mathrm{mAP} = \frac{1}{|C|} \sum_{c \in C} \frac{1}{10} \sum_{t = 0.50, 0.55 \ldots 0.95} \frac{1}{101}
              \sum_{r = 0, 0.01 \ldots 1} \max_{r' \ge r} p_{c,t}(r')

    C are the classes with a box, p the precision among the detections of class c, by falling score, down to recall r'.
    A detection is right where its IoU with a box of its class that no better one took is at least t. A crowd
    (``iscrowd``) takes any number of detections, which then count neither as right nor as wrong. Which of the three
    sizes an object has is said by ``area``, in COCO that of its outline, not of its box.

    Args:
        detected: for each image, what was found (``boxes`` ``(m, 4)``, ``scores`` ``(m,)``, ``labels`` ``(m,)``) and
            what is there, a :data:`~selfdistill.detect.batches.Target`; boxes in pixels of the image as it is stored.

    Source:
        Lin et al., Microsoft COCO (reference [28] of the paper), and the benchmark's own evaluation code.

    Example:
        >>> import torch
        >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        >>> there = {"boxes": box, "labels": torch.tensor([3]), "area": torch.tensor([100.0])}
        >>> found = {"boxes": box, "labels": torch.tensor([3]), "scores": torch.tensor([0.9])}
        >>> measured = average_precision([(found, there | {"iscrowd": torch.tensor([0])})])
        >>> measured.map, measured.map_small, measured.map_large
        (1.0, 1.0, None)
    """
    # Where there are several processes, one measures: it is not to wait for the others' detections.
    metric = MeanAveragePrecision(backend="faster_coco_eval", sync_on_compute=False)
    n = boxes = detections = 0
    for found, there in detected:
        metric.update([_on_cpu(found)], [_on_cpu(there)])
        n += 1
        boxes += int((there["iscrowd"] == 0).sum())
        detections += len(found["scores"])
    values = {name: float(value) for name, value in metric.compute().items() if name in _NAMES.values()}
    return AveragePrecision(
        **{ours: None if values[theirs] < 0 else values[theirs] for ours, theirs in _NAMES.items()},  # -1: no such box
        n=n,
        boxes=boxes,
        detections=detections,
    )


def _on_cpu(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in values.items()}
