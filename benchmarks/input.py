"""How fast images come in: small ones beside a training step; photographs, decoded each time or once.

uv run python benchmarks/input.py                            everything, on photographs made here
uv run python benchmarks/input.py --folder DIR --rounds 9    on your own files, found at any depth
uv run python benchmarks/input.py --parts small --width 16   the small images alone, beside a narrower network
uv run python benchmarks/input.py --json input.json          the numbers too

"small": an epoch of CIFAR-sized images out of memory, on the device (cropped, mirrored, normalised), and a training
step of ResNet-18; the ratio is the one's images per second over the other's.

"stages": what happens to a photograph at 224 pixels, in this process, with each stage's share of the whole: to files as
they are, and resized before the augmentation.

"epochs": an epoch of the loader at 224 pixels, without a network: files as they are, resized before the augmentation
(``--resize``), and the same with ``--cache``; its first epoch includes making the cache. The ratio is images per second
over those of files that are resized each time, with as many workers.

Medians over rounds, in each of which everything is timed once, in turns. Files have been read before: the disk is not
measured.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import Ratio, in_turns, ratio, save, seconds
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from selfdistill.data import ImageData, Split, TrainLoader
from selfdistill.data.augment import Normalize
from selfdistill.data.cache import with_cache
from selfdistill.data.decode import cpu_count, read_rgb, to_shorter_side
from selfdistill.data.files import FileImages
from selfdistill.data.folders import IMAGENET_MEAN, IMAGENET_STD, image_files
from selfdistill.method import Needs
from selfdistill.methods import CrossEntropy
from selfdistill.models import build
from selfdistill.network import default_device
from selfdistill.timing.profiler import StepProfiler
from selfdistill.timing.synthetic import make_batch
from selfdistill.training.run import machine

PARTS = ("small", "stages", "epochs")
SIZE = 224
BATCH = 32  # photographs


@dataclass(frozen=True)
class Row:
    """One way of getting images: images per second, a share of the whole, or a ratio to another."""

    part: str
    what: str
    images_per_second: float
    workers: int | None = None
    share: float | None = None
    ratio: Ratio | None = None

    def __str__(self) -> str:
        """A line of the table."""
        workers = "" if self.workers is None else self.workers
        share = "" if self.share is None else f"{self.share:.1%}"
        over = "" if self.ratio is None else str(self.ratio)
        return f"{self.part:<8}{self.what:<34}{workers:>8}{self.images_per_second:>12,.0f}{share:>8}{over:>24}"


def small(images: int, batch_size: int, width: int, rounds: int) -> Iterator[Row]:
    """The loader of images in memory beside a training step on them."""
    device = default_device()
    noise = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8)
    split = Split(torch.arange(images) % 100, images=noise)
    data = ImageData("noise", split, split, tuple(map(str, range(100))), (0.5,) * 3, (0.25,) * 3, 32, "crop_flip", "")
    loader = epochs(data, batch_size=batch_size)
    model = build("resnet18_cifar", 100, width=width).to(device)
    batch = make_batch(Needs(), batch_size=batch_size, classes=100, device=device)
    with machine(None):
        step = StepProfiler(model, CrossEntropy(), batch)
        loader(), step.seconds()
        found = in_turns({"loader": loader, "step": step.seconds}, rounds)
    an_image = {"loader": images, "step": batch_size}
    speed = {what: [an_image[what] / taken for taken in found[what]] for what in found}
    yield Row("small", f"training step, width {width}", statistics.median(speed["step"]))
    yield Row("small", "loader", statistics.median(speed["loader"]), ratio=ratio(speed["loader"], speed["step"]))


def stages(data: ImageData, rounds: int) -> Iterator[Row]:
    """What happens to each photograph, one stage after the other."""
    paths, side = data.train.paths or (), data.resizing.margin(SIZE)
    images = FileImages(paths, size=SIZE, augment=data.augment, seed=0)
    *augment, to_tensor = images.transform.transforms  # type: ignore[attr-defined]
    normalise, device = Normalize(data.mean, data.std, device=default_device()), default_device()
    each: dict[str, Callable[[Any], Any]] = {
        "decode": read_rgb,
        "resize": lambda image: to_shorter_side(image, side),
        "augment": lambda image: reduce(lambda made, step: step(made), augment, image),
        "to tensor": to_tensor,
    }

    def taken(names: Sequence[str]) -> dict[str, float]:
        spent = dict.fromkeys([*names, "collate", "normalise"], 0.0)
        for start in range(0, len(paths), BATCH):
            items: list[Any] = list(paths[start : start + BATCH])
            for name in names:
                begun = time.perf_counter()
                items = [each[name](item) for item in items]
                spent[name] += time.perf_counter() - begun
            begun = time.perf_counter()
            pixels = torch.stack(items)
            spent["collate"] += time.perf_counter() - begun
            spent["normalise"] += seconds(partial(lambda batch: normalise(batch.to(device)), pixels))
        return spent

    chains = {"as they are": [name for name in each if name != "resize"], "resized": list(each)}
    with machine(1):  # as in a worker
        found = {chain: [taken(names) for _ in range(rounds + 1)][1:] for chain, names in chains.items()}
    for chain, spent in found.items():
        medians = {name: statistics.median(one[name] for one in spent) for name in spent[0]}
        whole = sum(medians.values())
        for name, one in medians.items():
            yield Row("stages", f"{chain}: {name}", len(paths) / one, 0, share=one / whole)
        yield Row("stages", f"{chain}: all of it", len(paths) / whole, 0, share=1.0)


def whole_epochs(data: ImageData, rounds: int, workers: Sequence[int]) -> Iterator[Row]:
    """Epochs of photographs that are decoded each time, and once."""
    count, side = len(data.train), data.resizing.margin(SIZE)
    with tempfile.TemporaryDirectory() as scratch, machine(1):  # more threads would wait where the workers work
        kept = with_cache(data, side, Path(scratch))
        for some in workers:
            tasks: dict[str, Callable[[], float]] = {
                "files as they are": epochs(data, workers=some),
                "resized": epochs(data, resize=side, workers=some),
                "resized, cached": epochs(kept, resize=side, workers=some),
                "resized, cached: first epoch": partial(first_epoch, data, side, some),
            }
            for task in tasks.values():
                task()
            found = in_turns(tasks, rounds)
            for what, taken in found.items():
                over = ratio(found["resized"], taken)
                yield Row("epochs", what, count / statistics.median(taken), some, ratio=over)


def first_epoch(data: ImageData, side: int, workers: int) -> float:
    """Seconds of an epoch that finds no cache."""
    with tempfile.TemporaryDirectory() as empty:
        return seconds(lambda: epochs(with_cache(data, side, Path(empty)), resize=side, workers=workers)())


def epochs(
    data: ImageData, *, batch_size: int = BATCH, resize: int | None = None, workers: int = 0
) -> Callable[[], float]:
    """Return a function that loads the next epoch's batches and gives the seconds it took."""
    device = default_device()
    loader = TrainLoader(data, Needs(), batch_size=batch_size, seed=0, resize=resize, device=device, workers=workers)
    epoch = 0

    def load() -> None:
        nonlocal epoch
        for _ in loader.epoch(epoch):
            pass
        epoch += 1

    return lambda: seconds(load)


def photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of 640 x 480 pixels that compress about as photographs do: shapes large and small, and grain."""
    generator = torch.Generator().manual_seed(0)

    def shapes(rows: int, contrast: float) -> Tensor:
        noise = torch.randn(1, 3, rows, rows * 4 // 3, generator=generator)
        return contrast * F.interpolate(noise, (480, 640), mode="bicubic", align_corners=False)[0]

    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for path in paths:
        pixels = 128 + shapes(6, 50) + shapes(30, 20) + shapes(120, 10) + shapes(480, 16)
        image = Image.fromarray(pixels.clamp(0, 255).byte().permute(1, 2, 0).numpy())
        image.save(path, quality=90)
    return paths


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, default=50_000, help="small images of an epoch")
    parser.add_argument("--batch-size", type=int, default=128, help="small images of a step")
    parser.add_argument("--width", type=int, default=64, help="of the ResNet-18")
    parser.add_argument("--folder", type=Path, help="photographs (default: made here)")
    parser.add_argument("--photographs", type=int, default=512, help="so many at most")
    parser.add_argument("--workers", type=int, default=min(8, cpu_count()), help="besides none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        paths: list[Path] = []
        if set(given.parts) - {"small"}:
            found = image_files(given.folder) if given.folder else photographs(Path(scratch), given.photographs)
            paths = list(islice(found, given.photographs))
        split = Split(torch.zeros(len(paths), dtype=torch.int64), paths=tuple(paths))
        data = ImageData(
            "photographs", split, split, ("photograph",), IMAGENET_MEAN, IMAGENET_STD, SIZE, "resized_crop_flip", ""
        )
        ask = {
            "small": lambda: small(given.images, given.batch_size, given.width, given.rounds),
            "stages": lambda: stages(data, given.rounds),
            "epochs": lambda: whole_epochs(data, given.rounds, (0, given.workers)),
        }
        kilobytes = sum(path.stat().st_size for path in paths) / max(len(paths), 1) / 1000
        print(f"{len(paths)} photographs of {kilobytes:.0f} kB, {cpu_count()} processors, on {default_device().type}")
        print(f"{'part':<8}{'what':<34}{'workers':>8}{'images/s':>12}{'share':>8}{'ratio':>24}")
        for part in given.parts:
            for row in ask[part]():
                rows.append(row)
                print(row, flush=True)
    save(given.json, given, rows, photographs=len(paths), kilobytes=kilobytes)
    return rows


if __name__ == "__main__":
    main()
