"""The columns of a diagram, one per posterior, memory and labels; and the diagram in words."""

from collections.abc import Iterable
from typing import NamedTuple

from selfdistill.report.diagram.observe import LABELS, Forward, LossTerm, Node, Observation
from selfdistill.report.tables import MINUS

TIMES, _PRIME, _MASKS = "\N{MULTIPLICATION SIGN}", "\N{PRIME}", "uvwstrqponmlkjihgedcba"


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
