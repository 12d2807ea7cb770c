"""What commands print, and the evaluation they ask for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfdistill.text import printable

if TYPE_CHECKING:
    from selfdistill.records import RunRecord
    from selfdistill.records.search import SearchRecord
    from selfdistill.runs.evaluation import EvaluationConfig

METHODS = ("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()")
OOD = ("photographs",)


def evaluation_config(
    ood: Sequence[str],
    corruptions: Path | None,
    max_images: int | None,
    quick: bool,
    data_root: str,
    skip_unreadable: bool,
    max_pixels: int | None,
) -> "EvaluationConfig":
    """Return which evaluations to run.

    Raises:
        ArgumentError: ``max_images`` is out of range, or what ``quick`` leaves out is given.
    """
    from selfdistill.errors import ArgumentError, check_folder, check_range
    from selfdistill.records.evaluation import MEASURES
    from selfdistill.runs.evaluation import EvaluationConfig

    check_folder("data_root", Path(data_root))
    check_range("max_images", max_images, 1, 10**9)
    given = {"ood": tuple(ood) != OOD, "corruptions": corruptions, "max_images": max_images}
    if quick and (ignored := next((name for name, value in given.items() if value), None)):
        raise ArgumentError(ignored, "would be ignored: `quick=True` measures accuracy and calibration only")
    return EvaluationConfig(
        measures=() if quick else MEASURES,
        ood=tuple(ood),
        corruptions=None if corruptions is None else str(corruptions),
        max_images=1000 if max_images is None else max_images,
        data_root=Path(data_root),
        skip_unreadable=skip_unreadable,
        max_pixels=max_pixels,
    )


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
    search: "SearchRecord | None" = None,
) -> None:
    """Write the report of the runs in some folders and print their table, the verdict and where the report is.

    Where there is one in the folders, a linear probe stands beside them; so does the search that chose their settings.
    """
    from rich.console import Console

    from selfdistill.records import LinearProbeRecord, summarise
    from selfdistill.report import next_step, terminal_table, verdict, write_report
    from selfdistill.report.html import best_network
    from selfdistill.report.words import evidence

    probe = next((found for folder in folders if (found := LinearProbeRecord.beside(folder))), None)
    page = write_report(
        records, out, title=title, preface=preface, failed=failed or {}, probe=probe, folders=folders, search=search
    )
    summary = summarise(records, tuned=search is not None)
    said = verdict(summary)
    print_table(terminal_table(summary, title=title, width=Console().width, probe=probe))
    print_lines(said.decision.headline, *filter(None, [said.compared]))
    print_lines(*(f"{line.title}{f', {line.judged}' if line.judged else ''}: {line.text}" for line in said.lines))
    print_lines(evidence(records, summary, said.decision.method))
    if step := next_step(said.decision, summary, records, folders, best=best_network(out, search)):
        print_lines(step.why, f"  {step.command}")
    print_lines(f"Report: {page}")


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
