"""What the tests of the command line share: small runs, and what a command returned."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SCRIPT = Path(sys.executable).parent / "selfdistill"
SMALL = ["--model", "resnet10_cifar", "--width", "4", "--threads", "1"]
TINY = ["--data", "digits", "--per-class", "4", "--test-per-class", "4", *SMALL]
PAIR = ["--methods", "CrossEntropy()", "SDDropout()"]


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]
Refused = Callable[..., str]


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, but for the (empty) lock of a run."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.name != ".lock"}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}
