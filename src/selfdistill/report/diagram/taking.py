"""One step of a method under watch: every tensor that it reads is pinned to noise of its own.

So a change of one changes nothing but what the method itself makes of it: the features may move while the posteriors
stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from selfdistill.method import Input, Labelled, Method, Outputs, Step, Term

Kind = Literal["posterior", "features", "stage", "memory", "labels"]


class Node(NamedTuple):
    """Something that a method may read: what it is, the pass (or head call) it comes from, and which part of it."""

    kind: Kind
    source: str
    part: int = 0


LABELS = Node("labels", "y")


class Sample(NamedTuple):
    """A head call of the method's own: of whose features, by whose head, whether some were 0, whether it teaches."""

    source: str
    features_of: str
    head_of: str
    masked: bool
    gradient: bool


@dataclass
class Evaluation:
    """What a method made of the step, and the leaves that it made it of."""

    labels: Tensor
    labelled: Labelled = ()
    terms: dict[str, Term] = field(default_factory=dict)
    leaves: dict[Node, Tensor] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    further: int = 0  # passes of the method's own
    memories: dict[Node, Tensor] = field(default_factory=dict)  # before the step
    kept: dict[Node, Tensor] = field(default_factory=dict)  # after it


class Taking:
    """One step: makes the leaves, and sees the calls of heads, of the network and of early classifiers.

    Args:
        pinned: the noise by node; what is read for the first time is put there.
        shift: what is added to it.
        step: as the distiller gives it; only its shapes and its gradients' ends count.
    """

    def __init__(self, pinned: dict[Node, Tensor], shift: Mapping[Node, Tensor], step: Step) -> None:
        self.pinned, self.shift, self.classes = pinned, shift, step.outputs[0].logits.shape[1]
        y = step.batch.y if LABELS not in shift else (step.batch.y + 1) % self.classes
        before = step.batch.previous
        batch = replace(step.batch, y=y, previous=None if before is None else (before[0], y))
        self.rows, self.seen = len(y), Evaluation(labels=y)
        views = len(step.outputs)
        self.step = step._replace(
            batch=batch,
            labels=y,
            outputs=tuple(self._pass("x" if i == 0 else f"view {i + 1}", one) for i, one in enumerate(step.outputs)),
            again=tuple(self._pass(f"again {views + 1 + i}", one) for i, one in enumerate(step.again)),
            dropped=tuple(self._pass(name, one) for name, one in zip("uv", step.dropped, strict=False)),
            pair=None if step.pair is None else self._pass("pair", step.pair),
            previous=None if step.previous is None else self._pass("previous", step.previous),
            peers=tuple(self._pass("peer", peer) for peer in step.peers),
            net=self._net(step.net),
        )

    def of(self, method: Method) -> Evaluation:
        """Let the method take it, as the distiller does."""
        seen = self.seen
        for part in method.parts:
            node, state = Node("memory", type(part).__name__), memory_of(part)
            if state is not None:
                seen.memories[node] = state
                if node in self.shift:
                    part.set_extra_state(state + self.shift[node].to(state))
        hooks = [module.register_forward_hook(self._early) for module in method.modules()]
        seen.labels = method.labels(self.step)
        step = self.step._replace(labels=seen.labels)
        seen.labelled = method.labelled(step)
        seen.terms = method.terms(step)
        for hook in hooks:
            hook.remove()
        for part in method.parts:
            if (state := memory_of(part)) is not None:
                seen.kept[Node("memory", type(part).__name__)] = state
        return seen

    def _leaf(self, node: Node, shape: tuple[int, ...], gradient: bool) -> Tensor:
        if node not in self.pinned:
            generator = torch.Generator().manual_seed(len(self.pinned))
            self.pinned[node] = torch.randn(shape, generator=generator, dtype=torch.float64)
        leaf = self.pinned[node] + self.shift.get(node, 0)
        self.seen.leaves[node] = leaf.requires_grad_(gradient)
        return leaf

    def _pass(self, source: str, outputs: Outputs) -> Outputs:
        gradient = outputs.logits.requires_grad
        return Outputs(
            self._leaf(Node("posterior", source), tuple(outputs.logits.shape), gradient),
            self._leaf(Node("features", source), tuple(outputs.features.shape), gradient),
            _Head(self, "peer" if source == "peer" else "x", outputs.head),
            tuple(
                self._leaf(Node("stage", source, i), tuple(stage.shape), gradient)
                for i, stage in enumerate(outputs.stages)
            ),
        )

    def _net(self, net: Callable[[Input], Outputs]) -> Callable[[Input], Outputs]:
        def further(x: Input) -> Outputs:
            outputs = net(x)
            self.seen.further += 1
            return self._pass(f"pass {self.seen.further}", outputs)

        return further

    def called(self, head_of: str, features: Tensor) -> Tensor:
        """Classify features given by the method: B rows a sample."""
        count = len(features) // self.rows if len(features) % self.rows == 0 else 1
        gradient = features.requires_grad and torch.is_grad_enabled()
        parts = []
        for chunk in features.detach().chunk(count):
            source = f"sample {len(self.seen.samples)}"
            masked, whose = self._whose(chunk)
            self.seen.samples.append(Sample(source, whose, head_of, masked, gradient))
            parts.append(self._leaf(Node("posterior", source), (len(chunk), self.classes), gradient))
        return torch.cat(parts)

    def _whose(self, chunk: Tensor) -> tuple[bool, str]:
        """Return whether some of these features were put to 0, and the pass whose features they are most like."""
        likeness = {
            node.source: torch.cosine_similarity(chunk.flatten(), leaf.flatten(), dim=0).item()
            for node, leaf in self.seen.leaves.items()
            if node.kind == "features" and leaf.shape == chunk.shape
        }
        whose = max(likeness, key=lambda source: likeness[source], default="x")
        return bool((chunk == 0).any()), whose

    def _early(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Pin what a module of the method makes of a stage: logits ``(B, C)`` and features ``(B, D)``."""
        stages = [node for node, leaf in self.seen.leaves.items() if node.kind == "stage"]
        read = next((n for n in stages if any(arg is self.seen.leaves[n] for arg in args)), None)
        if read is None:
            return None
        pinned = tuple(self._pinned(read.part, one) for one in (output if isinstance(output, tuple) else (output,)))
        return pinned if isinstance(output, tuple) else pinned[0]

    def _pinned(self, stage: int, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.dim() != 2 or any(output is x for x in self.seen.leaves.values()):
            return output
        kind: Kind = "posterior" if output.shape[1] == self.classes else "features"
        return self._leaf(Node(kind, "early", stage), tuple(output.shape), output.requires_grad)


class _Head:
    """A head that is seen when it is called."""

    def __init__(self, taking: Taking, head_of: str, head: Any) -> None:
        self._taking, self._head_of = taking, head_of
        self.module = getattr(head, "module", head)

    def __call__(self, features: Tensor) -> Tensor:
        return self._taking.called(self._head_of, features)


def memory_of(part: Method) -> Tensor | None:
    """Return what a method keeps from step to step, where that is a tensor of numbers."""
    if type(part).get_extra_state is nn.Module.get_extra_state:
        return None
    state = part.get_extra_state()
    return state.clone() if isinstance(state, Tensor) and state.is_floating_point() else None
