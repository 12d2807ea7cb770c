"""What the benchmarks share: things timed in turns, a ratio with its interval, a table, and the numbers as JSON."""

import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path
from typing import Any

import torch

from selfdistill.network import default_device
from selfdistill.training.record import provenance


@dataclass(frozen=True)
class Ratio:
    """A median over pairs, and the interval that holds the true median with at least 95 % (by order statistics).

    Fewer than six pairs have no such interval: ``low`` and ``high`` are then the smallest and the largest.
    """

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        """``1.012 [1.008, 1.017]``."""
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """The median of the ratios of things that were timed in pairs."""
    ratios = sorted(n / d for n, d in zip(numerators, denominators, strict=True))
    return Ratio(statistics.median(ratios), *interval(ratios), len(ratios))


def interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The k-th smallest and the k-th largest, with the greatest k that leaves out at most 5 %.

    The median lies below the k-th smallest with probability P(Bin(n, 1/2) < k).
    """
    n, below, k = len(ordered), 0.0, 0
    while k < n // 2 and below + comb(n, k) / 2**n <= 0.025:
        below += comb(n, k) / 2**n
        k += 1
    return ordered[max(k, 1) - 1], ordered[n - max(k, 1)]


def in_turns(tasks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each task once a round, in an order that is turned round by round; return what each gave."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for one in range(rounds):
        for name in list(tasks)[:: 1 if one % 2 else -1]:
            found[name].append(tasks[name]())
    return found


def seconds(work: Callable[[], Any]) -> float:
    """Seconds from an idle device to an idle device."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def save(path: Path | None, given: Namespace, rows: Sequence[Any], **more: Any) -> None:
    """Write the rows (dataclasses), the setting, and where and when they were measured; nothing without a path."""
    if path is None:
        return
    setting = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    del setting["json"]
    record = {"setting": setting, **more, "rows": [asdict(row) for row in rows]} | provenance(default_device())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
