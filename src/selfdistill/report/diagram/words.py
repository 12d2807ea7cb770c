"""A diagram in words, for those who do not see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from selfdistill.report.diagram.lanes import weight_text
from selfdistill.report.diagram.observe import Observation
from selfdistill.report.diagram.rows import Row
from selfdistill.report.diagram.taking import LABELS, Node

Name = Callable[[Node], str]


def described(seen: Observation, rows: Sequence[Row]) -> str:
    """Return what is drawn: how each posterior comes about, what the labels teach, and each term.

    Args:
        seen: what a method showed.
        rows: of its diagram.
    """
    names = {row.node: _plain(row.label) for row in rows}
    names |= {Node("features", row.features_of): _plain(row.features) for row in rows if row.features}
    names[LABELS] = "the labels"

    def name(node: Node) -> str:
        return f"the output of stage {node.part + 1}" if node.kind == "stage" else names[node]

    said = ["; ".join(_posteriors(seen, rows, name)), *_labels(seen, name), *_terms(seen, name)]
    return " ".join(f"{sentence}." for sentence in said)


def _posteriors(seen: Observation, rows: Sequence[Row], name: Name) -> Iterator[str]:
    for row in rows:
        to, held = name(row.node), "" if row.gradient else ", without gradient"
        whose = "the peer's" if row.network == "peer" else "the"
        mask = f" under the dropout mask {row.mask}" if row.mask else ""
        if row.kind == "pass":
            what = _plain(row.caption[0]) + (f" ({', '.join(row.caption[1:])})" if row.caption[1:] else "")
            yield f"{what} passes {whose} network f and head h to {to}{held}"
        elif row.kind == "inside":
            assert seen.needs.dropout_at is not None
            yield f"the output of {seen.needs.dropout_at.module}{mask} goes on to {to}{held}"
        elif row.kind == "sample":
            yield f"{name(Node('features', row.features_of))}{mask} passes {whose} head h to {to}{held}"
        elif row.kind == "early":
            yield f"early classifiers on the inner stages give {_plain(row.features)} and {to}"


def _labels(seen: Observation, name: Name) -> Iterator[str]:
    taught = [name(node) + ("" if weight == 1 else f" ({weight_text(weight)})") for node, weight in seen.labelled]
    by = "cross-entropy" if seen.label_loss is None else f"the loss of {seen.label_loss}"
    if taught:
        yield f"The labels y teach {_listed(taught)} by {by}"
    if seen.targets:
        yield "What is kept is mixed into the labels"


def _terms(seen: Observation, name: Name) -> Iterator[str]:
    for term in seen.terms:
        taught = _listed([name(link.node) for link in term.links if link.taught])
        held = _listed([name(link.node) for link in term.links if link.stopped])
        constants = f"; held constant in it: {held}" if held else ""
        yield f"The term {term.name} ({weight_text(term.weight)}) teaches {taught or 'nothing'}{constants}"
    yield from (f"For later steps {name(node)} is {name(memory)}" for node, memory in seen.kept)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(", ".join(names).rsplit(", ", 1))


def _plain(label: str) -> str:
    return label.replace("{", "").replace("}", "")
