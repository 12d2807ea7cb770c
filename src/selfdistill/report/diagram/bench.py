"""A step of any method on a small synthetic network, to be taken any number of times with the same random numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from selfdistill.distiller import SelfDistiller
from selfdistill.experiments.synthetic import make_batch
from selfdistill.method import Criterion, Method, Outputs, Step
from selfdistill.report.diagram.taking import Evaluation, Node, Taking

STAGES = 4
_CLASSES, _FEATURES = 5, 7  # all different, as the batch is: a shape says what a tensor is
_INSIDE = "layer3"


class Bench:
    """A method before its second step: what it remembers, it has after its first.

    Args:
        method: any; it is copied and stays as it is.
    """

    def __init__(self, method: Method) -> None:
        self._pinned: dict[Node, Tensor] = {}
        with _same_random_numbers(0):
            self._step, self._method = step_of(method)
        self._take(self._method, {})

    def take(self, shift: Mapping[Node, Tensor] | None = None) -> Evaluation:
        """Take the step anew, some of what the method reads shifted."""
        return self._take(copy.deepcopy(self._method), shift or {})

    def _take(self, method: Method, shift: Mapping[Node, Tensor]) -> Evaluation:
        with _same_random_numbers(1):
            return Taking(self._pinned, shift, self._step).of(method)


def step_of(method: Method) -> tuple[Step, Method]:
    """Return a step with all that a method needs, at the end of the training, and a copy of the method built for it."""
    capture = _Capture(copy.deepcopy(method))
    size = max(4, 2 * method.needs.group)
    batch = make_batch(method.needs, batch_size=size, classes=_CLASSES, image_size=8, samples=size)
    index = None if batch.index is None else torch.zeros_like(batch.index)  # whatever number of images it knows
    assert isinstance(batch.x, Tensor)
    x = batch.x.double()  # slopes are found by small shifts
    distiller = SelfDistiller(Network().double(), capture, example_input=x)
    distiller.set_progress(1, 1)
    previous = None if batch.previous is None else (x, batch.previous[1])
    distiller(x, batch.y, [x] * len(batch.views), x if batch.pair is not None else None, index, previous)
    (step,) = capture.steps
    return step, capture.method


class Network(nn.Module):
    """Four stages, dropout of its own, a head; maps ``(B, 3, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 4, 4, 4, _FEATURES)
        for i in range(STAGES):
            convolution = nn.Conv2d(widths[i], widths[i + 1], 3, stride=1 if i == 0 else 2, padding=1)
            self.add_module(f"layer{i + 1}", nn.Sequential(convolution, nn.ReLU(), nn.Dropout(0.1)))
        self.fc = nn.Linear(_FEATURES, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for i in range(STAGES):
            x = self.get_submodule(f"layer{i + 1}")(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class _Capture(Method):
    """Takes the step that a method would be given; its place of dropout and its peer are the synthetic network's."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method, self.steps = method, list[Step]()
        place = method.needs.dropout_at
        self.needs = replace(method.needs, dropout_at=None if place is None else replace(place, module=_INSIDE))
        self._peer = Network().double() if method.needs.peer else None

    @property
    def peer_network(self) -> nn.Module | None:
        return self._peer

    @property
    def criterion(self) -> Criterion | None:  # type: ignore[override]
        return self.method.criterion

    def build(self, probe: Outputs, model: nn.Module) -> None:
        for part in self.method.parts:
            if not part.needs.peer:  # this one's peer stands for it
                part.build(probe, model)
        self.method.double()

    def labels(self, step: Step) -> Tensor:
        self.steps.append(step)
        return step.batch.y


@contextmanager
def _same_random_numbers(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed a GPU too
        yield
