"""What a part measured of a run, kept in the run's folder: measured once, and again where something else is asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from selfdistill.data import ImageData
from selfdistill.paper.tables import Part
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.records.evaluation import SCHEMA
from selfdistill.train.progress import Callback
from selfdistill.train.record import provenance
from selfdistill.train.run import machine

if TYPE_CHECKING:
    from selfdistill.paper.scales import Setting


def kept(run: Path, part: Part, setting: Setting) -> EvaluationRecord | None:
    """Return what a part measured of a finished run; None where it has not, or not of this run, or not like this."""
    file = _file(run, part)
    if not file.is_file():
        return None
    there = EvaluationRecord.load(file)
    same = there.belongs_to(RunRecord.load(run / "result.json")) and there.asked == part.asked(setting)
    return there if same else None


def measure_part(
    run: Path, part: Part, setting: Setting, *, data: ImageData, cpus: int | None = None, progress: Callback
) -> float:
    """Measure a part of a finished run, keep it in ``<run>/measured/``, atomically, and return the seconds it took.

    Args:
        run: its folder.
        part: what is measured.
        setting: at what scale.
        data: the run's images.
        cpus: threads of torch; None leaves them.
        progress: called while it goes.
    """
    started = time.perf_counter()
    with machine(cpus):
        evaluation = part.measure(run, data, setting, progress)
        seconds = time.perf_counter() - started
        record = RunRecord.load(run / "result.json")
        file = _file(run, part)
        file.parent.mkdir(exist_ok=True)
        EvaluationRecord(
            schema=SCHEMA,
            of={"recipe_hash": record.recipe_hash, "date": record.date},
            asked=part.asked(setting),
            evaluation=evaluation,
            seconds=seconds,
            **provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        ).save(file)
    return seconds


def _file(run: Path, part: Part) -> Path:
    return run / "measured" / f"{part.name}.json"
