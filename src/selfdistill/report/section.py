"""A section of a page: what a measure is, what its numbers say in words, its tables and figures, and its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfdistill.report.style import Panel
from selfdistill.report.tables import Table


@dataclass(frozen=True)
class Sheet:
    """A table with a heading above it.

    Attributes:
        table: headings and rows.
        caption: the heading; none where it is empty.
        by_method: whether the first cell of a row names a method.
        folded: whether a page shows it only when asked.
    """

    table: Table
    caption: str = ""
    by_method: bool = True
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels that make one picture.

    Attributes:
        name: of its file.
        alt: what it shows.
        panels: all of one size.
        columns: how many stand side by side in the file.
        kind: of the page's grid: "wide", "narrow", "square", "full" or "".
        legend: whether the methods' names stand above; where not, each panel names its own.
        caption: how to read it, above it.
    """

    name: str
    alt: str
    panels: Sequence[Panel]
    columns: int
    kind: str = ""
    legend: bool = False
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One measure.

    Attributes:
        title: its heading.
        explain: what is shown and how to read it.
        findings: what the numbers say, a sentence or two each.
        parts: tables and figures in their order.
        notes: the protocol, each ``"term: what it is"``.
    """

    title: str
    explain: str
    findings: tuple[str, ...]
    parts: tuple[Sheet | Figure, ...]
    notes: tuple[str, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Figure))
