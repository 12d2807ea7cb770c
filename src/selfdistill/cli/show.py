"""What commands print."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfdistill.text import printable

if TYPE_CHECKING:
    from selfdistill.api.results import Comparison
    from selfdistill.records import RunRecord

OOD = ("photographs",)


def train_and_show(
    train: "Callable[[], Sequence[RunRecord]]", out: Path, title: str, preface: str | None = None
) -> None:
    """Train runs and show them as :func:`show_comparison` does; where some fail, show the others and raise."""
    from selfdistill.runs.failures import FailedRunsError

    try:
        records = train()
    except FailedRunsError as failed:
        if failed.records:
            show_comparison(failed.records, out, title, preface, failed=failed.reasons, folders=[out])
        raise
    show_comparison(records, out, title, preface, folders=[out])


def show_comparison(
    records: "Sequence[RunRecord]",
    out: Path,
    title: str,
    preface: str | None = None,
    failed: "Mapping[str, str] | None" = None,
    *,
    folders: Sequence[Path],
) -> None:
    """Write the report of the runs in some folders and print their table, the verdict and where the report is.

    Where there is one in the folders, a linear probe stands beside them.
    """
    from selfdistill.api.results import report_runs

    show_result(report_runs(records, out, title, preface, failed, folders=folders))


def show_result(shown: "Comparison") -> None:
    """Print the table, the verdict and where the report is."""
    from rich.console import Console

    print_table(shown.table(Console().width))
    print_lines(*shown.lines())


def print_skipped(files: Sequence[object]) -> None:
    """Print how many files were left out."""
    if files:
        counted = "1 unreadable file" if len(files) == 1 else f"{len(files)} unreadable files"
        print_lines(f"{counted} skipped; the first: {files[0]}")


def write_or_print(where: Path | bool, text: str) -> None:
    """Write a text to a file, whole or not at all; print it where no file is named."""
    from selfdistill.records import write_atomically

    if isinstance(where, Path):
        write_atomically(where, text.encode())
    else:
        print(text, end="")


def print_lines(*lines: str) -> None:
    """Print lines of any origin as they are."""
    print(printable("\n".join(lines), keep="\n"), flush=True)


def print_table(table: object) -> None:
    """Print a rich table."""
    from rich.console import Console

    Console().print(table)
