"""Folders of runs: what they are called, whether they can be written, and the finished runs in them."""

import os
from collections.abc import Iterable
from pathlib import Path

from selfdistill.errors import ArgumentError, blaming
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord, load_all
from selfdistill.text import suggest


def name_of(data: str) -> str:
    """Return what folders of runs on some images are called: a dataset's name, a folder's, a file's without its ending.

    Example:
        >>> name_of("cifar100"), name_of("my/photos/"), name_of("digits.npz"), name_of("wds:cats/train-{0..9}.tar")
        ('cifar100', 'photos', 'digits', 'cats')
    """
    path = Path(data.removeprefix("wds:").removeprefix("hf:")).expanduser().resolve()
    if path.suffix == ".tar":
        path = path.parent
    return (path.stem if path.suffix in (".npz", ".csv", ".parquet") else path.name) or "data"


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made or written."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise OSError(f"{there} is a file, not a folder: choose another `out`")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"cannot write in {there}: choose another `out`")


def check_writable_file(argument: str, path: Path) -> None:
    """Refuse a file that cannot be written: what it would hold takes long to compute.

    Raises:
        ArgumentError: it is a folder, or in one that is missing or cannot be written.
    """
    if path.is_dir():
        raise ArgumentError(argument, f"is {path}, a folder: name a file in it")
    if not path.parent.is_dir():
        raise ArgumentError(argument, f"is {path}, but the folder {path.parent} does not exist: make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ArgumentError(argument, f"is {path}, where nothing can be written: choose another place")


def collect_finished(folders: Iterable[Path], baseline: str | None = None) -> list[RunRecord]:
    """Return every finished run at or below some folders; one that is below two of them counts once.

    Args:
        baseline: the method whose runs come first; None leaves the order of the folders.

    Raises:
        ValueError: a folder without a finished run, a damaged record, or no run of the baseline.
    """
    records: list[RunRecord] = []
    for folder in folders:
        records += [record for record in load_all(folder) if record not in records]
    if baseline is None:
        return records
    with blaming("baseline"):
        wanted = repr(parse_method(baseline))
    there = list(dict.fromkeys(record.method for record in records))
    if wanted not in there:
        raise ArgumentError("baseline", f"has no run: {wanted}; {suggest(wanted, there)}")
    return sorted(records, key=lambda record: record.method != wanted)
