"""The record of a run, `result.json`: written last and atomically, so that a run that has one is finished."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from selfdistill.records.metrics import METRICS

SCHEMA = 1
# What may differ between runs that are compared: what the comparison is about, and what changes no result.
NOT_COMPARED = frozenset({"method", "seed", "data_root", "threads", "workers", "cache", "keep_epochs", "eval_every"})
# The columns of the log that are no term of the loss; every other column is one.
LOG_COLUMNS = ("epoch", "lr", "loss", "train_accuracy", "test_top1", "peer_top1", "seconds", "images_per_second")


@dataclass(frozen=True)
class RunRecord:
    """One finished run, whole to JSON and back. Rates are fractions, times seconds, sizes bytes, images per second.

    Attributes:
        schema: version of this format.
        name: what the run is called.
        method: the method's repr, which is the expression that makes it.
        seed: of the run.
        recipe: the resolved recipe; recipe_hash: `recipe_hash(recipe)`.
        data: name, classes (how many), train_n, test_n, test_is (how the test images were chosen), skipped (how many).
        epochs: trained; policy: which epoch is the headline.
        evaluation: an `Evaluation` as a dict, of the last epoch.
        best: {epoch, top1, policy} of the best epoch on the test images, which is optimistic; None where not followed.
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
    data: dict[str, Any]
    epochs: int
    policy: str
    evaluation: dict[str, Any]
    best: dict[str, Any] | None
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
        value = METRICS[name].read(vars(self))
        return None if value is None else float(value)

    def protocol(self, name: str) -> object:
        """What must be equal in two runs for their difference in a metric to mean anything."""
        return METRICS[name].protocol(vars(self))

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms in the log, in its order."""
        return tuple(dict.fromkeys(key for row in self.log for key in row if key not in LOG_COLUMNS))

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
            ValueError: it is damaged, or no record of this schema; the file is named.
        """
        try:
            values = json.loads(Path(path).read_bytes())
        except ValueError as error:  # JSON and UTF-8 errors are both ValueErrors
            raise ValueError(f"{path}: damaged, not JSON ({error}); delete it and run again") from error
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not {"schema", "method", "evaluation"} <= set(values):
            raise ValueError(f"{path}: not the record of a selfdistill run")
        if values["schema"] != SCHEMA:
            raise ValueError(f"{path}: record schema {values['schema']}, this version reads {SCHEMA}; run it again")
        if set(values) != names or not isinstance(values["evaluation"], dict) or "top1" not in values["evaluation"]:
            odd = ", ".join(sorted(set(values) ^ names)) or "evaluation"
            raise ValueError(f"{path}: not a whole record (missing or unknown: {odd}); delete it and run again")
        return cls(**values)

    def compared(self) -> dict[str, Any]:
        """What must be equal in runs that are compared: the recipe less NOT_COMPARED, and the data set."""
        recipe = {key: value for key, value in self.recipe.items() if key not in NOT_COMPARED}
        data = {key: value for key, value in self.data.items() if key != "skipped"}
        return {"recipe": recipe, "data": data}


def recipe_hash(recipe: Mapping[str, Any], *, without: Collection[str] = ()) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the recipe's sorted JSON.

    Example:
        >>> recipe_hash({"epochs": 2, "seed": 0}, without={"seed"}) == recipe_hash({"epochs": 2})
        True
    """
    kept = {key: value for key, value in recipe.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def to_json(values: Mapping[str, Any]) -> bytes:
    """Values as indented JSON; a number that is not finite becomes null.

    Example:
        >>> to_json({"nll": float("nan")})
        b'{\\n "nll": null\\n}\\n'
    """
    text = json.dumps(_finite(values), indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash or on a full disk.

    Raises:
        OSError: the system refuses, in one line; no temporary file is left and the old file is untouched.
    """
    path = Path(path)
    try:
        _replace(path, content)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp makes files that nobody else may read
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the rename itself is on the disk only once the folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _finite(value: Any) -> Any:
    """JSON has no NaN: null in its place, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(v) for v in value]
    return value
