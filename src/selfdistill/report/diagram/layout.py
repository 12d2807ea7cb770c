"""Where everything of a diagram is: columns from left to right, rows from top to bottom, ports on the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfdistill.report.diagram.bench import STAGES
from selfdistill.report.diagram.lanes import PILL, TOP, Placed, place
from selfdistill.report.diagram.observe import Link, Observation
from selfdistill.report.diagram.rows import Row, rows_of
from selfdistill.report.diagram.taking import Node

MARGIN = 18.0
INPUT, NETWORK, FEATURES, HEAD, POSTERIOR, LABELS = 84.0, 112.0, 48.0, 38.0, 54.0, 40.0  # widths of the columns
APART = 4.0  # half of the distance of two lines that go together

_WIDTH = 720.0
_HEADING, _LEGEND, _STEP, _BETWEEN = 44.0, 40.0, 9.0, 22.0


class Layout:
    """Coordinates of a diagram, in pixels of a page 720 wide or, with many lanes, wider.

    Args:
        seen: what a method showed.
    """

    def __init__(self, seen: Observation) -> None:
        self.seen = seen
        self.rows = rows_of(seen)
        self.placed = place(seen, self.rows)
        self.above = sorted((term for term in self.placed if term.gap == TOP), key=lambda term: -term.lane)
        self._columns()
        self._ports()
        self._heights()

    def _columns(self) -> None:
        self.input = MARGIN
        self.network = self.input + INPUT + _BETWEEN
        left, right = self._lane_widths(left=True), self._lane_widths(left=False)
        self.features = self.network + NETWORK + _BETWEEN + sum(left)
        self.trunk = self.features + FEATURES + 10
        self.mask = self.trunk + 19
        samples = any(row.kind == "sample" for row in self.rows)
        self.head = self.mask + _BETWEEN if samples else self.features + FEATURES + _BETWEEN
        self.posterior = self.head + HEAD + _BETWEEN
        start = self.posterior + POSTERIOR + 11
        self.labels = max(start + sum(right) + 50, _WIDTH - MARGIN - LABELS)
        self.width = self.labels + LABELS + MARGIN
        self._left_lanes = [self.features - 11 - sum(left[: i + 1]) + left[i] / 2 for i in range(len(left))]
        self._right_lanes = [start + sum(right[:i]) + right[i] / 2 for i in range(len(right))]

    def _lane_widths(self, *, left: bool) -> list[float]:
        lanes: dict[int, float] = {}
        for term in self.placed:
            if term.left == left:
                lanes[term.lane] = max(lanes.get(term.lane, 0.0), term.width + 10)
        return [lanes[lane] for lane in sorted(lanes)]

    def _ports(self) -> None:
        """Give every line that meets a posterior (or, on the left, features) a place of its own on the box.

        Lines that go up come first, then those to the labels, then those that go down, so that none crosses another
        beside the box.
        """
        wanted: dict[tuple[int, bool], list[tuple[tuple[int, float], object]]] = {}
        for i, row in enumerate(self.rows):
            if row.features:
                wanted[i, True] = [((1, 0.0), "input")]
        for nth, (node, name) in enumerate(self.taught):
            wanted.setdefault((self.row_of(node), False), []).append(((1, float(nth)), name))
        for term in self.placed:
            for end, (at, link) in enumerate(term.ends):
                for style, aside in lines_of(link):
                    far = abs(self.lane(term) + (-aside if term.left else aside) - self.posterior)
                    order = (0, far) if at > term.gap else (2, -far)
                    wanted.setdefault((at, term.left), []).append((order, (term.name, end, style)))
        self._offsets: dict[tuple[int, object], float] = {}
        self._needed = [0.0] * len(self.rows)
        for (at, _), lines in wanted.items():
            names = [name for _, name in sorted(lines, key=lambda line: line[0])]
            # What comes in on the left, and a lone line, stay in the middle.
            middle = names.index("input") if "input" in names else (len(names) - 1) / 2
            self._offsets |= {(at, name): _STEP * (i - middle) for i, name in enumerate(names)}
            reach = max(middle, len(names) - 1 - middle)
            self._needed[at] = max(self._needed[at], 2 * _STEP * reach + 14)

    def _heights(self) -> None:
        gaps = {term.gap for term in self.placed}
        y = _HEADING + (PILL + 8) * len(self.above)
        self.sizes = [max(tall(row), need) for row, need in zip(self.rows, self._needed, strict=True)]
        self.middles: list[float] = []
        self._gaps: list[float] = []
        for i, (row, size) in enumerate(zip(self.rows, self.sizes, strict=True)):
            self.middles.append(y + size / 2)
            same_frame = i + 1 < len(self.rows) and _frame(self.rows[i + 1]) == _frame(row)
            room = PILL + 14 if i in gaps else 14.0 if same_frame else 28.0
            self._gaps.append(y + size + room / 2)
            y += size + room
        self.height = y - (8 if len(self.rows) - 1 in gaps else 16) + _LEGEND

    @property
    def taught(self) -> Iterator[tuple[Node, tuple[str, int]]]:
        """Each posterior that the labels teach and each memory that is mixed into them, with its line's name."""
        yield from ((node, ("ce", nth)) for nth, (node, _) in enumerate(self.seen.labelled))
        yield from ((node, ("target", nth)) for nth, node in enumerate(self.seen.targets))

    def lane(self, term: Placed) -> float:
        """The middle of a term's lane."""
        return (self._left_lanes if term.left else self._right_lanes)[term.lane]

    def pill(self, term: Placed) -> float:
        """The middle of a term's pill."""
        if term.gap == TOP:
            return _HEADING + (PILL + 8) * self.above.index(term) + PILL / 2
        return self._gaps[term.gap]

    def row_of(self, node: Node) -> int:
        """The row of a posterior or a memory."""
        return next(i for i, row in enumerate(self.rows) if row.node == node)

    def port(self, row: int, name: object) -> float:
        """The height at which a line meets its box."""
        return self.middles[row] + self._offsets[row, name]

    def stage(self, stage: int) -> tuple[float, float]:
        """The middle of a stage's box and its top."""
        return self.network + 8 + (stage + 0.5) * (NETWORK - 16) / STAGES, self.middles[0] - 12

    def extent(self, rows: Sequence[int], margin: float) -> tuple[float, float]:
        """The top of the first and the bottom of the last of some rows."""
        first, last = min(rows), max(rows)
        top, bottom = self.middles[first] - self.sizes[first] / 2, self.middles[last] + self.sizes[last] / 2
        return top - margin, bottom + margin


def tall(row: Row) -> float:
    """The height of an input's box, by its lines."""
    return {3: 48.0, 2: 36.0}.get(len(row.caption), 30.0)


def lines_of(link: Link) -> list[tuple[str, float]]:
    """The lines of a link and how far aside each is: two where a box is taught and is a constant too."""
    if link.taught and link.stopped:
        return [("solid", APART), ("dashed", -APART)]
    return [("solid" if link.taught else "dashed", 0.0)]


def _frame(row: Row) -> tuple[str, bool]:
    """What stands in one frame: the rows of a network; early classifiers and memories stand outside."""
    return row.network, row.kind in ("early", "memory")
