"""From what was measured of the runs to one cell of a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from selfdistill.paper.results import Line
from selfdistill.paper.scales import Setting
from selfdistill.paper.tables import Entry, Part, Training
from selfdistill.paper.targets import printed

Place = tuple[Training, Part | None, int]
"""Of a training's run with a seed: what the training measured (None), or a part."""

Absent = dict[Training | Part, str]
"""Why runs are not made, or parts not measured."""


def line_of(
    entry: Entry,
    setting: Setting,
    seeds: Sequence[int],
    found: Mapping[Place, Mapping[str, Any]],
    absent: Absent,
) -> Line:
    """Return a cell; a seed counts where all that the number is made of was measured.

    Args:
        entry: which cell.
        setting: at what scale.
        seeds: of the runs; a number that needs no run stands under the seed 0.
        found: evaluations as dicts.
        absent: why there may be none.
    """
    first, images = entry.measures[0], None
    values: dict[int, float] = {}
    by_seed: dict[int, list[Mapping[str, Any]]]
    if entry.training is None:
        assert entry.check is not None
        by_seed = {0: [entry.check.found(setting)]}
    else:
        places = {seed: [(entry.training, measure.part, seed) for measure in entry.measures] for seed in seeds}
        by_seed = {seed: [found[one] for one in wanted if one in found] for seed, wanted in places.items()}
    for seed, evaluations in by_seed.items():
        numbers = [measure.of(one) for measure, one in zip(entry.measures, evaluations, strict=False)]
        there = [number for number in numbers if number is not None]
        if len(there) == len(entry.measures):
            values[seed] = statistics.fmean(there)
            images = None if entry.training is None else first.images(evaluations[0])
    return Line(
        row=entry.row,
        column=entry.column,
        unit=first.unit,
        digits=first.digits,
        values=values,
        wanted=len(by_seed),
        epochs=None if entry.training is None else setting.cell(entry.training, seeds[0]).recipe.epochs,
        images=images,
        target=entry.target,
        printed=None if entry.target is None else printed(entry.target),
        absent=_why(entry, absent, {seed: found for seed, found in by_seed.items() if seed not in values}),
        logged=entry.logged,
    )


def _why(entry: Entry, absent: Absent, missing: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    """Return why seeds have no number, of which all that was measured is given; empty where none is missing."""
    if not missing:
        return ""
    seeds = f"seed{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    wrong = entry.measures[0].missing
    if wrong and all(missing.values()):
        return f"{wrong}: {seeds}"
    reasons = [entry.training, *(measure.part for measure in entry.measures)]
    return next((absent[one] for one in reasons if one is not None and one in absent), f"{seeds} not measured yet")
