"""The benchmarks that say something on a GPU: what is called, and for how long."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
LONGEST = 120.0
"""Seconds that one benchmark may take; it is stopped then, and not tried again."""

_FAST = ("--precision", "bf16-mixed", "--channels-last", "--compile")
_TINY_SIZES = ("--batch", "4", "--classes", "7", "--features", "8", "--size", "16", "--pairs", "2")
_TINY = ("--model", "resnet10_cifar", "--width", "2", "--batch-size", "4", "--pairs", "2", "--methods", "SDDropout()")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: of its record and its log.
        script: of ``benchmarks/``.
        words: its options.
    """

    name: str
    script: str
    words: tuple[str, ...] = ()

    def command(self, work: Path) -> list[str]:
        """Return its command after the interpreter's; the record appears when it is done."""
        return [str(FOLDER / self.script), *self.words, "--json", str(self.record(work))]

    def record(self, work: Path) -> Path:
        """Return where its record is."""
        return work / "performance" / f"{self.name}.json"

    def log(self, work: Path) -> Path:
        """Return where what it prints is kept: once this is there, it was tried."""
        return work / "logs" / f"{self.name}.log"


def benchmarks(data: Path) -> tuple[Benchmark, ...]:
    """Return those of docs/performance.md that measure a GPU, the shortest first.

    Args:
        data: the folder of CIFAR-100's arrays, if it has them.
    """
    images = ("--data", str(data)) if (data / "train.npz").is_file() else ()  # otherwise noise, which costs the same
    return (
        Benchmark("gpu_step", "step.py"),
        Benchmark("gpu_scale", "scale.py"),
        Benchmark("gpu_step_compiled", "step.py", ("--methods", "SDDropout()", *_FAST)),
        Benchmark("gpu_throughput", "throughput.py", (*images, "--images", "12800", "--epochs", "6")),
        Benchmark("gpu_input", "input.py", ("--parts", "small")),
    )


REHEARSED = (
    Benchmark("gpu_step", "step.py", _TINY),
    Benchmark("gpu_scale", "scale.py", _TINY_SIZES),
)
"""Tiny ones, that show that they can be called."""
