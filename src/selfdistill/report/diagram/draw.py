"""The diagram of a method (Fig. 1): where its columns, layers and rows are; ``diagram.svg.j2`` draws them."""

import re
from itertools import product
from math import ceil, copysign
from pathlib import Path

from markupsafe import Markup, escape

from selfdistill.method import Method
from selfdistill.records import write_atomically
from selfdistill.report.diagram.columns import columns_of, describe, weight_text
from selfdistill.report.diagram.observe import Node, Observation, observe
from selfdistill.report.pages import render
from selfdistill.report.style import CARD, GRID, INK, MUTED, PALETTE, short

_MARGIN, _BOX, _BESIDE, _STAGE, _ROW = 16, 56, 10, 26, 36


def draw_diagram(method: Method) -> str:
    """Return a picture of a method in the manner of Fig. 1 of the paper, an SVG that stands alone.

    The forward passes run down to the posteriors. Below is a row for each term: in the column of what it reads, a
    triangle says that a gradient goes up, and a ring that the value is a constant. Nothing is known of any method by
    name: it takes a step on a small network and is watched (:func:`selfdistill.report.diagram.observe.observe`).

    Args:
        method: any method, sums and a user's own included; it is not changed.

    Returns:
        An SVG element that needs no other file, follows the reader's light or dark colours, says in ``<desc>`` what it
        shows, and is the same text each time.

    Example:
        >>> from selfdistill import SDDropout
        >>> draw_diagram(SDDropout()).count('class="box pill')  # of cross-entropy and of its own term
        2
    """
    layout = Layout(observe(method))
    title = short(repr(method), (layout.width - 2 * _MARGIN) // 8)
    colours = {"palette": PALETTE, "ink": INK, "muted": MUTED, "grid": GRID, "card": CARD}
    texts = {"title": title, "description": describe(layout.seen), "formula": formula, "weight_text": weight_text}
    return render("diagram.svg", at=layout, **texts, **colours)


def write_diagram(method: Method, folder: Path, prefix: str = "") -> Path:
    """Write a diagram, named as the modules of the method's parts: ``byot-sd_dropout.svg``; whole or not at all."""
    name = "-".join(type(part).__module__.rpartition(".")[2] for part in method.parts)
    write_atomically(folder / f"{prefix}{name}.svg", draw_diagram(method).encode())
    return folder / f"{prefix}{name}.svg"


def formula(label: str) -> Markup:
    """Return SVG text in which ``_`` lowers what follows and ``^`` raises it."""
    shift = {"_": 3.5, "^": -8.5 if "_" in label else -5}
    span = r'<tspan dy="{}" font-size="72%">{}</tspan>'
    return Markup(re.sub("([_^])([^_^]+)", lambda found: span.format(shift[found[1]], found[2]), escape(label)))


def text_width(text: str, size: float) -> int:
    """A width that a text does not exceed in any of the fonts."""
    return ceil(0.6 * size * len(text))


class Layout:
    """Where everything is, in pixels: columns from left to right, layers from top to bottom, a row for each term."""

    def __init__(self, seen: Observation):
        self.seen, self.columns = seen, columns_of(seen)
        terms = [term for term in seen.terms if term.reads]
        texts = ["posterior", *(text for term in terms for text in (term.name, weight_text(term.weight)))]
        self.pill_width = max(text_width(text, 12) for text in texts) + 12
        self._place_columns(list(dict.fromkeys(read.node for term in terms for read in term.reads)))
        self._place_layers()
        self.height = self.first_row + _ROW * len(terms) + 32
        ys = range(self.first_row + _ROW // 2, self.height - 32, _ROW)
        self.rows = [
            (term, y, max(self.x[read.node] for read in term.reads)) for term, y in zip(terms, ys, strict=True)
        ]
        self.frames = list[tuple[str, str, float, float]]()
        for layer, head_of in product(("network", "head"), ("x", "peer")):
            kinds = ("pass", "masked pass", "head call")[: 2 if layer == "network" else 3]
            at = [self.x[one.node] for one in self.columns if one.forward.head_of == head_of and one.kind in kinds]
            if at:
                self.frames.append((layer, head_of, min(at), max(at)))
        last = {read.node: y for term, y, _ in self.rows for read in term.reads}
        self.exits = {node: (*self._exit(node), y) for node, y in last.items()}

    def _place_columns(self, read: list[Node]) -> None:
        self.x, self.widths = dict[Node, float](), list[int]()
        right, head_before = _MARGIN + self.pill_width, ""
        for column in self.columns:
            beside = [node for node in read if node.source == column.node.source and node != column.node]
            texts = ["classifiers"] if column.kind == "early" else column.input[1:]
            width = max([_BOX, *(text_width(text, 10) + 8 for text in texts)])
            # Only on the left of the first and on the right of the last is the way past a shared head free.
            left = not column.forward.head_of or column.forward.head_of != head_before
            x = self.x[column.node] = right + 14 + width / 2 + (_BESIDE * len(beside) if left else 0)
            self.x |= {node: x + (_BOX / 2 + _BESIDE * i) * (-1 if left else 1) for i, node in enumerate(beside, 1)}
            right, head_before = ceil(x + width / 2 + (0 if left else _BESIDE * len(beside))), column.forward.head_of
            self.widths.append(width)
        self.width = max(right + _MARGIN, 300)

    def _place_layers(self) -> None:
        kinds = {column.kind for column in self.columns}
        network = 4 * _STAGE + 4 if self.seen.method.needs.stages else 64 if "masked pass" in kinds else 30
        inputs = 18 + 12 * max(len(column.input) for column in self.columns)
        heights = {"input": inputs, "network": network, "features": 26, "head": 28, "posterior": 26}
        self.top, self.bottom, self.first_row = dict[str, int](), dict[str, int](), 42
        for layer, height in heights.items():
            self.top[layer], self.bottom[layer] = self.first_row, self.first_row + height
            self.first_row += height + (42 if layer == "features" and "head call" in kinds else 16)

    def _exit(self, node: Node) -> tuple[float, float]:
        """Return the point at the border of a node's box where the line down to the rows starts."""
        if node in [column.node for column in self.columns]:
            return self.x[node], self.bottom["posterior"]
        stage = node.kind.removeprefix("stage ")
        half, y = _BOX / 2, self.top["features"] + 13
        if stage.isdigit():
            half, y = 15, self.top["network"] + _STAGE * int(stage) - 11
        x = self.x[Node("posterior", node.source)]
        return x + copysign(half, self.x[node] - x), y
