"""The command to run after a comparison, ready to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfdistill.records import FEW_IMAGES, VALIDATION, RunRecord, Summary
from selfdistill.report.decision import MARGIN, Decision
from selfdistill.report.predictions import run_folder
from selfdistill.text import printable

ENOUGH_SEEDS = 5


class NextStep(NamedTuple):
    """Why, and the command."""

    why: str
    command: str


def next_step(
    decision: Decision,
    summary: Summary,
    records: Sequence[RunRecord],
    folders: Sequence[Path],
    *,
    best: Path | None = None,
) -> NextStep | None:
    """Say what to run next: use a network, or compare with more seeds or more images.

    Args:
        best: the network of a search, whose settings a new comparison would not search again.

    Returns:
        None if the runs are not there.
    """
    more = max(ENOUGH_SEEDS, 2 * max(map(len, summary.seeds.values())))
    if best is not None:
        undecided = decision.kind == "few seeds" or (decision.kind == "keep" and _may_still_gain(summary))
        hint = f"Say --seeds {more} in the same command for a surer answer. " if undecided else ""
        return NextStep(f"{hint}Classify images with the network of this search:", _join("predict", best, "new-photos"))
    method = decision.network(summary.methods[0])
    run = next((path for one in records if one.method == method and (path := run_folder(one, folders))), None)
    if run is None:
        return None

    in_python = records[0].recipe.data_is_in_python

    def compare(out: Path) -> str:
        if in_python:
            return f"selfdistill.compare(model, data, methods={list(summary.methods)}, seeds={more}, out={str(out)!r})"
        words = ["--recipe", run / "recipe.yaml", "--methods", *summary.methods, "--seeds", more]
        return _join("compare", *words, *_evaluation(records[0]), "--out", out)

    if decision.kind == "few images":
        n = records[0].evaluation.n
        why = f"Add test images ({n} now, at least {FEW_IMAGES} are needed) and compare again:"
        return NextStep(why, compare(Path(f"{run.parent}-more-images")))
    if decision.kind == "few seeds":
        return NextStep(f"Compare with {more} seeds:", compare(run.parent))
    if decision.kind == "keep" and _may_still_gain(summary):
        why = f"A gain of more than {MARGIN * 100:g} point is not ruled out yet; {more} seeds say more:"
        return NextStep(why, compare(run.parent))
    if decision.needs_temperature and not in_python and not (run / VALIDATION).is_file():
        why = "Fit the temperature on labelled images that the network was neither trained nor tested on, then predict:"
        return NextStep(why, _join("calibrate", run, "--data", "labelled-photos"))
    predict = f"selfdistill.predict({str(run)!r}, images)" if in_python else _join("predict", run, "new-photos")
    return NextStep("Classify images with a network of this comparison:", predict)


def _may_still_gain(summary: Summary) -> bool:
    differences = [summary.differences[method, "top1"] for method in summary.methods[1:]]
    return any(d.effect == "unclear" and d.high is not None and d.high > MARGIN for d in differences)


def _evaluation(record: RunRecord) -> list[object]:
    """The options by which the runs were evaluated."""
    if not record.evaluation.measured:
        return ["--quick"]
    config = record.evaluation.measured.config
    corruptions = ["--corruptions", config.corruptions] if config.corruptions else []
    return ["--max-images", config.max_images, *(["--ood", *config.ood] if config.ood else []), *corruptions]


def _join(*words: object) -> str:
    return printable(shlex.join(["selfdistill", *map(str, words)]))
