"""From a trained classifier to the run's record; and where and how something was measured."""

import platform
import statistics
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from selfdistill.config.train_config import TrainConfig
from selfdistill.config.training import TrainingConfig
from selfdistill.data import ImageData
from selfdistill.data.fingerprint import changes
from selfdistill.data.steps import steps_per_epoch
from selfdistill.distiller import SelfDistiller
from selfdistill.methods import parse_method
from selfdistill.records import SCHEMA, BestEpoch, Data, Evaluation, RunRecord, recipe_hash
from selfdistill.records.record import plain
from selfdistill.training.task import Row, State

_PACKAGES = ("selfdistill", "torch", "torchvision", "lightning-fabric", "numpy")


def make_record(
    name: str,
    recipe: TrainConfig,
    data: ImageData,
    distiller: SelfDistiller,
    state: State,
    evaluation: Evaluation,
    seconds: float,
) -> RunRecord:
    """Return the record of a finished run."""
    values, device = recipe_values(recipe), next(distiller.parameters()).device
    of_model = sum(parameter.numel() for parameter in distiller.model.parameters())
    of_all = sum(parameter.numel() for parameter in distiller.parameters())
    return RunRecord(
        schema=SCHEMA,
        name=name,
        method=recipe.method,
        seed=recipe.seed,
        recipe_values=values,
        recipe_hash=recipe_hash(values),
        data=Data(
            name=data.name,
            classes=len(data.classes),
            train_n=len(data.train),
            test_n=len(data.test),
            val_n=0 if data.val is None else len(data.val),
            test_split_description=data.test_split_description,
            skipped=len(data.skipped),
            fingerprint=data.fingerprint,
        ),
        epochs=state.epoch,
        policy="last epoch",
        evaluation=evaluation,
        best=_best(state.rows),
        rows=tuple(state.rows),
        seconds=state.total_seconds + seconds,
        seconds_per_epoch=_median(state.rows, "seconds"),
        images_per_second=_median(state.rows, "images_per_second"),
        parameters=of_model,
        extra_parameters=of_all - of_model,
        peak_memory_bytes=peak_memory_bytes(device),
        **provenance(device),
    )


def optimiser_steps(record: RunRecord) -> int:
    """Return the steps of a whole training: epochs times batches of an epoch, in which each image is drawn once.

    A batch of groups, as BAKE's, has several images of a class, of which one alone counts as drawn.
    """
    recipe, group = record.recipe, parse_method(record.method).needs.group
    shares = recipe.accumulate
    return record.epochs * steps_per_epoch(record.data.train_n, recipe.batch_size, group=group, shares=shares)


def provenance(device: torch.device) -> dict[str, Any]:
    """Where, how and when something is measured: a record's device, threads, versions, date (UTC) and commit."""
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def recipe_values(recipe: TrainingConfig) -> dict[str, Any]:
    """Return a recipe's fields as they come back from JSON; not where its data are."""
    values: dict[str, Any] = plain(recipe)
    values.pop("data_path", None)
    if values.get("auto_weight") is None:
        values.pop("auto_weight", None)
    return values


def changes_since(known: Data, images: ImageData) -> str:
    """Return in words what is different in a run's images since its record was written; empty if nothing is.

    A record of an earlier version has no fingerprint: the numbers of images are compared.
    """
    if known.fingerprint is not None:
        return changes(known.fingerprint, images.fingerprint)
    pairs = {
        "classes": (known.classes, len(images.classes)),
        "training images": (known.train_n, len(images.train)),
        "test images": (known.test_n, len(images.test)),
        "choice of test images": (known.test_split_description, images.test_split_description),
    }
    return "; ".join(f"{name}: {there} then, {here} now" for name, (there, here) in pairs.items() if there != here)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most memory that was allocated on a CUDA device; None on others, which do not count it."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _best(rows: list[Row]) -> BestEpoch:
    accuracies = {cast("int", row["epoch"]): top1 for row in rows if (top1 := row["test_top1"]) is not None}
    epoch = max(accuracies, key=accuracies.__getitem__)
    return BestEpoch(epoch=epoch, top1=accuracies[epoch], policy="best epoch on the test images (optimistic)")


def _median(rows: list[Row], name: str) -> float:
    return statistics.median(float(row[name] or 0.0) for row in rows)


def _commit() -> str | None:
    """Return the commit of the checkout that this code runs from, or None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists() or not (root / "src" / "selfdistill").is_dir():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
