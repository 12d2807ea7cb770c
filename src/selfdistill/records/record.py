"""The record of a run, `result.json`, written last and atomically, and `evaluation.json` beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import msgspec
from msgspec import UNSET

from selfdistill.config import ResolvedTrainConfig
from selfdistill.files import parse_json, read_file, write_atomically
from selfdistill.records.evaluation import Evaluation, Measured, SuiteConfig
from selfdistill.records.metrics import METRICS
from selfdistill.text import escape_surrogates

SCHEMA = 1
# What may differ between runs that are compared: what the comparison is about, and what changes no result.
NOT_COMPARED = frozenset(
    {
        *("method", "auto_weight", "seed", "data_root", "max_pixels"),
        *("threads", "workers", "cache", "keep_epochs", "eval_every", "log", "save_every"),
    }
)

TUNED = frozenset({"lr", "backbone_lr", "weight_decay"})
"""Fields of a recipe that may differ too, where each method was tuned by itself."""

_T = TypeVar("_T")
_C = TypeVar("_C")
_E = TypeVar("_E")


class JsonRecord(msgspec.Struct, frozen=True):
    """A record that is a JSON file."""

    def save(self, path: Path) -> None:
        """Write the record as JSON, atomically; a number that is not finite is written as null.

        Raises:
            OSError: the file cannot be written; whatever was there before is still there.
        """
        write_atomically(path, to_json(self))


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images of a run.

    Attributes:
        name: of the data set.
        classes: how many.
        train_n, test_n, val_n: images.
        test_split_description: how the test images were chosen.
        skipped: files that could not be read.
        fingerprint: of the images, see `selfdistill.data.fingerprint`; None in records of earlier versions.
    """

    name: str
    classes: int
    train_n: int
    test_n: int
    test_split_description: str = msgspec.field(name="test_is")
    skipped: int
    fingerprint: dict[str, Any] | None = None
    val_n: int = 0


class BestEpoch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The best epoch on the test images, which is optimistic, and the policy by which it was chosen."""

    epoch: int
    top1: float
    policy: str


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of a training; None where something was not measured.

    Attributes:
        epoch: from 1.
        lr: of its last step.
        loss: mean over the training images; terms: each L, unweighted, likewise.
        train_accuracy: running, in training mode and on augmented images.
        test_top1, peer_top1: of the network and of the second network, after the epoch.
        val_top1, val_nll: of the network on the validation images.
        seconds: of the training; images_per_second: training images.
    """

    epoch: int
    lr: float | None = None
    loss: float | None = None
    terms: dict[str, float | None]
    train_accuracy: float | None = None
    test_top1: float | None = None
    peer_top1: float | None = None
    val_top1: float | None = None
    val_nll: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None


_LOG_COLUMNS = frozenset(LogRow.__struct_fields__) - {"terms"}

_DEFAULTS = {
    one.name: list(one.default) if isinstance(one.default, tuple) else one.default
    for one in dataclasses.fields(ResolvedTrainConfig)
    if one.default is not dataclasses.MISSING
}
"""What the fields are in a record of a version that did not have them."""

_NONE = object()


class RunRecord(JsonRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finished run, whole to JSON and back. Rates are fractions, times seconds, sizes bytes, images per second.

    Attributes:
        schema: version of this format.
        name: what the run is called.
        method: the method's repr, which is the expression that makes it.
        seed: of the run.
        recipe_values: the resolved recipe as it was written, by an older version with fewer fields; see `recipe`.
        recipe_hash: `recipe_hash(recipe_values)`.
        data: the images.
        epochs: trained; policy: which epoch is the headline.
        evaluation: of the last epoch.
        best: the best epoch on the test images; None where not followed.
        rows: one for each epoch, as in `log.csv`: the columns of a `LogRow`, with a column for each term; see `log`.
        seconds: the whole run; seconds_per_epoch: the median; images_per_second: training images, median.
        parameters: of the model; extra_parameters: what the method adds in training, gone afterwards.
        peak_memory_bytes: of the accelerator; None on a CPU.
        device, threads, versions, date (UTC, ISO 8601), commit: where, how and when.
    """

    schema: int
    name: str
    method: str
    seed: int
    recipe_values: dict[str, Any] = msgspec.field(name="recipe")
    recipe_hash: str
    data: Data
    epochs: int
    policy: str
    evaluation: Evaluation
    best: BestEpoch | None
    rows: tuple[dict[str, int | float | None], ...] = msgspec.field(name="log")
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
        """Equal for runs that may be compared: the recipe without NOT_COMPARED, and the counts of the data.

        What a later version added does not change it as long as it has its default.
        """
        return self.key_without(frozenset())

    def key_without(self, left_out: Collection[str]) -> str:
        """The `comparable_key` of a recipe without further fields."""
        parts = self.compared()
        recipe = {
            key: value
            for key, value in parts["recipe"].items()
            if _DEFAULTS.get(key, _NONE) != value and key not in left_out
        }
        data = {key: value for key, value in parts["data"].items() if (key, value) != ("val_n", 0)}
        return recipe_hash({"recipe": recipe, "data": data})

    def metric(self, name: str) -> float | None:
        """A number of METRICS by its name; None where this run has none."""
        return METRICS[name].of_run(self)

    def protocol(self, name: str) -> object:
        """What must be equal in two runs for their difference in a metric to mean anything."""
        return METRICS[name].protocol(self.evaluation)

    @property
    def recipe(self) -> ResolvedTrainConfig:
        """The recipe; a field that its version did not have has its default."""
        return msgspec.convert(self.recipe_values, ResolvedTrainConfig)

    @property
    def log(self) -> tuple[LogRow, ...]:
        """Every epoch."""
        columns = ({name: row[name] for name in row if name in _LOG_COLUMNS} for row in self.rows)
        terms = ({name: row[name] for name in row if name not in _LOG_COLUMNS} for row in self.rows)
        return tuple(msgspec.convert(one | {"terms": of}, LogRow) for one, of in zip(columns, terms, strict=True))

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms in the log, in its order."""
        return tuple(dict.fromkeys(term for row in self.log for term in row.terms))

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
        return to_struct(values, cls, f"{path}: not a whole record", remedy)

    def compared(self) -> dict[str, Any]:
        """What must be equal in runs that are compared: the recipe less NOT_COMPARED, and the data set."""
        recipe = {key: value for key, value in (_DEFAULTS | self.recipe_values).items() if key not in NOT_COMPARED}
        left_out = {"skipped", "fingerprint"}
        data = {key: value for key, value in plain(self.data).items() if key not in left_out}
        return {"recipe": recipe, "data": data}


class EvaluationOf(JsonRecord, Generic[_C, _E], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An evaluation of a run's network, beside the record that its training wrote; whole to JSON and back.

    Attributes:
        schema: version of this format.
        of: recipe_hash and date of the run that it belongs to.
        config: which evaluations were run.
        evaluation: what was measured.
        seconds: that it took.
        device, threads, versions, date (UTC, ISO 8601), commit: where, how and when.
    """

    schema: int = SCHEMA
    of: dict[str, str]
    config: _C = msgspec.field(name="asked")
    evaluation: _E
    seconds: float
    device: str
    threads: int
    versions: dict[str, str]
    date: str
    commit: str | None

    def belongs_to(self, run: RunRecord) -> bool:
        """Whether it was made of this run, and not of one that was in the folder before."""
        return self.of == {"recipe_hash": run.recipe_hash, "date": run.date}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or no evaluation of this schema; the file is named.
        """
        remedy = "delete it and evaluate the run again"
        record = to_struct(read_json(path, remedy), cls, f"{path}: not an evaluation of this version", remedy)
        if record.schema != SCHEMA:
            raise ValueError(f"{path}: evaluation schema {record.schema}, this version reads {SCHEMA}; {remedy}")
        return record


class EvaluationRecord(EvaluationOf[dict[str, Any], dict[str, Any]], frozen=True):
    """Any evaluation."""


class SuiteRecord(EvaluationOf[SuiteConfig, Evaluation], frozen=True):
    """`evaluation.json`: what the whole suite measured on the run's own test images."""


def load_run_record(run: Path) -> RunRecord:
    """A finished run's record; what its training did not measure is taken from `evaluation.json` beside it.

    `record.evaluation.measured` then says where, how and when.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged; it is named.
    """
    record, path = RunRecord.load(run / "result.json"), run / "evaluation.json"
    if not path.is_file():
        return record
    suite = SuiteRecord.load(path)
    if not suite.belongs_to(record):
        return record
    own = {name: v for name, v in msgspec.structs.asdict(record.evaluation).items() if v not in (None, (), UNSET)}
    measured = msgspec.convert(suite, Measured, from_attributes=True)
    evaluation = msgspec.structs.replace(suite.evaluation, **own, measured=measured)
    return msgspec.structs.replace(record, evaluation=evaluation)


def load_all(folder: Path) -> list[RunRecord]:
    """Every finished run at or below `folder`, by path: one run's folder, or a grid's."""
    paths = sorted(Path(folder).rglob("result.json"))
    if not paths:
        raise ValueError(f"{folder}: no result.json here or below; only a finished run has one")
    return [load_run_record(path.parent) for path in paths]


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
        parse_json(content)
        return msgspec.json.decode(content)  # which is strict about numbers and characters
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8 errors are both ValueErrors
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
    text = json.dumps(plain(values), indent=1, ensure_ascii=False)
    return (text + "\n").encode()


def plain(values: Any) -> Any:
    r"""Structs and dataclasses as JSON gives them back: dicts and lists.

    A number that is not finite becomes None; what of a file's name is not UTF-8 is escaped.

    Example:
        >>> plain({"edges": (0.0, float("inf")), "name": "caf\udce9"})
        {'edges': [0.0, None], 'name': 'caf\\xe9'}
    """
    return _plain(msgspec.to_builtins(values, str_keys=True, enc_hook=_text))


def _text(value: Any) -> str:
    if isinstance(value, str):  # of a class of its own, such as the name of a function
        return str(value)
    raise NotImplementedError


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {escape_surrogates(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return escape_surrogates(value) if isinstance(value, str) else value
