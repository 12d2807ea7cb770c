"""What a table needs: its runs, those that are done, and what the rest would take."""

from __future__ import annotations

from collections.abc import Sequence

from selfdistill.paper.listing import Need
from selfdistill.paper.tables import SETS
from selfdistill.report.tables import DASH, Table


def duration(seconds: float) -> str:
    """Return a rough duration in words.

    Example:
        >>> duration(20), duration(900), duration(8000), duration(2e6)
        ('20 s', '15 min', '2 h 13 min', '23 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes / 60 / 24:,.0f} days"


def needs_table(needs: Sequence[Need]) -> Table:
    """One row a training: what is done and what the rest would take."""
    rows = [
        (
            f"{SETS[need.training.data]}, {need.training.network}"
            + (", 2 FC" if need.training.head_layers == 2 else "")
            + f": {need.training.method}",
            need.refused or f"{need.trained} of {need.wanted}",
            ", ".join(f"{name} {done} of {need.wanted}" for name, done in need.parts.items()) or DASH,
            DASH if need.seconds is None else duration(need.seconds),
        )
        for need in needs
    ]
    return Table(("Training", "Runs done", "Measured", "A run"), tuple(rows))
