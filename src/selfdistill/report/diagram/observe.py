"""What a method reads and teaches, found out by trying: no list of methods, no reading of their code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from selfdistill.method import Labelled, Method, Needs
from selfdistill.report.diagram.bench import Bench
from selfdistill.report.diagram.taking import LABELS, Evaluation, Node, Sample

_SMALL, _LARGE = 1e-3, 3.0


class Link(NamedTuple):
    """That a term reads a node.

    Attributes:
        node: what is read; of several early classifiers the first stands for all.
        taught: whether a gradient reaches it.
        stopped: whether some of the gradient does not, as where it is also the target.
    """

    node: Node
    taught: bool
    stopped: bool


class Reading(NamedTuple):
    """A term by name, its weight (lambda * T**2) at the end of the training, and what it reads."""

    name: str
    weight: float
    links: tuple[Link, ...]


class Observation(NamedTuple):
    """What one step of a method showed.

    Attributes:
        expression: the method's ``repr``.
        needs: its own.
        passes: sources of the passes in order, with whether a gradient flows through each.
        samples: the head calls that the method made itself.
        early: the stages that have an early classifier, from 0.
        memories: nodes of what is kept from step to step.
        labelled: what the label loss sees, with its weight.
        terms: every term.
        kept: ``(node, memory)`` where the memory keeps what the node says.
        targets: the memories that the labels are mixed with.
        label_loss: the part of a sum that replaces cross-entropy, or None.
    """

    expression: str
    needs: Needs
    passes: dict[str, bool]
    samples: tuple[Sample, ...]
    early: tuple[int, ...]
    memories: tuple[Node, ...]
    labelled: tuple[tuple[Node, float], ...]
    terms: tuple[Reading, ...]
    kept: tuple[tuple[Node, Node], ...]
    targets: tuple[Node, ...]
    label_loss: str | None


def observe(method: Method) -> Observation:
    """Take one step and shift each tensor in turn: what changes was read, what has no gradient is a constant.

    A node's gradient stops where what autograd says of it differs from the slope that a small shift shows.

    Args:
        method: any, also of a user's own; it stays as it is.

    Example:
        >>> from selfdistill import CSKD
        >>> for link in observe(CSKD()).terms[0].links:
        ...     print(link.node.source, link.taught)
        x True
        pair False
    """
    bench = Bench(method)
    base = bench.take()
    nodes = [*base.leaves, *base.memories, LABELS]
    trials = {node: _Trial(bench, base, node) for node in nodes}
    terms = []
    for name, term in base.terms.items():
        gradients = _gradients(term.value, base)
        links = (trials[node].link(name, gradients.get(node)) for node in nodes)
        terms.append(Reading(name, float(term.weight), _merged(link for link in links if link is not None)))
    return Observation(
        expression=repr(method),
        needs=method.needs,
        passes={n.source: leaf.requires_grad for n, leaf in base.leaves.items() if _is_pass(n)},
        samples=tuple(base.samples),
        early=tuple(sorted({node.part for node in base.leaves if node.source == "early"})),
        memories=tuple(base.memories),
        labelled=tuple(_labelled(base.labelled, base)),
        terms=tuple(terms),
        kept=tuple((n, m) for n in nodes for m in base.kept if n not in base.memories and trials[n].changes_kept(m)),
        targets=tuple(memory for memory in base.memories if trials[memory].changes_labels),
        label_loss=next((repr(part) for part in method.parts if part.criterion is not None), None),
    )


class _Trial:
    """The step with one node shifted: a little to both sides, and far."""

    def __init__(self, bench: Bench, base: Evaluation, node: Node) -> None:
        self.base, self.node = base, node
        like = {**base.leaves, **base.memories}.get(node, base.labels)
        generator = torch.Generator().manual_seed(7)
        self.direction = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        self.far = bench.take({node: _LARGE * self.direction})
        self.up = self.down = base
        if any(_differ(_value(base, name), _value(self.far, name)) for name in base.terms):
            self.up = bench.take({node: _SMALL * self.direction})
            self.down = bench.take({node: -_SMALL * self.direction})

    def link(self, term: str, gradient: Tensor | None) -> Link | None:
        """Return how a term reads the node, or None."""
        at, far, up, down = (_value(one, term) for one in (self.base, self.far, self.up, self.down))
        if not _differ(at, far):
            return None
        slope = (up - down) / (2 * _SMALL)
        flows = 0.0 if gradient is None else float((gradient * self.direction).sum())
        stopped = abs(flows - slope) > 0.02 * max(abs(flows), abs(slope)) + 1e-6 * abs(at)
        return Link(self.node, gradient is not None, stopped)

    @property
    def changes_labels(self) -> bool:
        return not torch.equal(self.base.labels, self.far.labels)

    def changes_kept(self, memory: Node) -> bool:
        return self.node.kind in ("posterior", "features") and not torch.equal(
            self.base.kept[memory], self.far.kept[memory]
        )


def _value(one: Evaluation, term: str) -> float:
    return one.terms[term].value.detach().item()


def _differ(a: float, b: float) -> bool:
    return abs(a - b) > 1e-12 * max(abs(a), abs(b))


def _is_pass(node: Node) -> bool:
    return node.kind == "features" and node.source != "early"


def _gradients(value: Tensor, base: Evaluation) -> dict[Node, Tensor]:
    """Return the gradient of every leaf that has one and is reached by it."""
    leaves = {node: leaf for node, leaf in base.leaves.items() if leaf.requires_grad}
    if not value.requires_grad:
        return {}
    found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
    return {n: g for n, g in zip(leaves, found, strict=True) if g is not None and bool((g != 0).any())}


def _labelled(labelled: Labelled, base: Evaluation) -> Iterable[tuple[Node, float]]:
    for logits, _, weight in labelled:
        mixing = torch.arange(1, logits.shape[1] + 1, dtype=logits.dtype)
        reached = dict.fromkeys(_first(node) for node in _gradients((logits * mixing).sum(), base))
        yield from ((node, float(weight)) for node in reached)


def _first(node: Node) -> Node:
    return node._replace(part=0) if node.source == "early" else node


def _merged(links: Iterable[Link]) -> tuple[Link, ...]:
    """Let one early classifier stand for all."""
    merged: dict[Node, Link] = {}
    for link in links:
        node = _first(link.node)
        other = merged.get(node, link)
        merged[node] = Link(node, link.taught or other.taught, link.stopped or other.stopped)
    return tuple(merged.values())
