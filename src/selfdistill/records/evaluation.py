"""`evaluation.json`: what the whole suite measured of a finished run, beside the record that its training wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import msgspec

from selfdistill.files import write_atomically
from selfdistill.records.record import RunRecord, read_json, to_json, to_struct

SCHEMA = 1


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One evaluation of a run's network on the run's own test images, whole to JSON and back.

    Attributes:
        schema: version of this format.
        of: recipe_hash and date of the run that it belongs to.
        config: which evaluations were run.
        evaluation: an `Evaluation` as a dict.
        seconds: that it took.
        device, threads, versions, date (UTC, ISO 8601), commit: where, how and when.
    """

    schema: int
    of: dict[str, str]
    config: dict[str, Any] = msgspec.field(name="asked")
    evaluation: dict[str, Any]
    seconds: float
    device: str
    threads: int
    versions: dict[str, str]
    date: str
    commit: str | None

    def belongs_to(self, run: RunRecord) -> bool:
        """Whether it was made of this run, and not of one that was in the folder before."""
        return self.of == {"recipe_hash": run.recipe_hash, "date": run.date}

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
            ValueError: it is damaged, or no evaluation of this schema; the file is named.
        """
        remedy = "delete it and evaluate the run again"
        record = to_struct(read_json(path, remedy), cls, f"{path}: not an evaluation of this version", remedy)
        if record.schema != SCHEMA:
            raise ValueError(f"{path}: evaluation schema {record.schema}, this version reads {SCHEMA}; {remedy}")
        return record


def load_run_record(run: Path) -> RunRecord:
    """A finished run's record; what its training did not measure is taken from `evaluation.json` beside it.

    `record.evaluation["measured"]` then says where, how and when.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged; it is named.
    """
    record, path = RunRecord.load(run / "result.json"), run / "evaluation.json"
    if not path.is_file():
        return record
    suite = EvaluationRecord.load(path)
    if not suite.belongs_to(record):
        return record
    own = {key: value for key, value in record.evaluation.items() if value not in (None, [])}
    measured = {name: getattr(suite, name) for name in ("seconds", "device", "threads", "versions", "date", "commit")}
    evaluation = suite.evaluation | own | {"measured": measured | {"asked": suite.config}}
    return msgspec.structs.replace(record, evaluation=evaluation)


def load_all(folder: Path) -> list[RunRecord]:
    """Every finished run at or below `folder`, by path: one run's folder, or a grid's.

    Raises:
        ValueError: there is none, or one is damaged.
    """
    paths = sorted(Path(folder).rglob("result.json"))
    if not paths:
        raise ValueError(f"{folder}: no result.json here or below; only a finished run has one")
    return [load_run_record(path.parent) for path in paths]
