"""The boxes of a diagram: networks and heads, inputs, features, posteriors, labels, and the terms' pills."""

from __future__ import annotations

from collections.abc import Iterator

from selfdistill.report.diagram.bench import STAGES
from selfdistill.report.diagram.lanes import PILL
from selfdistill.report.diagram.layout import FEATURES, HEAD, INPUT, LABELS, NETWORK, POSTERIOR, Layout, tall
from selfdistill.report.diagram.svg import box, circle, text


def network_boxes(at: Layout) -> Iterator[str]:
    """One frame a network and one a head, over the rows that pass it."""
    for network, shade, name in (("x", "net", ""), ("peer", "peer", "_{peer}")):
        passes = [i for i, row in enumerate(at.rows) if row.network == network and row.kind in ("pass", "inside")]
        heads = [i for i, row in enumerate(at.rows) if row.network == network and row.head]
        if not passes:
            continue
        top, bottom = at.extent(passes, 4)
        yield box(at.network, top, NETWORK, bottom - top, f"tint network f-{shade} s-{shade}", radius=8)
        place = at.seen.needs.dropout_at
        if place is not None and network == "x":
            yield text(at.network + 26, at.middles[0] + 5, "f", size=16)
            module = place.module if len(place.module) < 10 else "…" + place.module[-8:]
            yield text(at.network + 8, at.middles[0] + 26, module, size=10, anchor="start", kind="muted")
        elif not (network == "x" and at.seen.needs.stages):
            yield text(at.network + NETWORK / 2, (top + bottom) / 2 + 5, f"f{name}", size=16)
        top, bottom = at.extent(heads, 4)
        yield box(at.head, top, HEAD, bottom - top, f"tint head f-{shade} s-{shade}", radius=8)
        yield text(at.head + HEAD / 2, (top + bottom) / 2 + 5, f"h{name}", size=12 if name else 15)


def row_boxes(at: Layout) -> Iterator[str]:
    """Input, features, mask and posterior of each row; the stages."""
    for i, row in enumerate(at.rows):
        y, size = at.middles[i], at.sizes[i]
        if row.caption:
            name, *more = row.caption
            top, middle = y - tall(row) / 2, at.input + INPUT / 2
            yield box(at.input, top, INPUT, tall(row), "box input s-flow")
            yield text(middle, top + (16 if more else 20), name, size=14)
            for nth, line in enumerate(more):
                yield text(middle, top + 30 + 12 * nth, line, size=10, kind="muted")
        if row.kind == "early":
            yield box(at.network, y - size / 2, NETWORK, size, "tint early f-net s-net")
            yield text(at.network + NETWORK / 2, y + 4, "early classifiers", size=10.5)
        if row.features:
            yield box(at.features, y - size / 2, FEATURES, size, "box features s-flow")
            yield text(at.features + FEATURES / 2, y + 4.5, row.features, size=13)
        if row.mask:
            x = at.mask if row.kind == "sample" else at.network + NETWORK - 18
            yield circle(x, y, 10, "box mask s-mask")
            yield text(x, y + 4, row.mask, size=12)
        kind = "memory" if row.kind == "memory" else "posterior"
        shade = "memory" if row.kind == "memory" else "peer" if row.network == "peer" else "net"
        yield box(at.posterior, y - size / 2, POSTERIOR, size, f"box {kind} s-{shade}")
        yield text(at.posterior + POSTERIOR / 2, y + 4.5, row.label, size=13)
    if at.seen.needs.stages:
        for stage in range(STAGES):
            x, top = at.stage(stage)
            yield box(x - 11, top, 22, 24, "box stage s-net", radius=4)
            yield text(x, top + 16, f"f_{{{stage + 1}}}", size=12)


def label_box(at: Layout) -> Iterator[str]:
    """The labels, as tall as the lines that reach them are apart."""
    heights = [at.port(at.row_of(node), name) for node, name in at.taught]
    heights += [at.pill(term) for term in at.placed if term.labels]
    if heights:
        top, bottom = min(heights) - 15, max(heights) + 15
        yield box(at.labels, top, LABELS, bottom - top, "box labels s-ink")
        yield text(at.labels + LABELS / 2, (top + bottom) / 2 + 5, "y", size=15)


def pills(at: Layout) -> Iterator[str]:
    """A pill a term, with its name and weight; another for what is kept."""
    for term in at.placed:
        x, y = at.lane(term), at.pill(term)
        kind = "pill" if term.weight else "keeps"
        yield box(x - term.width / 2, y - PILL / 2, term.width, PILL, f"{kind} box s-{term.shade}", radius=9)
        yield text(x, y - 2 if term.weight else y + 4, term.name, size=12)
        if term.weight:
            yield text(x, y + 12, term.weight, size=11, kind="muted")
