"""``selfdistill reproduce``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from selfdistill.cli.options import MACHINE, File, MachineNumber, WholeNumbers
from selfdistill.cli.show import print_table

if TYPE_CHECKING:
    from selfdistill.paper import PaperTable, Setting
    from selfdistill.runs.executor_config import ExecutorConfig


def reproduce(
    table: str | None = None,
    /,
    *,
    scale: Literal["smoke", "small", "medium", "full"] = "small",
    seeds: WholeNumbers = [],  # noqa: B006 - shown in the help, not changed
    out: File | None = None,
    data_root: str = "data",
    list: bool = False,
    print_commands: bool = False,
    jobs: MachineNumber = 1,
    ray: Annotated[str | None, Parameter(group=MACHINE)] = None,
    cpus: MachineNumber = 1,
) -> None:
    """Reproduce a table or figure of the paper; compare with its numbers.

    Missing runs are trained and evaluated; a finished run is never repeated, and tables share their runs. A cell whose
    images are missing says so and how to get them.

    The scales: smoke takes seconds on synthetic images. small and medium are CIFAR-100 with 15 and 30 images per class
    at 16 pixels, narrow networks and 200 epochs: 5 and 35 minutes per run on one core. full is the paper's protocol.

    For example:
        selfdistill reproduce --list
        selfdistill reproduce table12 --scale small --jobs 2
        selfdistill reproduce all --scale full --ray auto
        selfdistill reproduce all --scale full --print-commands

    Args:
        table: table1, table2 ..., figure1 ..., lemma1, lemma2, proposition1, anchors (the losses and accuracies of the
            published runs' logs) or all; with --list or --print-commands, omit it to cover every table
        scale: size of the experiment
        seeds: seeds of the runs (default: 41 42 43, or 41 alone where the scale has one)
        out: folder for the runs and the pages (default: runs/paper-SCALE)
        data_root: folder of the named datasets; they are downloaded to it
        list: show what is done and how long the rest would take on this machine; run nothing
        print_commands: write the recipes of the missing runs and print one command for each; run nothing. Add --devices
            N to a command to share its batches among N GPUs
        jobs: number of parallel training or evaluation processes, one per GPU
        ray: address of a Ray cluster that trains instead: HOST:PORT, or auto for the cluster of this machine (or a new
            one of this machine alone); all its machines must see --out and --data-root
        cpus: processors per training, on a Ray cluster without GPUs
    """
    from selfdistill.errors import ArgumentError
    from selfdistill.paper import Setting, tables_named
    from selfdistill.runs.executor_config import ExecutorConfig
    from selfdistill.runs.folders import check_writable

    if any(not 0 <= seed < 2**63 for seed in seeds) or len(set(seeds)) < len(seeds):
        given = " ".join(map(str, seeds))
        raise ArgumentError("seeds", f"must be different whole numbers from 0 to 2**63 - 1, not {given}")
    if list and print_commands:
        raise ArgumentError("list", "and `print_commands` exclude each other")
    if table is None and not (list or print_commands):
        raise ArgumentError("table", "is missing: see `list=True`; use all for every table")
    tables = tables_named(table or "all")
    executor = ExecutorConfig(jobs, ray, cpus)
    setting = Setting(scale, out or Path("runs") / f"paper-{scale}", Path(data_root), tuple(seeds))
    if print_commands:
        _print_commands(tables, setting)
    elif list:
        _print_needs(tables, setting)
    else:
        check_writable(setting.out)
        _reproduce(tables, setting, executor)


def _print_commands(tables: "Sequence[PaperTable]", setting: "Setting") -> None:
    from selfdistill.paper.listing import commands_of

    commands = commands_of(tables, setting)
    print("".join(f"{command}\n" for command in commands), end="")
    if not commands:
        print(f"No run is missing at the scale {setting.scale}.", file=sys.stderr)


def _print_needs(tables: "Sequence[PaperTable]", setting: "Setting") -> None:
    from rich.console import Console

    from selfdistill.paper.listing import duration, needs_of, needs_table
    from selfdistill.paper.scales import Training
    from selfdistill.report import terminal

    timed: dict[Training, float] = {}
    left: dict[Training, float] = {}  # tables share their runs
    for table in tables:
        with Console(stderr=True).status(f"{table.name}: measuring how long a step takes"):
            needs = needs_of(table, setting, timed=timed)
        if not needs:
            print(f"{table.name}: {table.title}: needs no run")
            continue
        title = f"{table.name}: {table.title}, {len(table.entries)} cells"
        print_table(terminal(needs_table(needs), title=title, prose=(0, 1, 2)))
        for need in needs:
            left[need.training] = max(left.get(need.training, 0.0), need.seconds_left)
    if not any(left.values()):
        print("No run is missing.")
        return
    print(
        f"The missing runs would take about {duration(sum(left.values()))} here, one after another, on a machine that "
        "does nothing else; what is measured of them, and the detectors of Table 4, come on top."
    )


def _reproduce(tables: "Sequence[PaperTable]", setting: "Setting", executor: "ExecutorConfig") -> None:
    from selfdistill.paper import Line, reproduce
    from selfdistill.paper.figures import write_figure1
    from selfdistill.paper.pages import anchors_table, deviations, facts, reproduced_table, title_of, write_reproduced
    from selfdistill.report import terminal

    lines: list[Line] = []
    for table in tables:
        if table.figure == "diagrams":
            print(f"Page: {write_figure1(setting.out)}", flush=True)
            continue
        result = reproduce(table, setting, executor)
        page = write_reproduced(result, setting.out)
        shown = anchors_table(result, published=False) if result.beside_logs else reproduced_table(result)
        print_table(terminal(shown, title=title_of(result), prose=(0,) if result.beside_logs else (0, 1)))
        print(*deviations(result), facts(result), *result.protocol, sep="\n")
        for note in shown.notes:
            print(f"Missing: {note}")
        print(f"Page: {page}", flush=True)
        lines += result.lines
    if lines and not any(line.values for line in lines):
        raise ValueError(f"no cell has a number: {lines[0].absent}")
