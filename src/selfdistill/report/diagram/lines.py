"""The lines of a diagram: from the inputs to the posteriors, from the labels, and those of the terms."""

from __future__ import annotations

from collections.abc import Iterator

from selfdistill.report.diagram.lanes import PILL, Placed
from selfdistill.report.diagram.layout import FEATURES, HEAD, INPUT, NETWORK, POSTERIOR, Layout, lines_of
from selfdistill.report.diagram.observe import Link
from selfdistill.report.diagram.rows import Row
from selfdistill.report.diagram.svg import Point, halo, text, wire


def forward_lines(at: Layout) -> Iterator[str]:
    """From the inputs to the posteriors."""
    for i, row in enumerate(at.rows):
        y, dashed = at.middles[i], not row.gradient
        if row.kind == "pass":
            yield wire([(at.input + INPUT, y), (at.network, y)], "flow", dashed=dashed, end=True)
        if row.kind in ("pass", "inside", "early"):
            yield wire([(at.network + NETWORK, y), (at.features, y)], "flow", dashed=dashed, end=True)
            to = at.head if row.head else at.posterior
            yield wire([(at.features + FEATURES, y), (to, y)], "flow", dashed=dashed, end=True)
        if row.kind == "inside":
            yield from _inside(at, y)
        if row.kind == "sample":
            start = at.middles[_source(at, row)]
            shade = "mask" if row.mask else "flow"
            yield wire([(at.trunk, start), (at.trunk, y), (at.head, y)], shade, dashed=dashed, end=True)
        if row.kind == "early":
            for stage in at.seen.early:
                x, top = at.stage(stage)
                yield wire([(x, top + 24), (x, y - at.sizes[i] / 2)], "net", end=True)
        if row.head:
            yield wire([(at.head + HEAD, y), (at.posterior, y)], "flow", dashed=dashed, end=True)


def label_lines(at: Layout) -> Iterator[str]:
    """Cross-entropy, from the labels to what they teach; and from a memory that is mixed into the labels."""
    right, star = at.posterior + POSTERIOR, "*" if at.seen.label_loss else ""
    weights = [weight for _, weight in at.seen.labelled]
    for node, (kind, nth) in at.taught:
        y = at.port(at.row_of(node), (kind, nth))
        if kind == "ce":
            share = {1.0: "", 0.5: "½ "}.get(weights[nth], f"{weights[nth]:.2g} ")
            yield wire([(at.labels, y), (right, y)], "ink", end=True)
            yield text(at.labels - 6, y - 5, f"{share}CE{star}", size=11, anchor="end")
        else:
            yield wire([(right, y), (at.labels, y)], "memory", dashed=True, end=True)
            yield text(at.labels - 10, y - 5, "mixed in", size=11, anchor="end", kind="muted")


def term_lines(at: Layout) -> Iterator[str]:
    """From what a term reads to its pill, and the gradient back."""
    for term in at.placed:
        lines = list(_lines(at, term))
        yield from (halo(points) for points, _ in lines)
        for points, style in lines:
            yield wire(points, term.shade, dashed=style == "dashed", start=style == "solid")
        if term.labels:
            y = at.pill(term)
            points = [(at.labels, y), (at.lane(term) + term.width / 2, y)]
            yield halo(points) + wire(points, "ink")


def _lines(at: Layout, term: Placed) -> Iterator[tuple[list[Point], str]]:
    """Yield the points of each line, and its style."""
    x, y = at.lane(term), at.pill(term)
    edge = at.features if term.left else at.posterior + POSTERIOR
    for end, (row, link) in enumerate(term.ends):
        for style, aside in lines_of(link):
            port = at.port(row, (term.name, end, style))
            beside = x - aside if term.left else x + aside
            yield [(edge, port), (beside, port), (beside, y + (PILL if row > term.gap else -PILL) / 2)], style
    for nth, link in enumerate(term.above):
        for style, aside in lines_of(link):
            yield _from_above(at, term, link, nth, aside), style


def _from_above(at: Layout, term: Placed, link: Link, nth: int, aside: float) -> list[Point]:
    """From features or a stage over the first row to a pill."""
    y = at.pill(term) + aside + 3 * nth
    end = (at.lane(term) - term.width / 2, y)
    if link.node.kind == "stage":
        x, top = at.stage(link.node.part)
        return [(x + aside, top), (x + aside, y), end]
    row = next(i for i, one in enumerate(at.rows) if one.features and one.features_of == link.node.source)
    if row == 0:
        x = at.features + FEATURES / 2 + aside + 8 * at.above.index(term)
        return [(x, at.middles[0] - at.sizes[0] / 2), (x, y), end]
    x, port = at.features - 12 + aside, at.middles[row] + 8 + aside
    return [(at.features, port), (x, port), (x, y), end]


def _inside(at: Layout, y: float) -> Iterator[str]:
    """From a place inside the network to the end of it, under a mask."""
    right = at.network + NETWORK
    yield wire([(right - 62, at.middles[0]), (right, at.middles[0])], "flow")
    yield wire([(right - 38, at.middles[0]), (right - 38, y), (right, y)], "mask")


def _source(at: Layout, row: Row) -> int:
    return next(i for i, one in enumerate(at.rows) if one.features and one.features_of == row.features_of)
