"""How long it takes until something happens: the import, the help page, the first step of a compiled run.

uv run python benchmarks/startup.py                      one table
uv run python benchmarks/startup.py --json startup.json  the numbers too

Each in a fresh process, the two of a ratio in turns; the first, that fills the disk's cache, is not counted. A compiled
run starts twice: with an empty compiler's cache, and with what the first run left there.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import Ratio, in_turns, ratio, save

STEP = """
import sys, time, torch
from selfdistill.timing.synthetic import make_batch
from selfdistill.timing.profiler import StepProfiler
from selfdistill.methods import parse_method
from selfdistill.models import build
device = "cuda" if torch.cuda.is_available() else "cpu"
method, width = parse_method(sys.argv[1]), int(sys.argv[2])
model = build("resnet18_cifar", 100, width=width).to(device, memory_format=torch.channels_last)
batch = make_batch(method.needs, batch_size=64, classes=100, device=device)
started = time.perf_counter()
StepProfiler(model, method, batch, precision="bf16-mixed", compiled=sys.argv[3] == "compiled")
print(time.perf_counter() - started)
"""


IMPORTS = (
    "import torch",
    "import selfdistill",
    "from selfdistill import SelfDistiller, SDDropout",
    "from selfdistill import *",
)


@dataclass(frozen=True)
class Row:
    """One thing: its seconds, and the ratio to the import of torch alone."""

    what: str
    seconds: float
    over: Ratio | None = None


def process(*words: str, environment: dict[str, str] | None = None) -> str:
    """Run Python on some words and return what it prints."""
    return subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, text=True, env=os.environ | (environment or {})
    ).stdout


def process_seconds(*words: str) -> float:
    """Seconds of a whole process."""
    started = time.perf_counter()
    process(*words)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--method", default="SDDropout()")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet-18 that is compiled")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    tasks = {code: partial(process_seconds, "-c", code) for code in IMPORTS}
    tasks["selfdistill --help"] = partial(process_seconds, "-m", "selfdistill", "--help")
    for task in tasks.values():
        task()
    found = in_turns(tasks, given.rounds)
    rows = [Row(code, statistics.median(taken), ratio(taken, found[IMPORTS[0]])) for code, taken in found.items()]
    with tempfile.TemporaryDirectory() as cache:
        environment = {"TORCHINDUCTOR_CACHE_DIR": cache}
        for what, mode in (("eager", "eager"), ("compiled, empty cache", "compiled"), ("compiled, again", "compiled")):
            words = ("-c", STEP, given.method, str(given.width), mode)
            rows.append(Row(f"first step, {what}", float(process(*words, environment=environment))))
    print(f"{'what':<50}{'seconds':>9}{'ratio':>26}")
    for row in rows:
        print(f"{row.what:<50}{row.seconds:>9.2f}{'' if row.over is None else str(row.over):>26}")
    save(given.json, given, rows)
    return rows


if __name__ == "__main__":
    main()
