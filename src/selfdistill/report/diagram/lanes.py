"""Where the terms go: a lane beside the boxes that they compare, a pill with their name in a gap between two rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfdistill.report.diagram.observe import Link, Observation
from selfdistill.report.diagram.rows import Row
from selfdistill.report.diagram.svg import wide
from selfdistill.report.diagram.taking import LABELS

TOP = -1  # the gap above the first row
PILL = 34.0  # height of a pill
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Placed:
    """A term on the page.

    Attributes:
        name: as the method calls it.
        weight: its weight as text; empty for what is kept, which is no term.
        shade: its colour.
        left: whether its lane is left of the features (it compares features alone), else right of the posteriors.
        ends: ``(row, link)`` for each box of a row that it reads on the side of its lane.
        above: links to features and stages that are read from above the first row.
        labels: whether it reads the labels.
        gap: the pill is below this row; ``TOP`` is above the first.
        lane: 0 is the nearest to the boxes.
        width: of the pill.
    """

    name: str
    weight: str
    shade: str
    left: bool
    ends: tuple[tuple[int, Link], ...]
    above: tuple[Link, ...]
    labels: bool
    gap: int
    lane: int
    width: float


def place(seen: Observation, rows: Sequence[Row]) -> list[Placed]:
    """Return each term in a lane in which it meets no other; the shorter, the nearer."""
    wanted = [(term.name, weight_text(term.weight), "term", term.links) for term in seen.terms]
    for node, memory in seen.kept:
        wanted.append(("keep", "", "memory", (Link(node, False, True), Link(memory, True, False))))
    drafts = [_draft(*one, rows) for one in wanted if one[3]]
    taken: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    gaps: list[tuple[int, bool]] = []
    placed = []
    for draft in sorted(drafts, key=_length):
        low, high = _span(draft)
        lane = 0
        while any(low < end and start < high for start, end in taken.get((draft.left, lane), [])):
            lane += 1
        taken.setdefault((draft.left, lane), []).append((low, high))
        gap = _gap(draft, [row for row, left in gaps if left == draft.left])
        gaps.append((gap, draft.left))
        placed.append(replace(draft, gap=gap, lane=lane))
    return placed


def weight_text(weight: float) -> str:
    """A weight to three digits, small ones as a power of ten.

    Example:
        >>> weight_text(9.0), weight_text(0.09), weight_text(2e-7)
        ('× 9', '× 0.09', '× 2·10⁻⁷')
    """
    digits, _, power = f"{weight:.3g}".partition("e")
    if not power:
        return f"{TIMES} {digits}"
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{TIMES} 10{raised}" if digits == "1" else f"{TIMES} {digits}·10{raised}"


def _draft(name: str, weight: str, shade: str, links: Sequence[Link], rows: Sequence[Row]) -> Placed:
    features = {row.features_of: i for i, row in enumerate(rows) if row.features}
    posteriors = {row.node: i for i, row in enumerate(rows)}
    read = [link for link in links if link.node != LABELS]
    left = len(read) == len(links) and all(link.node.kind == "features" for link in read)
    ends, above = [], []
    for link in read:
        beside = features[link.node.source] if left else posteriors.get(link.node)
        if beside is None:
            above.append(link)
        else:
            ends.append((beside, link))
    width = max(wide(name, 12), wide(weight, 11), 30) + 14
    return Placed(name, weight, shade, left, tuple(ends), tuple(above), len(read) < len(links), TOP, 0, width)


def _span(draft: Placed) -> tuple[float, float]:
    """From where to where its lane is taken, counted in rows; a term of one row needs the gap below it."""
    at = [row for row, _ in draft.ends] or [0]
    if draft.above:
        return TOP, max(at)
    return min(at), max(*at, min(at) + 0.5)


def _length(draft: Placed) -> tuple[float, float]:
    low, high = _span(draft)
    return high - low, low


def _gap(draft: Placed, used: Sequence[int]) -> int:
    """The free gap nearest to the middle."""
    if draft.above or not draft.ends:
        return TOP
    first, last = min(row for row, _ in draft.ends), max(row for row, _ in draft.ends)
    middle = (first + last - 1) / 2
    return min(range(first, max(last, first + 1)), key=lambda gap: (gap in used, abs(gap - middle), gap))
