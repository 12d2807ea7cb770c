"""Our training beside a plain PyTorch script (plain_script.py): images per second, ResNet-18 on CIFAR-100.

uv run python benchmarks/throughput.py                      noise in CIFAR's shape: what it shows costs nothing
uv run python benchmarks/throughput.py --data ../cifar100   the images in train.npz
uv run python benchmarks/throughput.py --json speed.json    the numbers too

Epochs of the same images in turns in one process: the plain script in float32, and ours with each recipe. What a loop
does once an epoch (a new pass over the loader, reading the meters) is in it; evaluation is not. The first epoch of each
is not counted (compilation, workers that start).

On a GPU also the share of its bfloat16 matrix rate, measured by a large product in the same run: forward and backward
of the ResNet-18 are 3.34 GFLOP per image.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Ratio, in_turns, ratio, save, seconds
from plain_script import MEAN, STD, Training

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, Split
from selfdistill.network import default_device
from selfdistill.training.classification import assemble
from selfdistill.training.meters import Meters
from selfdistill.training.run import machine
from selfdistill.training.session import make_fabric

FLOP = 3.34e9  # an image's forward and backward pass
RECIPES: dict[str, dict[str, Any]] = {
    "32-true": {},
    "bf16-mixed, channels_last": {"precision": "bf16-mixed", "channels_last": True},
    "bf16-mixed, channels_last, compile": {"precision": "bf16-mixed", "channels_last": True, "compile": True},
}


@dataclass(frozen=True)
class Row:
    """One recipe: images per second, and the ratio to the plain script's."""

    recipe: str
    method: str
    images_per_second: float
    over_plain: Ratio
    share_of_peak: float | None


def ours(recipe: TrainConfig, data: ImageData) -> Callable[[], float]:
    """Return a function that trains for an epoch as the trainer's loop does, and gives the seconds it took."""
    session = assemble(recipe.resolve(data), data, make_fabric(recipe))
    session.task.network.train()
    epoch = 0

    def train() -> None:
        nonlocal epoch
        meters = Meters(session.device, session.task.counts)
        for step, batches in enumerate(session.task.loader.epoch(epoch)):
            session.step(batches, epoch * session.steps + step, meters)
        meters.means()
        epoch += 1

    def as_the_trainer_does() -> float:
        with machine(None):
            return seconds(train)

    return as_the_trainer_does


def plain(images: np.ndarray, labels: list[int], batch_size: int, workers: int) -> Callable[[], float]:
    """Return a function that trains the plain script for an epoch, and gives the seconds it took."""
    training = Training(images, labels, batch_size=batch_size, workers=workers, device=default_device())

    def train() -> None:
        for _ in training.epoch():
            pass

    return lambda: seconds(train)


def peak_flops() -> float:
    """Floating-point operations a second of a large bfloat16 product."""
    n = 8192
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    for _ in range(3):
        a.mm(b)
    return 2 * n**3 / statistics.median(seconds(lambda: a.mm(b)) for _ in range(20))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with train.npz")
    parser.add_argument("--images", type=int, default=2_560)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5, help="epochs that are counted")
    parser.add_argument("--workers", type=int, default=8, help="of the plain script")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--methods", nargs="+", default=["CrossEntropy()", "SDDropout()"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    images, labels = _images(given.data, given.images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    split = Split(torch.tensor(labels), images=pixels)
    names = tuple(map(str, range(100)))
    data = ImageData(
        "cifar100", split, split, names, MEAN, STD, 32, augment="crop_flip", test_split_description="the same"
    )
    tasks = {"plain": plain(images, labels, given.batch_size, given.workers)}
    for name in given.recipes:
        for method in given.methods:
            recipe = TrainConfig(method=method, batch_size=given.batch_size, epochs=1_000, **RECIPES[name])
            tasks[f"{name}|{method}"] = ours(recipe, data)
    for task in tasks.values():
        task()
    found = in_turns(tasks, given.epochs)
    peak = peak_flops() if torch.cuda.is_available() else None
    speed = {name: len(labels) / statistics.median(taken) for name, taken in found.items()}
    print(f"ResNet-18, {len(labels):,} images per epoch, batches of {given.batch_size}, on {default_device().type}")
    print(f"{'recipe':<38}{'method':<18}{'images/s':>10}{'/ plain script':>24}{'of peak':>9}")
    print(f"{'the plain script':<38}{'cross-entropy':<18}{speed['plain']:>10,.0f}{'1':>24}")
    rows = []
    for name in list(tasks)[1:]:
        recipe_name, method = name.split("|")
        share = FLOP * speed[name] / peak if peak else None
        row = Row(recipe_name, method, speed[name], ratio(found["plain"], found[name]), share)
        rows.append(row)
        shown = "" if share is None else f"{share:.2f}"
        print(f"{recipe_name:<38}{method:<18}{speed[name]:>10,.0f}{row.over_plain!s:>24}{shown:>9}")
    save(given.json, given, rows, plain_images_per_second=speed["plain"], peak_flops=peak)
    return rows


def _images(folder: Path | None, count: int) -> tuple[np.ndarray, list[int]]:
    if folder is None:
        noise = np.random.default_rng(0)
        return noise.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), noise.integers(0, 100, count).tolist()
    with np.load(folder / "train.npz") as arrays:
        chosen = np.random.default_rng(0).permutation(len(arrays["labels"]))[:count]
        return arrays["images"][chosen], arrays["labels"][chosen].tolist()


if __name__ == "__main__":
    main()
