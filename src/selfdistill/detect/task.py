"""Object detection as a task of the training engine: Faster R-CNN, its four losses, COCO's mAP.

The mAP is torchmetrics', with the kernels of faster-coco-eval.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from selfdistill.data.decode import cpu_count
from selfdistill.data.fingerprint import Fingerprint
from selfdistill.detect.batches import Batch, BoxLoader, Target, in_order
from selfdistill.detect.coco import Coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import Backbone, build_detector
from selfdistill.detect.record import METRICS, AveragePrecision, DetectRecord, make_record
from selfdistill.network import evaluation_mode
from selfdistill.progress import Counter, OnProgress, no_progress
from selfdistill.training.export import save_weights
from selfdistill.training.meters import Loss
from selfdistill.training.session import Session, prepare
from selfdistill.training.task import State, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TERMS = ("classifier", "box_reg", "objectness", "rpn_box_reg")
"""The four losses, which are added: of the proposals their class and box, of the anchors whether they hold an object,
and their box."""


class Detection(Task[Batch]):
    """Train an object detector on a backbone, by a resolved recipe and on a launched fabric.

    Attributes:
        detector: the network that is trained.
        workers: processes that decode image files.
    """

    network_name = "detector"
    counts = ()
    metrics = METRICS
    labels: Mapping[str, str] = {"map": "mAP"}

    def __init__(self, recipe: DetectConfig, data: Coco, backbone: Backbone, fabric: "Fabric"):
        self.recipe, self.data, self.backbone, self.fabric = recipe, data, backbone, fabric
        self.detector = build_detector(backbone, recipe, data.classes)
        self.network = self.detector
        self.workers = min(8, cpu_count()) if recipe.workers is None else recipe.workers
        self.loader = BoxLoader(
            data.train.images,
            flip=recipe.flip,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            device=fabric.device,
            workers=self.workers,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the images and boxes."""
        return self.data.fingerprint

    def loss(self, module: nn.Module, batch: Batch, position: int) -> Loss:
        """Return the sum of :data:`TERMS`."""
        losses = module(batch.images, batch.targets)
        terms = torch.stack([losses[f"loss_{name}"] for name in TERMS])
        return Loss(terms.sum(), dict(zip(TERMS, terms.detach(), strict=True)), {}, len(batch.images))

    def average_precision(self, progress: OnProgress = no_progress) -> AveragePrecision:
        """Measure the detector, trained or not, image by image against the boxes that are there."""
        part = self.data.evaluation

        def detections() -> Iterator[tuple[dict[str, Tensor], Target]]:
            batches = in_order(part.images, device=self.fabric.device, workers=self.workers)
            count = Counter(progress, f"measuring mAP on {part.name}", len(part))
            for images, targets in batches:
                yield self.detector(images)[0], targets[0]
                count(1)

        with evaluation_mode(self.detector), torch.inference_mode():
            return average_precision(detections())

    def evaluate(self, progress: OnProgress, epoch: int) -> dict[str, float | None]:
        """Return COCO's averages, and how many detections there were."""
        measured = self.average_precision(progress)
        return {name: getattr(measured, name) for name in METRICS}

    def finish(self, run: Path, state: State) -> DetectRecord:
        """Write the detector as ``model.safetensors``; the record has what was measured after the last epoch."""
        save_weights(self.detector, run / "model.safetensors")
        return make_record(
            run.name,
            self.recipe,
            self.data,
            self.backbone,
            self.detector,
            state,
            processes=self.fabric.world_size,
        )


def assemble(recipe: DetectConfig, data: Coco, backbone: Backbone, fabric: "Fabric") -> Session[Detection]:
    """Build detector, loader and optimiser; afterwards the random state is that of the run's first step."""
    return prepare(recipe, fabric, lambda fabric: Detection(recipe, data, backbone, fabric))


_NAMES = {name: name for name in METRICS if name.startswith("map")} | {"recall": "mar_100"}


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
