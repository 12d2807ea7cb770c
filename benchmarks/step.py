"""What a method's training step costs beside cross-entropy's: time and memory.

uv run python benchmarks/step.py                                  SD-Dropout and the paper's methods, ResNet-18
uv run python benchmarks/step.py --methods "SDDropout()" --pairs 30 --batch-size 1024 --compile --precision bf16-mixed
uv run python benchmarks/step.py --json step.json                 the numbers too

A step is forward, backward and SGD on noise. The steps of a pair follow each other in one process, now the one first
and now the other; a ratio is the median over the pairs, with the interval that holds it with 95 %. "Passes" is what the
method needs, in forward-and-backward passes of the network over the B images; without a backward pass one counts 1/3.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import Ratio, in_turns, ratio, save

from selfdistill.method import Method
from selfdistill.methods import CrossEntropy, parse_method
from selfdistill.models import build
from selfdistill.network import default_device
from selfdistill.timing.profiler import StepProfiler
from selfdistill.timing.synthetic import make_batch
from selfdistill.training.run import machine

PAPER = ("LabelSmoothing()", "Dropout()", "SDDropout()", "CSKD()", "DDGSD()", "BYOT()", "DML()")


@dataclass(frozen=True)
class Row:
    """One method: its step's time and memory over those of cross-entropy, and the median of what it adds."""

    method: str
    passes: float
    time: Ratio
    seconds: float
    added_microseconds: float
    memory: float


def passes_of(method: Method) -> float:
    """Forward-and-backward passes of the network that a method needs over the B images."""
    needs = method.needs
    trained = needs.views * needs.passes + needs.peer + needs.previous
    return trained + (1 / 3 if needs.pair else 0)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=PAPER)
    parser.add_argument("--model", default="resnet18_cifar")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    device = default_device()
    layout = torch.channels_last if given.channels_last else torch.contiguous_format
    model = build(given.model, given.classes, width=given.width).to(device).to(memory_format=layout)

    def trial(method: Method) -> StepProfiler:
        batch = make_batch(
            method.needs,
            batch_size=given.batch_size,
            classes=given.classes,
            image_size=given.image_size,
            device=device,
        )
        return StepProfiler(model, method, batch, precision=given.precision, compiled=given.compile)

    print(
        f"{given.model}, width {given.width}, {given.batch_size} images of {given.image_size} px, {given.classes} "
        f"classes, {given.precision}, {'compiled' if given.compile else 'eager'}, on {device.type}"
    )
    print(f"{'method':<28}{'time / cross-entropy':>24}{'passes':>8}{'added, us':>11}{'memory':>8}{'pairs':>7}")
    rows = []
    for text in given.methods:
        method = parse_method(text)
        baseline, other = trial(CrossEntropy()), trial(method)
        with machine(None):
            for warming in (baseline, other):  # a compiled step is recorded in its first calls
                for _ in range(3 if given.compile else 1):
                    warming.seconds()
            found = in_turns({"baseline": baseline.seconds, "other": other.seconds}, given.pairs)
        added = statistics.median(o - b for o, b in zip(found["other"], found["baseline"], strict=True))
        row = Row(
            method=repr(method),
            passes=passes_of(method),
            time=ratio(found["other"], found["baseline"]),
            seconds=statistics.median(found["other"]),
            added_microseconds=1e6 * added,
            memory=other.bytes / baseline.bytes,
        )
        rows.append(row)
        print(
            f"{row.method:<28}{row.time!s:>24}{row.passes:>8.2f}{row.added_microseconds:>11,.0f}{row.memory:>8.3f}"
            f"{given.pairs:>7}",
            flush=True,
        )
        del baseline, other
    save(given.json, given, rows)
    return rows


if __name__ == "__main__":
    main()
