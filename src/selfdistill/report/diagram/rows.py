"""An observation as rows from top to bottom: one posterior each, with how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfdistill.report.diagram.observe import Observation
from selfdistill.report.diagram.taking import Node
from selfdistill.report.tables import MINUS

MASKS = "uvwstrqponmlkjihgedcba"
PRIME = "\N{PRIME}"


@dataclass(frozen=True)
class Row:
    """One posterior.

    Attributes:
        kind: a pass of an input; a pass from a masked place inside the network; a head call of the method's own; the
            early classifiers; what is kept from step to step.
        node: its posterior (or memory).
        network: whose backbone or, of a head call, whose head: ``"x"`` the model's, ``"peer"`` the peer's.
        label: of the posterior; ``_{...}`` and ``^{...}`` lower and raise.
        features: label of the features that start here; empty if none do.
        features_of: the source of the features that are classified.
        head: whether a head classifies them.
        caption: the input, and up to two lines about it; empty if it is another row's.
        mask: letter of the dropout mask, or empty.
        gradient: whether any flows through it.
    """

    kind: Literal["pass", "inside", "sample", "early", "memory"]
    node: Node
    network: str
    label: str
    features: str = ""
    features_of: str = ""
    head: bool = True
    caption: tuple[str, ...] = ()
    mask: str = ""
    gradient: bool = True


def rows_of(seen: Observation) -> list[Row]:
    """Return the rows: the model's passes, each with the head calls on its features, then early classifiers, then what
    is kept; last the peer's. The rows of one head stand together.
    """
    rows: list[Row] = []
    masks = iter(MASKS)
    letters = {sample.source: next(masks) if sample.masked else "" for sample in seen.samples}

    def add(source: str, network: str) -> None:
        rows.append(_of_pass(seen, source, network))
        add_samples(source, network)

    def add_samples(source: str, head_of: str) -> None:
        for number, sample in enumerate(seen.samples, 1):
            if (sample.features_of, sample.head_of) == (source, head_of):
                letter = letters[sample.source]
                label = f"z{_suffix(source, seen)}^{{{letter or number}}}"
                node = Node("posterior", sample.source)
                rows.append(
                    Row("sample", node, head_of, label, features_of=source, mask=letter, gradient=sample.gradient)
                )

    for source in seen.passes:
        if source != "peer":
            add(source, "x")
    if "peer" in seen.passes:
        add_samples("peer", "x")
    if seen.early:
        rows.append(_early(seen))
    rows += [Row("memory", node, "x", "kept", head=False) for node in seen.memories]
    if "peer" in seen.passes:
        for source in seen.passes:
            if source != "peer":
                add_samples(source, "peer")
        add("peer", "peer")
    return rows


def _of_pass(seen: Observation, source: str, network: str) -> Row:
    suffix = _suffix(source, seen)
    inside = source in ("u", "v") and seen.needs.dropout_at is not None
    return Row(
        "inside" if inside else "pass",
        Node("posterior", source),
        network,
        f"z{suffix}",
        features=f"f{suffix}" if suffix else "f(x)",
        features_of=source,
        caption=() if inside else _caption(source, seen),
        mask=source if inside else "",
        gradient=seen.passes[source],
    )


def _early(seen: Observation) -> Row:
    stages = [str(stage + 1) for stage in seen.early]
    which = stages[0] if len(stages) == 1 else f"{stages[0]}…{stages[-1]}"
    return Row("early", Node("posterior", "early"), "x", f"z_{{{which}}}", f"F_{{{which}}}", "early", head=False)


def _suffix(source: str, seen: Observation) -> str:
    """What tells the symbols of one pass from those of another."""
    kind, _, number = source.partition(" ")
    several = seen.needs.views + seen.needs.passes > 2
    return {
        "x": "_{1}" if several else "",
        "view": f"_{{{number}}}",
        "again": f"_{{{number}}}",
        "pair": PRIME,
        "previous": f"_{{t{MINUS}1}}",
        "peer": "_{peer}",
        "pass": f"_{{+{number}}}",
    }.get(kind, f"^{{{kind}}}")


def _caption(source: str, seen: Observation) -> tuple[str, ...]:
    """The input, and what is particular about it."""
    kind, _, _ = source.partition(" ")
    needs = seen.needs
    if kind in ("x", "peer"):
        more = f"groups of {needs.group}" if needs.group > 1 else "with positions" if needs.index else ""
        own = "view 1" if needs.views > 1 else "own dropout" if needs.passes > 1 else ""
        return ("x", *(line for line in (own, more) if line and kind == "x"))
    return {
        "view": ("x", source),
        "again": ("x", "own dropout"),
        "pair": (f"x{PRIME}", "same class"),
        "previous": (f"x_{{t{MINUS}1}}", "last batch"),
    }.get(kind, ("x", "changed"))
