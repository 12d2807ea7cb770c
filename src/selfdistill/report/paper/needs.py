"""What a table needs: its runs, those that are done, and what the rest would take."""

from __future__ import annotations

from collections.abc import Sequence

from selfdistill.experiments.paper.entry import SETS
from selfdistill.experiments.paper.listing import Need
from selfdistill.report.tables import DASH, Table
from selfdistill.train.progress import clock


def needs_table(needs: Sequence[Need]) -> Table:
    """One row a training: what is done and what the rest would take."""
    rows = [
        (
            f"{SETS[need.training.data]}, {need.training.network}"
            + (", 2 FC" if need.training.head_layers == 2 else "")
            + f": {need.training.method}",
            need.refused or f"{need.trained} of {need.wanted}",
            ", ".join(f"{name} {done}" for name, done in need.parts.items()) or DASH,
            DASH if need.seconds is None else clock(need.seconds),
        )
        for need in needs
    ]
    return Table(("Training", "Runs done", "Measured", "A run"), tuple(rows))
