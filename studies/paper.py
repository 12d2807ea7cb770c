"""The paper's tables at the scales "small", "medium" and "full", from the committed records of their runs.

uv run python studies/paper.py table1 table5      trains and measures what is missing (CIFAR-100 in data/cifar100)
uv run python studies/paper.py --scale full       the paper's protocol; on one GPU see gpu.py
uv run python docs/make.py                             writes the pages from the records

The archive of a scale holds what `selfdistill reproduce` leaves of each run without the weights, so that a run is not
made again where its records are.
"""

import argparse
import shutil
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import archive
import torch
from linked import linked_table
from setting import JOBS, PAGES

from selfdistill.config import TrainConfig
from selfdistill.paper import (
    TABLES,
    PaperTable,
    Result,
    Scale,
    Setting,
    gather,
    reproduce,
    tables_named,
)
from selfdistill.paper.pages import title_of, write_reproduced
from selfdistill.paper.results import Absent, cells_of, kept, parts_of
from selfdistill.paper.robustness_tables import Suite
from selfdistill.paper.scales import Size, Training, recorded, size_of
from selfdistill.paper.tables import Part
from selfdistill.records import EvaluationRecord, RunRecord, recipe_hash
from selfdistill.report.tables import Table, markdown
from selfdistill.runs.executor_config import ExecutorConfig

FOLDER = PAGES / "paper"
"""Where the pages are, a folder for each scale."""

SCALES: tuple[Scale, ...] = ("small", "medium", "full")

_FULL = ("anchors",)
"""What says nothing below the full scale."""

_FIRST = ("table6", "table7", "table8", "table1", "table2", "table5", "figure3")
_ORDER = (*_FIRST, *(name for name in TABLES if name not in _FIRST))
"""Cross-entropy and SD-Dropout are what Tables 6 and 7 are made of."""

_OUTSIDE = ("lsun_resize", "isun", "dtd", "svhn")
_RECORDS = ("result.json", "measured/*.json")


def archive_of(scale: Scale) -> Path:
    """Return where the committed records of a scale are."""
    return archive.RESULTS / f"paper-{scale}.jsonl.gz"


@contextmanager
def committed(scale: Scale) -> Iterator[Setting]:
    """Give the committed records of a scale as folders of runs, until the end of the block."""
    with archive.unpacked(archive_of(scale)) as folder:
        yield Setting(scale, folder, fast=scale == "full")


def results(setting: Setting) -> list[Result]:
    """Return every table and figure that has numbers, as far as it was measured.

    Raises:
        ValueError: a record is not what it says it is.
    """
    if found := list(problems(setting)):
        raise ValueError("; ".join(found))
    absent: Absent = {Suite("ood", name): "these images were not at hand" for name in _OUTSIDE}
    return [gather(TABLES[name], setting, absent) for name in _names(setting.scale)]


def _names(scale: Scale) -> list[str]:
    """Return the tables and figures that have numbers at a scale."""
    return [name for name in TABLES if TABLES[name].entries and (scale == "full" or name not in _FULL)]


def problems(setting: Setting) -> Iterator[str]:
    """Yield where a record is not of the run that its folder is called after, or does not say how it was made."""
    known = {
        cell.name: (cell.recipe, size_of(training.data, setting.scale), _parts_of(training, setting))
        for table in TABLES.values()
        for (training, _), cell in cells_of(table, setting).items()
    }
    counts: dict[str, set[tuple[int | None, ...]]] = {}
    for folder in sorted(setting.runs.iterdir()) if setting.runs.is_dir() else ():
        if folder.name not in known:
            yield f"{folder}: no table has such a run at the scale {setting.scale!r}"
            continue
        recipe, size, parts = known[folder.name]
        record = RunRecord.load(folder / "result.json")
        yield from (f"{folder}: {problem}" for problem in _problems_of_run(record, recipe, size))
        for file in sorted(folder.glob("measured/*.json")):
            measured, part = EvaluationRecord.load(file), parts.get(file.stem)
            if part is None:
                yield f"{file}: no table measures this"
                continue
            if not measured.belongs_to(record):
                yield f"{file}: measured of another run"
            if measured.commit is None:
                yield f"{file}: it does not say of which commit it is"
            if isinstance(part, Suite) and measured.evaluation["n"] != size.test:
                yield f"{file}: scored on {measured.evaluation['n']} of {size.test} test images"
            counts.setdefault(part.name, set()).add(_images(part, measured))
            if len(counts[part.name]) > 1:
                yield f"{file}: measured on other numbers of images than those before: {sorted(counts[part.name])}"


def _problems_of_run(record: RunRecord, recipe: TrainConfig, size: Size) -> Iterator[str]:
    if record.recipe_hash != recipe_hash(record.recipe):
        yield f"the recipe's hash is {recipe_hash(record.recipe)}, not {record.recipe_hash}"
    # Compiled or not, the same is computed: where the compiler fails, gpu.py goes on without it.
    recipe = replace(recipe, classes=size.classes, compile=record.recipe["compile"])
    if differing := recipe.differences(TrainConfig(**record.recipe)):
        yield f"its recipe is not the table's: {', '.join(differing)}"
    if record.commit is None:
        yield "it does not say of which commit it is"
    if (found := recorded(record)) != size:
        yield f"trained on {found}, not on {size}"
    if record.evaluation["n"] != size.test:
        yield f"scored on {record.evaluation['n']} of {size.test} test images"


def _parts_of(training: Training, setting: Setting) -> dict[str, Part]:
    """Whatever table measures it, by the name of its file."""
    parts = (part for table in TABLES.values() for part in parts_of(table, training))
    return {part.name: part for part in parts if part.refusal(setting) is None}


def _images(part: Part, measured: EvaluationRecord) -> tuple[int | None, ...]:
    """How many images each number of a part was measured on."""
    measures = (m for table in TABLES.values() for entry in table.entries for m in entry.measures if m.part == part)
    return tuple(measure.images(measured.evaluation) for measure in dict.fromkeys(measures))


def write_pages(found: Sequence[Result], out: Path) -> None:
    """Write a page for each table of which there is a number, with its figures."""
    for result in found:
        if _has_numbers(result):
            write_reproduced(result, out)
            for other in ("json", "html"):  # the Markdown is what a repository shows
                (out / f"{result.table}.{other}").unlink()


def index(found: Sequence[Result]) -> str:
    """One row a table: its page, how many of its cells have a number, of how many runs."""
    rows = [
        (
            f"[{title_of(result)}]({result.scale}/{result.table}.md)" if _has_numbers(result) else title_of(result),
            result.scale,
            f"{sum(bool(line.values) for line in result.lines)} of {len(result.lines)}",
            str(len(result.runs)),
        )
        for result in found
    ]
    return linked_table(("Table", "Scale", "Cells with a number", "Runs"), rows, words=2)


def table1_records(setting: Setting) -> list[RunRecord]:
    """Return the records of Table 1's runs on CIFAR-100."""
    cells = cells_of(TABLES["table1"], setting)
    files = (setting.runs / cell.name / "result.json" for (one, _), cell in cells.items() if one.data == "cifar100")
    return [RunRecord.load(file) for file in files if file.is_file()]


def seconds_said(setting: Setting) -> str:
    """Say how long the runs took."""
    records = [RunRecord.load(file) for file in setting.runs.glob("*/result.json")]
    seconds = sorted(record.seconds for record in records)
    return (
        f"The {len(seconds)} runs took {seconds[0]:.0f} to {seconds[-1]:,.0f} s each, the median "
        f"{statistics.median(seconds):.0f} s, {JOBS} at a time with {records[0].threads} thread each, on a machine "
        "that did other work meanwhile."
    )


def missing(found: Sequence[Result]) -> str:
    """Say what has no number and why, each reason once, with how many cells of which tables."""
    reasons: dict[str, Counter[str]] = {}
    for result in found:
        for line in result.lines:
            if not line.values:
                reasons.setdefault(line.absent, Counter())[result.table] += 1
    rows = [
        (reason, ", ".join(f"{table} ({cells})" for table, cells in tables.items()))
        for reason, tables in reasons.items()
    ]
    return markdown(Table(("Why", "In (cells)"), tuple(rows)))


def train(names: Sequence[str], scale: Scale) -> None:
    """Train and measure what is missing of some tables, and put the records into the archive."""
    tables = [table for name in names for table in tables_named(name)]
    work = Setting(scale, Path("runs") / f"paper-{scale}", fast=scale == "full")
    with committed(scale) as setting:
        for folder in sorted(setting.runs.glob("*")):
            if not (work.runs / folder.name).exists() and _whole(folder.name, tables, setting):
                shutil.copytree(folder, work.runs / folder.name)
    for table in tables:
        reproduce(table, work, ExecutorConfig(torch.cuda.device_count() or JOBS))
        keep(work)


def keep(work: Setting) -> None:
    """Put the records of finished runs into the archive."""
    finished = [result.parent for result in work.runs.glob("*/result.json")]
    files = [file for run in finished for pattern in _RECORDS for file in run.glob(pattern)]
    archive.add(archive_of(work.scale), work.out, files)


def _whole(name: str, tables: Sequence[PaperTable], setting: Setting) -> bool:
    """Whether nothing more is to be measured of a run for some tables, so that its weights are not needed."""
    parts = [
        part
        for table in tables
        for (training, _), cell in cells_of(table, setting).items()
        if cell.name == name
        for part in parts_of(table, training)
    ]
    return all(kept(setting.runs / name, part, setting) is not None for part in parts if part.refusal(setting) is None)


def _has_numbers(result: Result) -> bool:
    return any(line.values for line in result.lines)


def main() -> None:
    """Read what is asked for, and train."""
    parser = argparse.ArgumentParser(description="Train and measure what is missing of the paper's tables.")
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--scale", choices=SCALES, default="small")
    args = parser.parse_args()
    train(args.tables or [name for name in _ORDER if name in _names(args.scale)], args.scale)


if __name__ == "__main__":
    main()
