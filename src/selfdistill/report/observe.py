"""Find out by trying what each term of a method reads: no list of methods, no reading of their code."""

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selfdistill.distiller import SelfDistiller
from selfdistill.losses import cross_entropy
from selfdistill.method import Method, Outputs, Step
from selfdistill.models import build
from selfdistill.timing.synthetic import make_batch

_CLASSES = 5
_SMALL, _LARGE = 1e-3, 3.0  # shifts


class Node(NamedTuple):
    """What a term may read: ``"posterior"``, ``"features"``, ``"stage 1"`` ..., ``"memory"``, ``"labels"``; of what."""

    kind: str
    source: str


LABELS = Node("labels", "y")
_Noise = dict[tuple[Node, int], Tensor]  # value and direction of each tensor of a node
_Key = tuple[str, str, float]


class Read(NamedTuple):
    """That a term reads a node; whether a gradient reaches the node, and whether it is (also) a constant there."""

    node: Node
    gradient: bool
    constant: bool


class LossTerm(NamedTuple):
    """A part of the label loss (one per weight), a term of the method, or that a memory (here taught) saves a node."""

    kind: str  # "label loss", "term" or "save"
    name: str
    weight: float  # at the end of the training: lambda * T**2
    reads: tuple[Read, ...]


class Forward(NamedTuple):
    """How a posterior comes about: in a pass of the network, in a head call by the method, by early classifiers."""

    source: str  # "x", "view 2", "head call 1", "early" ...
    features_of: str  # the source of the features that are classified; in a pass its own
    head_of: str  # "x", "peer" or, for early classifiers, ""
    gradient: bool  # whether one flows
    masked: bool = False  # whether the method dropped some of the features


class Observation(NamedTuple):
    """A method, its step, and the terms with what they read."""

    method: Method
    step: "WatchedStep"
    terms: tuple[LossTerm, ...]


def observe(method: Method) -> Observation:
    """Take one step, then take it again with each tensor shifted: a term that changes reads that tensor.

    A tensor is a constant in a term where its gradient there is not the slope that a small shift shows.

    Args:
        method: any method, also a user's own; it is copied and not changed.

    Example:
        >>> from selfdistill import CSKD
        >>> for read in observe(CSKD()).terms[1].reads:
        ...     print(read.node.source, read.gradient)
        x True
        pair False
    """
    with torch.random.fork_rng(devices=[]):
        built, step = _record_step(method)
        noise: _Noise = {}
        WatchedStep(built, step, noise)  # the first step fills the memories
        base = WatchedStep(copy.deepcopy(built), step, noise)
        reads: dict[_Key, list[Read]] = {key: [] for key in base.losses}
        saves: list[LossTerm] = []
        for node in base.leaves:
            far, up, down = (WatchedStep(copy.deepcopy(built), step, noise, node, s) for s in (_LARGE, _SMALL, -_SMALL))
            for key, loss in base.losses.items():
                value, slope = loss.item(), (up.losses[key] - down.losses[key]).item() / (2 * _SMALL)
                if abs(far.losses[key].item() - value) > 1e-12 * abs(value):
                    gradient = base.gradient(loss, node)
                    constant = gradient is None or abs(gradient - slope) > 0.02 * abs(slope) + 1e-6 * abs(value)
                    reads[key].append(Read(node, gradient is not None, constant))
            for memory, state in base.memories.items():
                if node.kind in ("posterior", "features") and not state.equal(far.memories[memory]):
                    saves.append(LossTerm("save", "save", 0.0, (Read(node, False, True), Read(memory, True, False))))
    return Observation(method, base, (*(LossTerm(*key, tuple(found)) for key, found in reads.items()), *saves))


def _record_step(method: Method) -> tuple[Method, Step]:
    """Return a copy of the method, built for a small network, and a step at the end of a training."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed would seed a GPU too
    recorder = _StepRecorder(copy.deepcopy(method))
    size = max(4, 2 * method.needs.group)
    batch = make_batch(method.needs, batch_size=size, classes=_CLASSES, image_size=8, samples=size)
    assert isinstance(batch.x, Tensor)
    x, y = batch.x.double(), batch.y  # slopes need more than float32
    distiller = SelfDistiller(_network(), recorder, example_input=x)
    distiller.set_progress(1, 1)
    distiller(x, y, [x] * len(batch.views), x, torch.zeros_like(y), batch.previous and (x, y))
    return recorder.method, recorder.steps[0]._replace(criterion=method.criterion or cross_entropy)


def _network() -> nn.Module:
    return build("resnet10_cifar", _CLASSES, width=4).double()


class _StepRecorder(Method):
    """Takes a method's place in a distiller and records the step that the method would be given."""

    def __init__(self, method: Method):
        super().__init__()
        self.method, self.steps = method, list[Step]()
        at = method.needs.dropout_at
        self.needs = replace(method.needs, dropout_at=at and replace(at, module="layer3"))
        self._peer = _network() if method.needs.peer else None

    @property
    def peer_network(self) -> nn.Module | None:
        return self._peer

    def build(self, probe: Outputs, model: nn.Module) -> None:
        self.method.build(probe, model)
        self.method.double()

    def labels(self, step: Step) -> Tensor:
        self.steps.append(step)
        return step.batch.y


class WatchedStep:
    """A step in which each tensor that the method reads is replaced by noise, and one node is shifted.

    So a shift of the features leaves the posteriors as they are: a term that changes reads the features themselves.
    """

    def __init__(self, method: Method, step: Step, noise: _Noise, shifted: Node | None = None, shift: float = 0.0):
        self._noise, self._shifted, self._shift = noise, shifted, shift
        self._rows, self._classes = step.outputs[0].logits.shape
        self.leaves: dict[Node, list[Tensor]] = {}  # one tensor per node, of early classifiers several
        self.forwards: list[Forward] = []
        self.early_stages: set[int] = set()  # those that have an early classifier, from 1
        self.losses: dict[_Key, Tensor] = {}
        torch.default_generator.manual_seed(0)  # the same masks each time
        hooks = [module.register_forward_hook(self._replace_early) for module in method.modules()]
        self._take(method, self._replace_outputs(step))
        for hook in hooks:
            hook.remove()

    def gradient(self, loss: Tensor, node: Node) -> float | None:
        """Return the gradient of a term along the shift of a node, or None if no gradient reaches the node."""
        leaves = self.leaves[node]
        if not (loss.requires_grad and leaves[0].requires_grad):
            return None
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        along = sum((gradient * self._noise[node, i][1]).sum().item() for i, gradient in enumerate(found))
        return along if any(gradient.any() for gradient in found) else None

    def _take(self, method: Method, step: Step) -> None:
        for memory, (part, state) in _memories(method).items():
            part.set_extra_state(self._leaf(memory, state))
        step = step._replace(labels=method.labels(step))
        name = next((type(part).__name__ for part in method.parts if part.criterion is not None), "CE")
        for logits, labels, weight in method.ce_inputs(step):
            key = ("label loss", name, float(weight))
            self.losses[key] = self.losses.get(key, 0) + step.criterion(logits, labels)
        self.losses |= {("term", name, float(term.weight)): term.value for name, term in method.terms(step).items()}
        self.memories = {memory: state for memory, (_, state) in _memories(method).items()}

    def _leaf(self, node: Node, like: Tensor, *, gradient: bool = False) -> Tensor:
        leaves = self.leaves.setdefault(node, [])
        key = (node, len(leaves))
        if key not in self._noise:
            generator = torch.Generator().manual_seed(len(self._noise))
            self._noise[key] = torch.randn(2, *like.shape, dtype=like.dtype, generator=generator)
        noise, direction = self._noise[key]
        value = like if node.kind == "memory" else noise
        leaves.append((value + direction * self._shift * (node == self._shifted)).requires_grad_(gradient))
        return leaves[-1]

    def _replace_outputs(self, step: Step) -> Step:
        views, previous, net = len(step.outputs), step.batch.previous, step.net
        step = step._replace(
            outputs=tuple(self._pass(f"view {i}" if i > 1 else "x", one) for i, one in enumerate(step.outputs, 1)),
            again=tuple(self._pass(f"again {i}", one) for i, one in enumerate(step.again, views + 1)),
            dropped=tuple(self._pass(mask, one) for mask, one in zip("uv", step.dropped, strict=False)),
            pair=step.pair and self._pass("pair", step.pair),
            previous=step.previous and self._pass("previous", step.previous),
            peers=tuple(self._pass("peer", one) for one in step.peers),
            net=lambda x: self._pass(f"pass {len(self.forwards)}", net(x)),
        )
        y = (step.batch.y + 1) % self._classes if self._shifted == LABELS else step.batch.y
        self.leaves[LABELS] = [y]
        return step._replace(batch=replace(step.batch, y=y, previous=previous and (previous[0], y)), labels=y)

    def _pass(self, source: str, outputs: Outputs) -> Outputs:
        gradient, network = outputs.logits.requires_grad, "peer" if source == "peer" else "x"
        self.forwards.append(Forward(source, source, network, gradient))
        kinds = {"posterior": outputs.logits, "features": outputs.features}
        kinds |= {f"stage {i}": stage for i, stage in enumerate(outputs.stages, 1)}
        logits, features, *stages = (self._leaf(Node(kind, source), t, gradient=gradient) for kind, t in kinds.items())
        return Outputs(logits, features, lambda x: self._call_head(network, x), tuple(stages))

    def _call_head(self, head_of: str, features: Tensor) -> Tensor:
        """Take the place of a head: features ``(n * B, D)`` give n posteriors."""
        gradient, posteriors = features.requires_grad and torch.is_grad_enabled(), []
        for chunk in features.detach().chunk(max(1, len(features) // self._rows)):
            source = f"head call {len(self.forwards)}"
            self.forwards.append(Forward(source, self._owner(chunk), head_of, gradient, bool((chunk == 0).any())))
            like = chunk.new_empty(len(chunk), self._classes)
            posteriors.append(self._leaf(Node("posterior", source), like, gradient=gradient))
        return torch.cat(posteriors)

    def _owner(self, features: Tensor) -> str:
        """Return the pass whose features these are most like: some may have been dropped."""
        alike = [n for n, (leaf, *_) in self.leaves.items() if n.kind == "features" and leaf.shape == features.shape]
        return max(alike, key=lambda node: (self.leaves[node][0] * features).sum().item()).source

    def _replace_early(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Replace what a module of the method makes of a stage: logits ``(B, C)``, features ``(B, D)``, or both."""
        stages = [node.kind for node, (leaf, *_) in self.leaves.items() if any(arg is leaf for arg in args)]
        if not stages or not stages[0].startswith("stage"):
            return None
        self.early_stages.add(int(stages[0].split()[1]))
        return tuple(map(self._early, output)) if isinstance(output, tuple) else self._early(output)

    def _early(self, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.dim() != 2:
            return output
        node = Node("posterior" if output.shape[1] == self._classes else "features", "early")
        if "early" not in [forward.source for forward in self.forwards]:
            self.forwards.append(Forward("early", "early", "", output.requires_grad))
        return self._leaf(node, output, gradient=output.requires_grad)


def _memories(method: Method) -> dict[Node, tuple[Method, Tensor]]:
    """Return each part that saves a tensor of numbers from step to step, and the tensor."""
    found = {}
    for part in method.parts:
        state = None if type(part).get_extra_state is nn.Module.get_extra_state else part.get_extra_state()
        if isinstance(state, Tensor) and state.is_floating_point():
            found[Node("memory", type(part).__name__)] = (part, state)
    return found
