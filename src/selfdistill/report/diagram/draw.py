"""The diagram of a method (Fig. 1) as an SVG that stands alone."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from selfdistill.method import Method
from selfdistill.report.diagram.boxes import label_box, network_boxes, pills, row_boxes
from selfdistill.report.diagram.lanes import TIMES
from selfdistill.report.diagram.layout import MARGIN, Layout
from selfdistill.report.diagram.lines import forward_lines, label_lines, term_lines
from selfdistill.report.diagram.observe import observe
from selfdistill.report.diagram.svg import STYLE, box, circle, number, text, wide, wire
from selfdistill.report.diagram.words import described
from selfdistill.report.style import short


def diagram(method: Method) -> str:
    """Return a picture of a method in the manner of the paper's Fig. 1.

    From left to right: the inputs of a step, the network f, the features, the head h, the posteriors, the terms and the
    labels y. A solid line with an arrowhead brings a gradient; a dashed one is read as a constant. Nothing is known of
    any method by name: it takes a step on a small synthetic network and is watched
    (:func:`selfdistill.report.diagram.observe.observe`).

    Args:
        method: any, sums and a user's own included; it stays as it is.

    Returns:
        An SVG element, 720 pixels wide or, with many terms, wider; it needs no other file, follows the reader's light
        or dark colours, says in ``<desc>`` what it shows, and is the same text each time.

    Example:
        >>> from selfdistill import SDDropout
        >>> diagram(SDDropout()).count('class="pill ')  # its one term
        1

    Source: Self-Knowledge Distillation via Dropout, Fig. 1.
    """
    at = Layout(observe(method))
    width, height = number(at.width), number(at.height)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    head = f'<svg class="diagram" xmlns="http://www.w3.org/2000/svg" role="img" {size}>'
    said = f"<title>{escape(at.seen.expression)}</title>\n<desc>{escape(described(at.seen, at.rows))}</desc>"
    lines = (forward_lines, label_lines, term_lines)
    layers = (_ground, network_boxes, *lines, row_boxes, label_box, pills, _legend)
    body = "\n".join(element for layer in layers for element in layer(at))
    return f"{head}\n{said}\n<style>{STYLE}</style>\n{body}\n</svg>\n"


def _ground(at: Layout) -> Iterator[str]:
    yield box(0.5, 0.5, at.width - 1, at.height - 1, "card", radius=10)
    most = int((at.width - 2 * MARGIN) / wide(" ", 13))
    yield text(MARGIN, 26, short(at.seen.expression, most), size=13, anchor="start")


def _legend(at: Layout) -> Iterator[str]:
    x, y = MARGIN, at.height - 18
    for name, sample in _entries(at):
        if sample:
            yield f'<g transform="translate({number(x)} {number(y - 4)})">{sample}</g>'
            x += 34
        yield text(x, y, name, size=11, anchor="start", kind="muted")
        x += wide(name, 11) + 12


def _entries(at: Layout) -> Iterator[tuple[str, str]]:
    """What the lines mean, as far as they are there, each with a sample."""
    seen, line = at.seen, ((0.0, 0.0), (26.0, 0.0))
    links = [link for term in at.placed for link in (*(link for _, link in term.ends), *term.above)]
    yield "gradient", wire(line, "term" if seen.terms else "ink", end=True)
    if any(link.stopped for link in links) or not all(row.gradient for row in at.rows):
        yield "constant: no gradient", wire(line, "term" if seen.terms else "memory", dashed=True)
    if any(row.mask for row in at.rows):
        yield "dropout mask", circle(16, 0, 7, "box s-mask")
    if seen.kept:
        yield "kept for later steps", wire(line, "memory", end=True)
    if seen.label_loss is not None:
        yield f"CE*: by {seen.label_loss}", ""
    if seen.terms:
        yield f"{TIMES} weight λT²", ""
