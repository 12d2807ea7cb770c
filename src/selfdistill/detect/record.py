"""The record of a detector, `result.json`: written last and atomically, so that a run that has one is finished."""

from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from torch import nn

from selfdistill.detect.coco import Coco, Part
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import Backbone
from selfdistill.records import recipe_hash, write_atomically
from selfdistill.records.record import read_json, to_json
from selfdistill.train.record import peak_memory_bytes, provenance, recipe_values
from selfdistill.train.task import State

SCHEMA = "detection 2"

METRICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "recall", "detections")
"""What is measured after an epoch, of an `AveragePrecision`."""


@dataclass(frozen=True)
class DetectRecord:
    """One finished detector, whole to JSON and back. Precisions are fractions, times seconds, sizes bytes.

    Attributes:
        schema: kind and version of this format.
        name: what the run is called.
        seed: of the run.
        recipe: the resolved recipe; recipe_hash: `recipe_hash(recipe)`.
        backbone: what it started from: model, mean, std, weights; of a run also run, method, seed, epochs, data, top1.
        data: name, classes (logits); train and evaluation: name, n, boxes, crowds, degenerate, empty.
        epochs: trained; schedule: what they are called; policy: which epoch is evaluated.
        evaluation: an `AveragePrecision` as a dict, of the last epoch.
        log: a dict for each epoch: its means over the training images, and `METRICS` if it was evaluated.
        seconds: of training and evaluations.
        parameters: of the detector; trained_parameters: of them, those that were trained.
        peak_memory_bytes: of the accelerator; None on a CPU.
        processes: of the training.
        device, threads, versions, date (UTC, ISO 8601), commit: where, how and when.
    """

    schema: str
    name: str
    seed: int
    recipe: dict[str, Any]
    recipe_hash: str
    backbone: dict[str, Any]
    data: dict[str, Any]
    epochs: int
    schedule: str
    policy: str
    evaluation: dict[str, Any]
    log: list[dict[str, Any]]
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

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically; a number that is not finite is written as null.

        Raises:
            OSError: the file cannot be written; whatever was there before is still there.
        """
        write_atomically(path, to_json(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or no record of a detector; the file is named.
        """
        values = read_json(path, "delete it and run again")
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or values["schema"] != SCHEMA:
            raise ValueError(f"{path}: not the record of a detector of this version; choose another `out`")
        return cls(**values)


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
        name: what the run is called.
        recipe: resolved.
        data: what it was trained and evaluated on.
        backbone: what it started from.
        detector: trained.
        state: at its end; the last row of its log is the evaluation.
        processes: of the training.
    """
    values, device = recipe_values(recipe), next(detector.parameters()).device
    parameters = list(detector.parameters())
    made = provenance(device)
    made["versions"] |= {package: version(package) for package in ("torchmetrics", "faster-coco-eval")}
    of = data.evaluation
    return DetectRecord(
        schema=SCHEMA,
        name=name,
        seed=recipe.seed,
        recipe=values,
        recipe_hash=recipe_hash(values),
        backbone={"model": backbone.model, "mean": list(backbone.mean), "std": list(backbone.std)} | backbone.source,
        data={
            "name": data.name,
            "classes": data.classes,
            "train": _counts(data.train),
            "evaluation": _counts(of),
        },
        epochs=state.epoch,
        schedule=recipe.schedule_name,
        policy="last epoch",
        evaluation={name: state.rows[-1][name] for name in METRICS} | {"n": len(of), "boxes": of.boxes},
        log=[dict(row) for row in state.rows],
        seconds=state.total_seconds,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        peak_memory_bytes=peak_memory_bytes(device),
        processes=processes,
        **made,
    )


def _counts(part: Part) -> dict[str, Any]:
    names = ("name", "boxes", "crowds", "degenerate", "empty")
    return {name: getattr(part, name) for name in names} | {"n": len(part)}
