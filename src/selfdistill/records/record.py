"""The record of a run, `result.json`: written last and atomically, so that a run that has one is finished."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from selfdistill.files import read_file, write_atomically
from selfdistill.records.metrics import METRICS

SCHEMA = 1
# What may differ between runs that are compared: what the comparison is about, and what changes no result.
NOT_COMPARED = frozenset({"method", "seed", "data_root", "threads", "workers", "cache", "keep_epochs", "eval_every"})
# The columns of the log that are no term of the loss; every other column is one.
LOG_COLUMNS = ("epoch", "lr", "loss", "train_accuracy", "test_top1", "peer_top1", "seconds", "images_per_second")


_T = TypeVar("_T")


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images of a run.

    Attributes:
        name: of the data set.
        classes: how many.
        train_n, test_n: images.
        test_split_description: how the test images were chosen.
        skipped: files that could not be read.
    """

    name: str
    classes: int
    train_n: int
    test_n: int
    test_split_description: str = msgspec.field(name="test_is")
    skipped: int


class BestEpoch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The best epoch on the test images, which is optimistic, and the policy by which it was chosen."""

    epoch: int
    top1: float
    policy: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finished run, whole to JSON and back. Rates are fractions, times seconds, sizes bytes, images per second.

    Attributes:
        schema: version of this format.
        name: what the run is called.
        method: the method's repr, which is the expression that makes it.
        seed: of the run.
        recipe: the resolved recipe; recipe_hash: `recipe_hash(recipe)`.
        data: the images.
        epochs: trained; policy: which epoch is the headline.
        evaluation: an `Evaluation` as a dict, of the last epoch.
        best: the best epoch on the test images; None where not followed.
        log: a dict for each epoch: LOG_COLUMNS (peer_top1 where there is a peer), and a column for each term
            of the loss, unweighted.
        seconds: the whole run; seconds_per_epoch: the median; images_per_second: training images, median.
        parameters: of the model; extra_parameters: what the method adds in training, gone afterwards.
        peak_memory_bytes: of the accelerator; None on a CPU.
        device, threads, versions, date (UTC, ISO 8601), commit: where, how and when.
    """

    schema: int
    name: str
    method: str
    seed: int
    recipe: dict[str, Any]
    recipe_hash: str
    data: Data
    epochs: int
    policy: str
    evaluation: dict[str, Any]
    best: BestEpoch | None
    log: list[dict[str, Any]]
    seconds: float
    seconds_per_epoch: float
    images_per_second: float
    parameters: int
    extra_parameters: int
    peak_memory_bytes: int | None
    device: str
    threads: int
    versions: dict[str, str]
    date: str
    commit: str | None

    @property
    def comparable_key(self) -> str:
        """Equal for runs that may be compared: the recipe without NOT_COMPARED, and the counts of the data."""
        return recipe_hash(self.compared())

    def metric(self, name: str) -> float | None:
        """A number of METRICS by its name; None where this run has none."""
        value = METRICS[name].read(self)
        return None if value is None else float(value)

    def protocol(self, name: str) -> object:
        """What must be equal in two runs for their difference in a metric to mean anything."""
        return METRICS[name].protocol(self)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms in the log, in its order."""
        return tuple(dict.fromkeys(key for row in self.log for key in row if key not in LOG_COLUMNS))

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically; a number that is not finite is written as null.

        Raises:
            OSError: the file cannot be written; whatever was there before is still there.
        """
        write_atomically(path, to_json(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or no record of this schema; the file is named.
        """
        remedy = "delete it and run again"
        values = read_json(path, remedy)
        if not isinstance(values, dict) or not {"schema", "method", "evaluation"} <= set(values):
            raise ValueError(f"{path}: not the record of a selfdistill run")
        if values["schema"] != SCHEMA:
            raise ValueError(f"{path}: record schema {values['schema']}, this version reads {SCHEMA}; run it again")
        record = to_struct(values, cls, f"{path}: not a whole record", remedy)
        if "top1" not in record.evaluation:
            raise ValueError(f"{path}: not a whole record (evaluation without `top1`); {remedy}")
        return record

    def compared(self) -> dict[str, Any]:
        """What must be equal in runs that are compared: the recipe less NOT_COMPARED, and the data set."""
        recipe = {key: value for key, value in self.recipe.items() if key not in NOT_COMPARED}
        data = {key: value for key, value in msgspec.to_builtins(self.data).items() if key != "skipped"}
        return {"recipe": recipe, "data": data}


def recipe_hash(recipe: Mapping[str, Any], *, without: Collection[str] = ()) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the recipe's sorted JSON.

    Example:
        >>> recipe_hash({"epochs": 2, "seed": 0}, without={"seed"}) == recipe_hash({"epochs": 2})
        True
    """
    kept = {key: value for key, value in recipe.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def read_json(path: Path, remedy: str) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON; the file and the remedy are named.
    """
    content = read_file(Path(path))
    try:
        return msgspec.json.decode(content)
    except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
        raise ValueError(f"{path}: damaged, not JSON ({error}); {remedy}") from None


def to_struct(values: Any, kind: type[_T], problem: str, remedy: str) -> _T:
    """Values of a JSON file as a struct.

    Raises:
        ValueError: a field is missing, unknown or of another type; `problem`, the field and the remedy are named.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{problem} ({error}); {remedy}") from None


def to_json(values: msgspec.Struct | Mapping[str, Any]) -> bytes:
    """Values as indented JSON; a number that is not finite becomes null.

    Example:
        >>> to_json({"nll": float("nan")})
        b'{\\n "nll": null\\n}\\n'
    """
    text = json.dumps(_finite(values), indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def _finite(value: Any) -> Any:
    """JSON has no NaN: null in its place, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        return {key: _finite(getattr(value, name)) for name, key in names}
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(v) for v in value]
    return value
