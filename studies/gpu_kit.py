"""What the GPU program is asked for, where it keeps its state, and how far each run is."""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpu_plan import Planned, order

import paper
from selfdistill.paper import PaperConfig, PaperTable, Scale, find_tables
from selfdistill.paper.results import load_cached_evaluation
from selfdistill.paper.tables import RunEvaluation
from selfdistill.records import RunRecord, write_atomically

TABLES = ("table1", "table2", "table5", "anchors")
"""What finished runs are measured for, where nothing else is asked."""


@dataclass(frozen=True)
class Kit:
    """What is asked for.

    Attributes:
        given: the options.
    """

    given: argparse.Namespace

    @property
    def config(self) -> PaperConfig:
        """The paper's protocol, or a rehearsal of it."""
        scale: Scale = "smoke" if self.given.rehearse else self.given.scale
        in_bfloat16 = self.given.precision == "bf16-mixed"
        folder = self.given.work / (scale if in_bfloat16 else f"{scale}-float32")
        fast = in_bfloat16 and scale != "medium"  # whose recipes are in bfloat16 themselves
        return PaperConfig(scale, folder, self.given.data_root, tuple(self.given.seeds), fast)

    @property
    def plan(self) -> list[Planned]:
        """The runs, in their order."""
        eager = self.noted().get("eager", [])
        planned = order(self.config, self.given.rehearse)
        return [_without_compiler(one) if one.name in eager else one for one in planned]

    @property
    def tables(self) -> list[PaperTable]:
        """Those that the runs are measured for."""
        return [table for name in self.given.tables for table in find_tables(name)]

    def take_committed(self) -> None:
        """Put the committed records into the work folder, so that their runs are not made again."""
        if self.config.scale in paper.SCALES and self.given.precision == "bf16-mixed":
            paper.take_committed(self.tables, self.config)

    def run_of(self, planned: Planned) -> Path:
        """The folder of a run."""
        return self.config.runs / planned.name

    def log_of(self, planned: Planned) -> Path:
        """What a run's process prints."""
        log: Path = self.given.work / "logs" / f"{planned.name}.log"
        return log

    def missing_evaluations(self, planned: Planned) -> list[RunEvaluation]:
        """The evaluations of a finished run that the tables need and that are not cached."""
        wanted = dict.fromkeys(
            one for table in self.tables for one in table.planned_evaluations(planned.training, self.config)
        )
        return [one for one in wanted if load_cached_evaluation(self.run_of(planned), one, self.config) is None]

    def is_done(self, planned: Planned) -> bool:
        """Whether a run is trained and measured."""
        return (self.run_of(planned) / "result.json").is_file() and not self.missing_evaluations(planned)

    def noted(self) -> dict[str, Any]:
        """What earlier calls found out: rates by the number of runs, and runs that are not compiled."""
        file = self.given.work / "notes.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    def note(self, **found: Any) -> None:
        """Keep it for later calls."""
        write_atomically(self.given.work / "notes.json", json.dumps(self.noted() | found, indent=1).encode())


def _without_compiler(planned: Planned) -> Planned:
    return replace(planned, cell=replace(planned.cell, recipe=replace(planned.cell.recipe, compile=False)))


def last_epoch(run: Path) -> tuple[int, float]:
    """Return how many epochs a run's log has, and when it was written."""
    log = run / "log.csv"
    try:
        rows, ended = len(log.read_text().splitlines()), log.stat().st_mtime
    except FileNotFoundError:
        return 0, 0.0
    return max(0, rows - 1), ended


def state_of(kit: Kit, planned: Planned, failed: str | None) -> str:
    """Say how far a run is."""
    run, epochs = kit.run_of(planned), planned.cell.recipe.epochs
    if (run / "result.json").is_file():
        record = RunRecord.load(run / "result.json")
        mean = statistics.fmean(row.test_top1 or 0.0 for row in record.log)
        said = f"{'done' if kit.is_done(planned) else 'trained, not measured'}: top-1 {record.evaluation.top1:.2%}"
        said += f", mean over the epochs {mean:.2%}, ECE {record.evaluation.ece:.3f}"
    else:
        done, _ = last_epoch(run)
        said = f"at epoch {done} of {epochs}" if run.is_dir() else "not begun"
    return said if failed is None else f"{said}; failed: {failed} ({kit.log_of(planned)})"


def say(text: str) -> None:
    """Print a line, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def last_line(log: Path) -> str:
    """Return the last line that says something; of a failure, it is the error."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
