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
import msgspec
import torch
from linked import linked_table
from setting import JOBS, PAGES

from selfdistill.config import TrainConfig
from selfdistill.paper import (
    TABLES,
    PaperConfig,
    PaperTable,
    Scale,
    TableResult,
    collect_result,
    find_tables,
    reproduce_table,
)
from selfdistill.paper.pages import table_title, write_page
from selfdistill.paper.results import MissingReasons, load_cached_evaluation
from selfdistill.paper.robustness_tables import SuiteEvaluation
from selfdistill.paper.scales import DatasetSize, Training, dataset_size, recorded_size
from selfdistill.paper.tables import RunEvaluation
from selfdistill.records import Evaluation, EvaluationRecord, RunRecord, recipe_hash
from selfdistill.report.tables import Table, markdown
from selfdistill.runs.grid import ExecutorConfig

FOLDER = PAGES / "paper"
"""Folder of the pages, with one folder per scale."""

SCALES: tuple[Scale, ...] = ("small", "medium", "full")

_FULL_SCALE_ONLY = ("anchors",)

_FIRST = ("table6", "table7", "table8", "table1", "table2", "table5", "figure3")
_ORDER = (*_FIRST, *(name for name in TABLES if name not in _FIRST))
"""Tables 6 and 7 come first: they need only cross-entropy and SD-Dropout."""

_OOD_SETS = ("lsun_resize", "isun", "dtd", "svhn")
_RECORDS = ("result.json", "measured/*.json")


def archive_of(scale: Scale) -> Path:
    """Return where the committed records of a scale are."""
    return archive.RESULTS / f"paper-{scale}.jsonl.xz"


@contextmanager
def committed(scale: Scale) -> Iterator[PaperConfig]:
    """Unpack the committed records of a scale into folders of runs, until the end of the block."""
    with archive.unpacked(archive_of(scale)) as folder:
        yield PaperConfig(scale, folder, fast=scale == "full")


def results(config: PaperConfig) -> list[TableResult]:
    """Return every table and figure that has numbers, as far as it was measured.

    Raises:
        ValueError: a record is not what it says it is.
    """
    if found := list(problems(config)):
        raise ValueError("; ".join(found))
    missing: MissingReasons = {SuiteEvaluation("ood", name): "these images were not at hand" for name in _OOD_SETS}
    return [collect_result(TABLES[name], config, missing) for name in _names(config.scale)]


def _names(scale: Scale) -> list[str]:
    """Return the tables and figures that have numbers at a scale."""
    return [name for name in TABLES if TABLES[name].cells and (scale == "full" or name not in _FULL_SCALE_ONLY)]


def problems(config: PaperConfig) -> Iterator[str]:
    """Yield the records that do not belong to the run that their folder is named after, or lack their provenance."""
    known = {
        run.name: (run.recipe, dataset_size(training.data, config.scale), _evaluations_of(training, config))
        for table in TABLES.values()
        for (training, _), run in table.planned_runs(config).items()
    }
    counts: dict[str, set[tuple[int | None, ...]]] = {}
    for folder in sorted(config.runs.iterdir()) if config.runs.is_dir() else ():
        if folder.name not in known:
            yield f"{folder}: no table has such a run at the scale {config.scale!r}"
            continue
        recipe, size, evaluations = known[folder.name]
        record = RunRecord.load(folder / "result.json")
        yield from (f"{folder}: {problem}" for problem in _problems_of_run(record, recipe, size))
        for file in sorted(folder.glob("measured/*.json")):
            measured, evaluation = EvaluationRecord.load(file), evaluations.get(file.stem)
            if evaluation is None:
                yield f"{file}: no table measures this"
                continue
            if not measured.belongs_to(record):
                yield f"{file}: measured of another run"
            if measured.commit is None:
                yield f"{file}: it does not say of which commit it is"
            result = msgspec.convert(measured.evaluation, evaluation.result_type)
            if isinstance(result, Evaluation) and result.n != size.test:
                yield f"{file}: scored on {result.n} of {size.test} test images"
            counts.setdefault(evaluation.name, set()).add(_n_images(evaluation, result))
            if len(counts[evaluation.name]) > 1:
                numbers = sorted(counts[evaluation.name])
                yield f"{file}: measured on other numbers of images than those before: {numbers}"


def _problems_of_run(record: RunRecord, recipe: TrainConfig, size: DatasetSize) -> Iterator[str]:
    if record.recipe_hash != recipe_hash(record.recipe_values):
        yield f"the recipe's hash is {recipe_hash(record.recipe_values)}, not {record.recipe_hash}"
    # Compiled or not, the same is computed: where the compiler fails, gpu.py goes on without it.
    recipe = replace(recipe, classes=size.classes, compile=record.recipe.compile)
    if differing := recipe.differences(record.recipe):
        yield f"its recipe is not the table's: {', '.join(differing)}"
    if record.commit is None:
        yield "it does not say of which commit it is"
    if (found := recorded_size(record)) != size:
        yield f"trained on {found}, not on {size}"
    if record.evaluation.n != size.test:
        yield f"scored on {record.evaluation.n} of {size.test} test images"


def _evaluations_of(training: Training, config: PaperConfig) -> dict[str, RunEvaluation]:
    """Return the evaluations of a training in any table, by name."""
    return {one.name: one for table in TABLES.values() for one in table.planned_evaluations(training, config)}


def _n_images(evaluation: RunEvaluation, result: object) -> tuple[int | None, ...]:
    """Return how many images each number of an evaluation was measured on."""
    metrics = (
        m for table in TABLES.values() for cell in table.cells for m in cell.metrics if m.evaluation == evaluation
    )
    return tuple(metric.n_images(result) for metric in dict.fromkeys(metrics))


def write_pages(found: Sequence[TableResult], out: Path) -> None:
    """Write a page for each table of which there is a number, with its figures."""
    for result in found:
        if result.has_numbers:
            write_page(result, out)
            for other in ("json", "html"):  # the Markdown is what a repository shows
                (out / f"{result.table}.{other}").unlink()


def index(found: Sequence[TableResult]) -> str:
    """One row per table: its page, how many of its cells have a number, and of how many runs."""
    rows = [
        (
            f"[{table_title(result)}]({result.scale}/{result.table}.md)" if result.has_numbers else table_title(result),
            result.scale,
            f"{sum(bool(cell.values) for cell in result.cells)} of {len(result.cells)}",
            str(len(result.runs)),
        )
        for result in found
    ]
    return linked_table(("Table", "Scale", "Cells with a number", "Runs"), rows, words=2)


def table1_records(config: PaperConfig) -> list[RunRecord]:
    """Return the records of Table 1's runs on CIFAR-100."""
    runs = TABLES["table1"].planned_runs(config)
    files = (config.runs / run.name / "result.json" for (one, _), run in runs.items() if one.data == "cifar100")
    return [RunRecord.load(file) for file in files if file.is_file()]


def describe_seconds(config: PaperConfig) -> str:
    """Say how long the runs took."""
    records = [RunRecord.load(file) for file in config.runs.glob("*/result.json")]
    seconds = sorted(record.seconds for record in records)
    device = records[0].device
    how = f"several at a time on one {device}"
    if device.startswith("cpu"):
        how = f"{JOBS} at a time with {records[0].threads} thread each, on a machine that did other work meanwhile"
    return (
        f"The {len(seconds)} runs took {seconds[0]:.0f} to {seconds[-1]:,.0f} s each, the median "
        f"{statistics.median(seconds):.0f} s, {how}."
    )


def missing_table(found: Sequence[TableResult]) -> str:
    """List why cells have no number, each reason once, with the number of cells per table."""
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for result in found:
        for cell in result.cells:
            if not cell.values:
                reasons.setdefault((result.scale, cell.missing_reason), Counter())[result.table] += 1
    rows = [
        (scale, reason, ", ".join(f"{table} ({cells})" for table, cells in tables.items()))
        for (scale, reason), tables in reasons.items()
    ]
    return markdown(Table(("Scale", "Why", "In (cells)"), tuple(rows)))


def train(names: Sequence[str], scale: Scale) -> None:
    """Train and measure what is missing of some tables, and put the records into the archive."""
    tables = [table for name in names for table in find_tables(name)]
    work = PaperConfig(scale, Path("runs") / f"paper-{scale}", fast=scale == "full")
    take_committed(tables, work)
    for table in tables:
        reproduce_table(table, work, ExecutorConfig(torch.cuda.device_count() or JOBS))
        archive_records(work)


def take_committed(tables: Sequence[PaperTable], work: PaperConfig) -> None:
    """Copy the committed runs of which some tables need nothing more, so that they are not made again."""
    with committed(work.scale) as config:
        for folder in sorted(config.runs.glob("*")):
            if not (work.runs / folder.name).exists() and _is_complete(folder.name, tables, config):
                shutil.copytree(folder, work.runs / folder.name)


def archive_records(work: PaperConfig) -> None:
    """Put the records of finished runs into the archive."""
    finished = [result.parent for result in work.runs.glob("*/result.json")]
    files = [file for run in finished for pattern in _RECORDS for file in run.glob(pattern)]
    archive.add(archive_of(work.scale), work.out, files)


def _is_complete(name: str, tables: Sequence[PaperTable], config: PaperConfig) -> bool:
    """Whether some tables need no further evaluation of a run, so that its weights are not needed."""
    evaluations = [
        evaluation
        for table in tables
        for (training, _), run in table.planned_runs(config).items()
        if run.name == name
        for evaluation in table.planned_evaluations(training, config)
    ]
    return all(load_cached_evaluation(config.runs / name, one, config) is not None for one in evaluations)


def main() -> None:
    """Parse the command line, and train."""
    parser = argparse.ArgumentParser(description="Train and measure what is missing of the paper's tables.")
    parser.add_argument("tables", nargs="*")
    parser.add_argument("--scale", choices=SCALES, default="small")
    args = parser.parse_args()
    train(args.tables or [name for name in _ORDER if name in _names(args.scale)], args.scale)


if __name__ == "__main__":
    main()
