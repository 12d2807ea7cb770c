"""Runs that failed while others went on; those that diverged are not tried again unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from selfdistill.config import TrainConfig
from selfdistill.data.fingerprint import Fingerprint
from selfdistill.errors import NonFiniteError, explain
from selfdistill.files import make_folder, write_atomically
from selfdistill.own_code import traceback_of_own_code
from selfdistill.records import RunRecord, recipe_hash
from selfdistill.records.record import read_json, to_json, to_struct
from selfdistill.training.record import recipe_values

_FILE = "failed.json"
_REMEDY = "delete it and run the same command again"


@dataclass(frozen=True)
class Failure:
    """Why a task failed.

    Attributes:
        reason: in one line, without the task's folder.
        diverged: its numbers were not finite any more, as they would be again.
        traceback: of an error in the user's own code; of others "".
    """

    reason: str
    diverged: bool = False
    traceback: str = field(default="", compare=False)

    @classmethod
    def of(cls, error: BaseException, folder: Path) -> Self:
        """Return what an error of a task says."""
        reason = explain(error).removeprefix(f"{folder}: ") or type(error).__name__
        return cls(reason, isinstance(error, NonFiniteError), traceback_of_own_code(error))


class FailedRunsError(RuntimeError):
    """Some runs failed; the others are done.

    Attributes:
        failures: reasons by the run's folder.
        records: of the runs that are done.
    """

    def __init__(self, failures: Mapping[Path, Failure], records: Sequence[RunRecord] = ()):
        self.failures, self.records = dict(failures), list(records)
        (folder, first), *others = failures.items()
        also = f"; failed too: {', '.join(str(other) for other, _ in others)}" if others else ""
        again = " with `retry_failed=True`" if any(one.diverged for one in failures.values()) else ""
        super().__init__(f"{folder} failed: {first.reason}{also}; run the same command again{again} to try again")

    @property
    def reasons(self) -> dict[str, str]:
        """Why runs failed, by the names of their folders, without the marks of arguments."""
        return {folder.name: failure.reason.replace("`", "") for folder, failure in self.failures.items()}


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``failed.json`` holds: the recipe that diverged, on which images, and the reason."""

    recipe_hash: str
    reason: str
    data: Fingerprint | None = None  # earlier versions left it out


def note_failure(folder: Path, recipe: TrainConfig, data: Fingerprint, failure: Failure) -> None:
    """Note in a run's folder that its recipe diverges on these images."""
    write_atomically(make_folder(folder) / _FILE, to_json(_Note(_hash(recipe), failure.reason, data)))


def noted_failure(folder: Path, recipe: TrainConfig, data: Fingerprint) -> Failure | None:
    """Return the failure that is noted in a run's folder; None where it is another recipe's, or of other images."""
    path = folder / _FILE
    if not path.exists():
        return None
    note = to_struct(read_json(path, _REMEDY), _Note, f"{path}: not the note of a failure", _REMEDY)
    known = note.recipe_hash == _hash(recipe) and note.data == data
    return Failure(note.reason, diverged=True) if known else None


def forget_failures(folders: Iterable[Path]) -> None:
    """Delete the notes of failures in folders of runs, so that these are tried again."""
    for folder in folders:
        (folder / _FILE).unlink(missing_ok=True)


def _hash(recipe: TrainConfig) -> str:
    return recipe_hash(recipe_values(recipe), without=recipe.NON_SEMANTIC_FIELDS)
