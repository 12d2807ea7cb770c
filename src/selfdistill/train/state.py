"""Where a run is."""

from dataclasses import dataclass, field

from selfdistill.train.meters import Meters

Row = dict[str, float | int | None]
"""One row of ``log.csv``."""


@dataclass
class State:
    """Where a run is.

    Attributes:
        meters: what the current epoch has added up, in this process.
        epoch: epochs done.
        step: optimiser steps done of the current epoch.
        seconds: training time of the current epoch.
        total_seconds: training and evaluation time of the epochs before.
        rows: the log, one row per finished epoch.
    """

    meters: Meters
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
