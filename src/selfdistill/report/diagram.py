"""The diagram of any method (Fig. 1): method --(a step, watched)--> Observation --> columns --> Layout --> SVG.

``diagram.svg.j2`` draws the layout.
"""

import re
from collections.abc import Iterable
from itertools import product
from math import ceil, copysign
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from selfdistill.method import Method
from selfdistill.records import write_atomically
from selfdistill.report.observe import LABELS, Forward, LossTerm, Node, Observation, observe
from selfdistill.report.pages import render
from selfdistill.report.style import CARD, GRID, INK, MUTED, PALETTE, short
from selfdistill.report.tables import MINUS

TIMES, _PRIME, _MASKS = "\N{MULTIPLICATION SIGN}", "\N{PRIME}", "uvwstrqponmlkjihgedcba"
_MARGIN, _BOX, _BESIDE, _STAGE, _ROW = 16, 56, 10, 26, 36


def draw_diagram(method: Method) -> str:
    """Return a picture of a method in the manner of Fig. 1 of the paper, an SVG that stands alone.

    The forward passes run down to the posteriors. Below is a row for each term: in the column of what it reads, a
    triangle says that a gradient goes up, and a ring that the value is a constant. Nothing is known of any method by
    name: it takes a step on a small network and is watched (:func:`selfdistill.report.observe.observe`).

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


class Column(NamedTuple):
    """A posterior, a memory or the labels, and what is above it; in a label ``_`` lowers and ``^`` raises."""

    kind: str  # "pass", "masked pass", "head call", "early", "memory" or "labels"
    node: Node
    label: str
    forward: Forward = Forward("", "", "", True)  # how the posterior comes about; of a memory and the labels nothing
    words: str = ""  # the same in words, up to the label
    features: str = ""  # label of the features that start here
    input: tuple[str, ...] = ()  # its label and up to two lines about it
    mask: str = ""  # letter of the dropout mask


def columns_of(seen: Observation) -> list[Column]:
    """Return the columns from left to right; the posteriors of one head stand together."""
    order, heads = [forward.source for forward in seen.step.forwards], ("", "x", "peer")
    ordered = sorted(seen.step.forwards, key=lambda one: (heads.index(one.head_of), order.index(one.features_of)))
    letters = dict(zip((one.source for one in seen.step.forwards if one.masked), _MASKS, strict=False))
    columns = [_column(forward, letters.get(forward.source, ""), seen) for forward in ordered]
    columns += [Column("memory", memory, "memory") for memory in seen.step.memories]
    read = {read.node for term in seen.terms for read in term.reads}
    return columns + [Column("labels", LABELS, "y")] * (LABELS in read)


def _column(forward: Forward, mask: str, seen: Observation) -> Column:
    kind, _, number = forward.source.partition(" ")
    node, suffix, needs = Node("posterior", forward.source), _suffix(forward.features_of, seen), seen.method.needs
    whose = "the peer's" if forward.head_of == "peer" else "the"
    features = f"f{suffix}" if suffix else "f(x)"
    if kind == "head":
        words = f"{features}{f' under the dropout mask {mask}' if mask else ''} passes {whose} head h to "
        return Column("head call", node, f"z{suffix}^{mask or number.split()[1]}", forward, words, mask=mask)
    if kind == "early":
        words = f"early classifiers on the inner stages give F{suffix} and "
        return Column("early", node, f"z{suffix}", forward, words, f"F{suffix}")
    if kind in ("u", "v"):
        words = (
            f"the output of {needs.dropout_at and needs.dropout_at.module} under the dropout mask {kind} goes on to "
        )
        return Column("masked pass", node, f"z{suffix}", forward, words, features, mask=kind)
    own = "view 1" if needs.views > 1 else "own dropout" if needs.passes > 1 else ""
    more = f"groups of {needs.group}" if needs.group > 1 else "with positions" if needs.index else ""
    inputs: dict[str, tuple[str, ...]] = {
        "x": ("x", *filter(None, (own, more))),
        "peer": ("x",),
        "view": ("x", forward.source),
        "again": ("x", "own dropout"),
        "pair": (f"x{_PRIME}", "same class"),
        "previous": (f"x_t{MINUS}1", "last batch"),
    }
    name, *about = inputs.get(kind, ("x", "changed"))
    words = f"{' '.join((name, *(f'({line})' for line in about)))} passes {whose} network f and head h to "
    return Column("pass", node, f"z{suffix}", forward, words, features, (name, *about))


def _suffix(source: str, seen: Observation) -> str:
    """What tells the symbols of one pass from those of another."""
    kind, _, number = source.partition(" ")
    several = seen.method.needs.views + seen.method.needs.passes > 2
    stages = sorted(seen.step.early_stages) or [0]
    early = f"_{stages[0]}…{stages[-1]}" if len(stages) > 1 else f"_{stages[0]}"
    names = {"x": "_1" * several, "pair": _PRIME, "previous": f"_t{MINUS}1", "peer": "_peer", "early": early}
    return names.get(kind, f"_{'+' * (kind == 'pass')}{number}" if number else f"^{kind}")


def weight_text(weight: float) -> str:
    """A weight to three digits, small ones as a power of ten.

    Example:
        >>> weight_text(9.0), weight_text(0.09), weight_text(2e-7)
        ('× 9', '× 0.09', '× 2·10⁻⁷')
    """
    digits, _, power = f"{weight:.3g}".partition("e")
    raised = str(int(power or 0)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{TIMES} {digits}·10{raised}".replace(" 1·", " ") if power else f"{TIMES} {digits}"


def describe(seen: Observation) -> str:
    """Return the diagram in words: how each posterior comes about, what the labels teach, and each term."""
    columns = sorted(columns_of(seen), key=lambda column: column.kind == "early")
    names = {column.node: column.label for column in columns} | {LABELS: "the labels y"}
    names |= {Node("features", column.node.source): column.features for column in columns}
    names |= {node: f"the output of {node.kind}" for node in seen.step.leaves if node.kind.startswith("stage")}
    names |= dict.fromkeys(seen.step.memories, "the memory")
    posteriors = [f"{c.words}{c.label}{'' if c.forward.gradient else ', without gradient'}" for c in columns if c.words]
    sentences = ["; ".join(posteriors), *(_describe(term, names) for term in seen.terms)]
    return f"{'. '.join(sentences)}."


def _describe(term: LossTerm, names: dict[Node, str]) -> str:
    if term.kind == "save":
        return f"For later steps {names[term.reads[0].node]} is saved in the memory"
    label_loss = term.kind == "label loss"
    weight = "" if label_loss and term.weight == 1 else f" ({weight_text(term.weight)})"
    taught = [names[read.node] for read in term.reads if read.gradient]
    constants = [names[r.node] for r in term.reads if r.constant and not (label_loss and r.node == LABELS)]
    held = f"; held constant in it: {_join(constants)}" if constants else ""
    if not label_loss:
        return f"The term {term.name}{weight} teaches {_join(taught) or 'nothing'}{held}"
    loss = "cross-entropy" if term.name == "CE" else f"the loss of {term.name}"
    return f"The labels y teach {_join(name + weight for name in taught)} by {loss}{held}"


def _join(names: Iterable[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))
