"""The record of a detector, `result.json`: written last and atomically, so that a run that has one is finished."""

import json
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

from selfdistill.detect.coco import Part
from selfdistill.detect.metric import AveragePrecision
from selfdistill.detect.network import Backbone
from selfdistill.detect.session import Session
from selfdistill.detect.state import State
from selfdistill.records import recipe_hash, write_atomically
from selfdistill.records.record import to_json
from selfdistill.train.record import provenance

SCHEMA = "detection 1"


@dataclass(frozen=True)
class DetectRecord:
    """One finished detector, whole to JSON and back. Precisions are fractions, times seconds, sizes bytes.

    Attributes:
        schema: kind and version of this format.
        name: what the run is called.
        seed: of the run.
        recipe: the resolved recipe; recipe_hash: `recipe_hash(recipe)`.
        backbone: what it started from: model, mean, std, weights; of a run also run, method, seed, epochs, data, top1.
        data: name, classes (logits); train and measured: name, n, boxes, crowds, degenerate, empty.
        epochs: trained; schedule: what they are called; policy: which epoch is measured.
        measured: an `AveragePrecision` as a dict, of the last epoch.
        log: a dict for each epoch: its means over the training images.
        seconds: of the training; measuring_seconds: of what came after it.
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
    measured: dict[str, Any]
    log: list[dict[str, Any]]
    seconds: float
    measuring_seconds: float
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
        try:
            values = json.loads(Path(path).read_bytes())
        except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
            raise ValueError(f"{path}: damaged, not JSON ({error}); delete it and run again") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names or values["schema"] != SCHEMA:
            raise ValueError(f"{path}: not the record of a detector of this version; choose another `out`")
        return cls(**values)


def make_record(
    name: str,
    session: Session,
    state: State,
    measured: AveragePrecision,
    *,
    backbone: Backbone,
    seconds: float,
) -> DetectRecord:
    """Return the record of a finished detector.

    Args:
        name: what the run is called.
        session: trained.
        state: at its end.
        measured: of the last epoch.
        backbone: what it started from.
        seconds: that the measuring took.
    """
    values = asdict(session.recipe)
    recipe = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    parameters = list(session.detector.parameters())
    made = provenance(session.device)
    made["versions"] |= {package: version(package) for package in ("torchmetrics", "faster-coco-eval")}
    cuda = session.device.type == "cuda"
    return DetectRecord(
        schema=SCHEMA,
        name=name,
        seed=session.recipe.seed,
        recipe=recipe,
        recipe_hash=recipe_hash(recipe),
        backbone={"model": backbone.model, "mean": list(backbone.mean), "std": list(backbone.std)} | backbone.source,
        data={
            "name": session.data.name,
            "classes": session.data.classes,
            "train": _counted(session.data.train),
            "measured": _counted(session.data.measured),
        },
        epochs=state.epoch,
        schedule=session.recipe.name_of_schedule,
        policy="last epoch",
        measured=asdict(measured),
        log=[dict(row) for row in state.rows],
        seconds=state.total_seconds,
        measuring_seconds=seconds,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        peak_memory_bytes=torch.cuda.max_memory_allocated(session.device) if cuda else None,
        processes=session.fabric.world_size,
        **made,
    )


def _counted(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "n": len(part),
        "boxes": part.boxes,
        "crowds": part.crowds,
        "degenerate": part.degenerate,
        "empty": part.empty,
    }
