"""The paper's tables at the scale "small", from the committed records of their runs.

uv run python docs/studies/paper.py table1 table5    trains and measures what is missing (CIFAR-100 in data/cifar100)
uv run python docs/make.py                           writes the pages from the records

A run's folder of records is what `selfdistill reproduce` leaves of it without the weights, so that a run is not made
again where its records are.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from setting import JOBS, RESULTS

from selfdistill.experiments.paper import TABLES, PaperTable, Result, Setting, gather, reproduce, tables_named
from selfdistill.experiments.paper.gather import Key, cells_of, parts_of
from selfdistill.experiments.paper.kept import kept
from selfdistill.experiments.paper.line import Absent
from selfdistill.experiments.paper.suites import Suite
from selfdistill.records import EvaluationRecord, RunRecord, recipe_hash
from selfdistill.report.paper import title_of, write_reproduced
from selfdistill.report.tables import Table, markdown
from selfdistill.train import Recipe

FOLDER = RESULTS / "paper"
SMALL = Setting("small", FOLDER / "small")
"""Where the records and the pages are."""

_OUTSIDE = ("lsun_resize", "isun", "dtd", "svhn")
_RECORDS = ("result.json", "measured/*.json")


def results(setting: Setting = SMALL) -> list[Result]:
    """Return every table and figure that has numbers, as far as it was measured.

    Raises:
        ValueError: a record is not what it says it is.
    """
    if found := list(problems(setting)):
        raise ValueError("; ".join(found))
    absent: Absent = {Suite("ood", name): "these images were not at hand" for name in _OUTSIDE}
    return [gather(table, setting, absent) for table in TABLES.values() if table.entries]


def problems(setting: Setting) -> Iterator[str]:
    """Yield where a record is not of the run that its folder is called after, or does not say how it was made."""
    cells = {cell.name: cell for table in TABLES.values() for cell in cells_of(table, setting).values()}
    for folder in sorted(setting.runs.iterdir()) if setting.runs.is_dir() else ():
        if folder.name not in cells:
            yield f"{folder}: no table has such a run at the scale {setting.scale!r}"
            continue
        record, recipe = RunRecord.load(folder / "result.json"), cells[folder.name].recipe
        if record.recipe_hash != recipe_hash(record.recipe):
            yield f"{folder}: the recipe's hash is {recipe_hash(record.recipe)}, not {record.recipe_hash}"
        for name, value in vars(recipe).items():
            there = vars(Recipe(**record.recipe))[name]
            if value is not None and value != there and name not in ("threads", "workers"):
                yield f"{folder}: {name} is {there}, and the table's run has {value}"
        if record.commit is None:
            yield f"{folder}: it does not say of which commit it is"
        if record.evaluation["n"] != record.data["test_n"]:
            yield f"{folder}: scored on {record.evaluation['n']} of {record.data['test_n']} test images"
        for file in folder.glob("measured/*.json"):
            if not EvaluationRecord.load(file).belongs_to(record):
                yield f"{file}: measured of another run"


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
            f"[{title_of(result)}](small/{result.table}.md)" if _has_numbers(result) else title_of(result),
            f"{sum(bool(line.values) for line in result.lines)} of {len(result.lines)}",
            str(len(result.runs)),
        )
        for result in found
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["| Table | Cells with a number | Runs |", "|:--|--:|--:|", *lines])


def table1_records(setting: Setting = SMALL) -> list[RunRecord]:
    """Return the records of Table 1's runs on CIFAR-100."""
    cells = cells_of(TABLES["table1"], setting)
    files = (setting.runs / cell.name / "result.json" for (one, _), cell in cells.items() if one.data == "cifar100")
    return [RunRecord.load(file) for file in files if file.is_file()]


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


def train(names: Sequence[str]) -> None:
    """Train and measure what is missing of some tables, and keep the records beside the docs."""
    work = Setting("small", Path("runs") / "paper-small")
    for folder in sorted(SMALL.runs.glob("*")):
        if not (work.runs / folder.name).exists() and _whole(folder.name):
            shutil.copytree(folder, work.runs / folder.name)
    for name in names:
        for table in tables_named(name):
            reproduce(table, work, jobs=JOBS)
            keep(work)


def keep(work: Setting) -> None:
    """Copy the records of finished runs beside the docs."""
    for result in sorted(work.runs.glob("*/result.json")):
        for pattern in _RECORDS:
            for file in result.parent.glob(pattern):
                to = SMALL.runs / file.relative_to(work.runs)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)


def _whole(name: str) -> bool:
    """Whether nothing more is to be measured of a run, so that its weights are not needed."""
    wanted: list[tuple[PaperTable, Key]] = [
        (table, key) for table in TABLES.values() for key, cell in cells_of(table, SMALL).items() if cell.name == name
    ]
    parts = [part for table, (training, _) in wanted for part in parts_of(table, training)]
    return all(kept(SMALL.runs / name, part, SMALL) is not None for part in parts if part.refusal(SMALL) is None)


def _has_numbers(result: Result) -> bool:
    return any(line.values for line in result.lines)


if __name__ == "__main__":
    train(sys.argv[1:] or ["all"])
