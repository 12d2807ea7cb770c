"""Object detection as a task of the training engine: Faster R-CNN, its four losses, COCO's mAP."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from selfdistill.data.decode import cpu_count
from selfdistill.data.fingerprint import Fingerprint
from selfdistill.detect.batches import Batch, BoxLoader, Target, in_order
from selfdistill.detect.coco import Coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.metric import average_precision
from selfdistill.detect.network import Backbone, build_detector
from selfdistill.detect.record import METRICS, AveragePrecision, DetectRecord, make_record
from selfdistill.network import evaluation_mode
from selfdistill.progress import Counter, OnProgress, no_progress
from selfdistill.training.export import save_weights
from selfdistill.training.meters import Loss
from selfdistill.training.session import Session, prepare
from selfdistill.training.task import State, Task

if TYPE_CHECKING:
    from lightning.fabric import Fabric

TERMS = ("classifier", "box_reg", "objectness", "rpn_box_reg")
"""The four losses, which are added: of the proposals their class and box, of the anchors whether they hold an object,
and their box."""


class Detection(Task[Batch]):
    """Train an object detector on a backbone.

    Args:
        recipe: resolved.
        data: what to train and evaluate on.
        backbone: what the detector starts from.
        fabric: launched.

    Attributes:
        detector: the network that is trained.
        workers: processes that decode image files.

    Raises:
        ValueError: the batch cannot be shared among the processes.
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
    """Build detector, loader and optimiser; afterwards the random state is that of the run's first step.

    Raises:
        ValueError: the batch cannot be shared among the processes.
    """
    return prepare(recipe, fabric, lambda fabric: Detection(recipe, data, backbone, fabric))
