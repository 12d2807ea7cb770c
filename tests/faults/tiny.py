"""A run of a second on digits, and the command line as a function."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from selfdistill.cli import main
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.training import train
from selfdistill.training.run import load

RECIPE = TrainConfig(
    data="digits",
    per_class=4,
    test_per_class=2,
    model="resnet10_cifar",
    width=4,
    epochs=2,
    batch_size=16,
    lr=0.05,
    threads=1,
)


@cache
def images() -> ImageData:
    return load(RECIPE)


def run_tiny(out: Path, **changed: object) -> Path:
    train(replace(RECIPE, **changed), out, data=images())
    return out


def status(*words: object) -> object:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def damage(path: Path, at: int = -5) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(bytes(content))


PYTHON = sys.executable
