"""How the cost of SD-Dropout grows: with the batch, the classes, the features and the image size.

uv run python benchmarks/scale.py                    four tables: time and peak memory beside cross-entropy's
uv run python benchmarks/scale.py --json scale.json  the numbers too

Batch and image size: a CIFAR ResNet-10. Classes and features: nothing but a hidden layer before the head, so that head
and divergence are all there is; a backbone only dilutes what is shown. The steps of the two methods are
timed in turns. Memory is the peak of what tensors take during a whole step, weights, momentum and gradients included.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from common import Ratio, in_turns, ratio, save
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from selfdistill.method import Batch
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.network import default_device
from selfdistill.timing.profiler import StepProfiler
from selfdistill.training.run import machine

METHODS = ("CrossEntropy()", "SDDropout()")
AXES = {
    "batch": (32, 128, 512, 1024),
    "classes": (100, 1_000, 10_000, 100_000),
    "features": (128, 512, 2_048, 8_192),
    "size": (32, 64, 128),
}


@dataclass(frozen=True)
class Case:
    """What is trained: a batch of B images of S pixels, D features, C classes."""

    batch: int = 128
    classes: int = 100
    features: int = 512
    size: int = 32
    head_alone: bool = False


@dataclass(frozen=True)
class Row:
    """One value of one axis: SD-Dropout's step beside cross-entropy's."""

    axis: str
    value: int
    case: Case
    time: Ratio
    baseline_seconds: float
    memory: float
    baseline_bytes: int
    bytes: int


def network(case: Case) -> tuple[nn.Module, Batch]:
    """A model and a batch of noise."""
    y = torch.randint(case.classes, (case.batch,))
    if case.head_alone:
        hidden = nn.Linear(64, case.features)
        return nn.Sequential(hidden, nn.ReLU(), nn.Linear(case.features, case.classes)), Batch(
            torch.randn(case.batch, 64), y
        )
    model = build("resnet10_cifar", case.classes, width=16, features=case.features)
    return model, Batch(torch.randn(case.batch, 3, case.size, case.size), y)


def measure(axis: str, value: int, case: Case, pairs: int) -> Row:
    """Time the steps of both methods in turns, and find the peak of each."""
    model, batch = network(case)
    assert isinstance(batch.x, Tensor)
    batch = Batch(batch.x.to(default_device()), batch.y.to(default_device()))
    trials = {text: StepProfiler(model, parse_method(text), batch) for text in METHODS}
    with machine(None):
        found = in_turns({text: trial.seconds for text, trial in trials.items()}, pairs)
    baseline_bytes, of_method = (peak(trials[text]) for text in METHODS)
    return Row(
        axis=axis,
        value=value,
        case=case,
        time=ratio(found[METHODS[1]], found[METHODS[0]]),
        baseline_seconds=statistics.median(found[METHODS[0]]),
        memory=of_method / baseline_bytes,
        baseline_bytes=baseline_bytes,
        bytes=of_method,
    )


def peak(trial: StepProfiler) -> int:
    """Bytes of tensors at the peak of a step: on a CPU weights and momentum, and the allocations of the step on top."""
    if trial.device.type == "cuda":
        return trial.bytes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trial.seconds()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    of_step = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    weights = sum(parameter.nbytes for parameter in trial.distiller.parameters())
    return int(2 * weights + max(of_step))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the tables; return their rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for axis, values in AXES.items():
        parser.add_argument(f"--{axis}", type=int, nargs="*", default=values)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    print(f"{'axis':<10}{'value':>9}{'time / cross-entropy':>24}{'its step':>11}{'memory':>8}{'its peak':>11}")
    for axis in AXES:
        for value in getattr(given, axis):
            case = Case(**{axis: value}, head_alone=axis in ("classes", "features"))
            row = measure(axis, value, case, given.pairs)
            rows.append(row)
            print(
                f"{axis:<10}{value:>9,}{row.time!s:>24}{1e3 * row.baseline_seconds:>8.1f} ms{row.memory:>8.2f}"
                f"{row.baseline_bytes / 2**20:>7,.0f} MiB",
                flush=True,
            )
    save(given.json, given, rows)
    return rows


if __name__ == "__main__":
    main()
