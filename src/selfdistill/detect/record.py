"""The record of a detector, `result.json`: written last and atomically, so that a run that has one is finished."""

from importlib.metadata import version
from pathlib import Path
from typing import Self

import msgspec
from torch import nn

from selfdistill.data.fingerprint import Fingerprint
from selfdistill.detect.coco import Coco, Part
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import Backbone
from selfdistill.records import recipe_hash
from selfdistill.records.record import JsonRecord, plain, read_json, to_struct
from selfdistill.training.record import peak_memory_bytes, provenance
from selfdistill.training.task import State

SCHEMA = "detection 2"


class AveragePrecision(msgspec.Struct, frozen=True, kw_only=True):
    """How well boxes were found: COCO's averages, fractions; None where there is no such box.

    Attributes:
        map: mean over IoU 0.50, 0.55 ... 0.95, over the classes that occur, of the precision at 101 recalls: "mAP".
        map_50: the same at IoU 0.50 alone: "mAP@0.5".
        map_75: at IoU 0.75 alone.
        map_small: of objects below 32 x 32 pixels of area.
        map_medium: of 32 x 32 to 96 x 96.
        map_large: above.
        recall: the largest recall with 100 detections an image, mean over IoUs and classes.
        detections: how many there were.
        n: images.
        boxes: that are to be found; crowds are not counted.
    """

    map: float | None
    map_50: float | None
    map_75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    recall: float | None
    detections: int
    n: int
    boxes: int


METRICS = AveragePrecision.__struct_fields__[:-2]
"""What is measured after an epoch."""


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a detector started from: network, normalisation, and where the weights are from; of a run more."""

    model: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    run: str | None = None
    method: str | None = None
    seed: int | None = None
    epochs: int | None = None
    data: str | None = None
    top1: float | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the data: its boxes; the crowds and degenerate boxes left out; images, and those without a box."""

    name: str
    boxes: int
    crowds: int
    degenerate: int
    empty: int
    n: int


class DetectData(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector was trained and evaluated on; classes counts the logits."""

    name: str
    classes: int
    train: Counts
    evaluation: Counts
    fingerprint: Fingerprint | None = None


class DetectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch: the means of the losses, and what was measured after it, if it was."""

    epoch: int
    lr: float
    loss: float
    classifier: float
    box_reg: float
    objectness: float
    rpn_box_reg: float
    map: float | None
    map_50: float | None
    map_75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    recall: float | None
    detections: int | None
    seconds: float
    images_per_second: float


class DetectRecord(JsonRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finished detector, whole to JSON and back. Precisions are fractions, times seconds, sizes bytes.

    Attributes:
        schema: kind and version of this format.
        name: what the run is called.
        seed: of the run.
        recipe: resolved; recipe_hash: `recipe_hash` of its values.
        backbone: what it started from.
        data: the images and their boxes.
        epochs: trained; schedule: what they are called; policy: which epoch is evaluated.
        evaluation: of the last epoch.
        log: every epoch.
        seconds: of training and evaluations.
        parameters: of the detector; trained_parameters: of them, those that were trained.
        peak_memory_bytes: of the accelerator; None on a CPU.
        processes: of the training.
        device, threads, versions, date (UTC, ISO 8601), commit: where, how and when.
    """

    schema: str
    name: str
    seed: int
    recipe: DetectConfig
    recipe_hash: str
    backbone: Source
    data: DetectData
    epochs: int
    schedule: str
    policy: str
    evaluation: AveragePrecision
    log: tuple[DetectRow, ...]
    seconds: float
    parameters: int
    trained_parameters: int
    peak_memory_bytes: int | None
    processes: int
    device: str
    threads: int
    versions: dict[str, str]
    date: str
    commit: str | None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or no record of a detector; the file is named.
        """
        problem, remedy = f"{path}: not the record of a detector of this version", "choose another `out`"
        record = to_struct(read_json(path, "delete it and run again"), cls, problem, remedy)
        if record.schema != SCHEMA:
            raise ValueError(f"{problem} (schema {record.schema!r} instead of {SCHEMA!r}); {remedy}")
        return record


def make_record(
    name: str,
    recipe: DetectConfig,
    data: Coco,
    backbone: Backbone,
    detector: nn.Module,
    state: State,
    *,
    processes: int,
) -> DetectRecord:
    """Return the record of a finished detector.

    Args:
        state: at its end; the last row of its log is the evaluation.
    """
    values, device = plain(recipe), next(detector.parameters()).device
    parameters = list(detector.parameters())
    made = provenance(device)
    made["versions"] |= {package: version(package) for package in ("torchmetrics", "faster-coco-eval")}
    of = data.evaluation
    return DetectRecord(
        schema=SCHEMA,
        name=name,
        seed=recipe.seed,
        recipe=recipe,
        recipe_hash=recipe_hash(values),
        backbone=Source(model=backbone.model, mean=backbone.mean, std=backbone.std, **backbone.source),
        data=DetectData(
            name=data.name,
            classes=data.classes,
            train=_counts(data.train),
            evaluation=_counts(data.evaluation),
            fingerprint=data.fingerprint,
        ),
        epochs=state.epoch,
        schedule=recipe.schedule_name,
        policy="last epoch",
        evaluation=msgspec.convert(state.rows[-1] | {"n": len(of), "boxes": of.boxes}, AveragePrecision),
        log=msgspec.convert(state.rows, tuple[DetectRow, ...]),
        seconds=state.total_seconds,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        peak_memory_bytes=peak_memory_bytes(device),
        processes=processes,
        **made,
    )


def _counts(part: Part) -> Counts:
    return Counts(n=len(part), **{name: getattr(part, name) for name in Counts.__struct_fields__[:-1]})
