"""``selfdistill reproduce``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from selfdistill.cli.options import MACHINE, File, MachineNumber, OptionalText, Text, WholeNumbers
from selfdistill.cli.show import print_lines, print_table

if TYPE_CHECKING:
    from selfdistill.paper import PaperConfig, PaperTable
    from selfdistill.runs.grid import ExecutorConfig


def reproduce(
    table: OptionalText = None,
    /,
    *,
    scale: Literal["smoke", "small", "medium", "full"] = "small",
    seeds: WholeNumbers = [],  # noqa: B006 - shown in the help, not changed
    out: File | None = None,
    data_root: Text = "data",
    list: bool = False,
    print_commands: bool = False,
    jobs: MachineNumber = 1,
    ray: Annotated[OptionalText, Parameter(group=MACHINE)] = None,
    cpus: MachineNumber = 1,
    save_every: Text = "30m",
    retry_failed: bool = False,
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
        save_every: how often to save inside an epoch: a duration such as 10m, or such as "500 steps"
        retry_failed: try runs again that diverged before
    """
    from selfdistill.config.duration import parse_save_every
    from selfdistill.errors import ArgumentError, blaming, check_folder
    from selfdistill.paper import PaperConfig, find_tables
    from selfdistill.runs.folders import check_writable
    from selfdistill.runs.grid import ExecutorConfig

    if any(not 0 <= seed < 2**63 for seed in seeds) or len(set(seeds)) < len(seeds):
        given = " ".join(map(str, seeds))
        raise ArgumentError("seeds", f"must be different whole numbers from 0 to 2**63 - 1, not {given}")
    if list and print_commands:
        raise ArgumentError("list", "and `print_commands` exclude each other")
    if table is None and not (list or print_commands):
        raise ArgumentError("table", "is missing: see `list=True`; use all for every table")
    check_folder("data_root", Path(data_root))
    parse_save_every(save_every)  # a table may train nothing
    executor = ExecutorConfig(jobs, ray, cpus)
    if (list or print_commands) and executor != ExecutorConfig():
        name = "jobs" if jobs > 1 else "ray"
        raise ArgumentError(name, "would be ignored: `list` and `print_commands` run nothing")
    with blaming("table"):
        tables = find_tables("all" if table is None else table)
    config = PaperConfig(
        scale, out or Path("runs") / f"paper-{scale}", Path(data_root), tuple(seeds), save_every=save_every
    )
    if print_commands:
        _print_commands(tables, config)
    elif list:
        _print_needs(tables, config)
    else:
        check_writable(config.out)
        _reproduce(tables, config, executor, retry_failed)


def _print_commands(tables: "Sequence[PaperTable]", config: "PaperConfig") -> None:
    from selfdistill.paper.listing import write_commands

    commands = write_commands(tables, config)
    if commands:
        print_lines(*commands)
    else:
        print(f"No run is missing at the scale {config.scale}.", file=sys.stderr)


def _print_needs(tables: "Sequence[PaperTable]", config: "PaperConfig") -> None:
    from selfdistill.paper.listing import TrainingNeeds, describe_time_left, list_needs, needs_table
    from selfdistill.paper.scales import Training
    from selfdistill.progress import make_console
    from selfdistill.report import terminal

    seconds: dict[Training, float] = {}
    all_needs: list[TrainingNeeds] = []
    for table in tables:
        with make_console().status(f"{table.name}: measuring how long a step takes"):
            needs = list_needs(table, config, seconds)
        all_needs += needs
        if needs:
            title = f"{table.name}: {table.title}, {len(table.cells)} cells"
            print_table(terminal(needs_table(needs), title=title, prose=(0, 1, 2)))
        else:
            print(f"{table.name}: {table.title}: needs no run")
    print(describe_time_left(all_needs))


def _reproduce(
    tables: "Sequence[PaperTable]", config: "PaperConfig", executor: "ExecutorConfig", retry_failed: bool
) -> None:
    from selfdistill.paper import reproduce_tables
    from selfdistill.paper.pages import narrow_table, table_title, terminal_text
    from selfdistill.report import terminal

    for result, page in reproduce_tables(tables, config, executor, retry_failed=retry_failed):
        if result is not None:
            table = narrow_table(result)
            prose = (0,) if result.has_log_targets else (0, 1)
            print_table(terminal(table, title=table_title(result), prose=prose))
            print_lines(terminal_text(result, table))
        print_lines(f"Page: {page}")
