"""How fast tiny images come in from folders, a table, shards and a dataset of Hugging Face, and in how much memory.

uv run python benchmarks/sources.py                                   10,000 and 100,000 images of 32 x 32 pixels
uv run python benchmarks/sources.py --images 1000000 --kinds shards   as many as you like
uv run python benchmarks/sources.py --json sources.json               the numbers too

Each row is a process of its own: seconds until the set is ready, images per second of an epoch of the loader in batches
of 128 (without a network, after a first epoch), and how much its peak of resident memory is above that of the imports.
Small images of folders and tables are decoded once and kept in memory; those of shards and datasets are decoded in each
epoch, and read where they lie. Files have been read before: the disk is not measured.
"""

import argparse
import importlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import save
from PIL import Image

from selfdistill.data import TrainLoader, load_data
from selfdistill.data.decode import cpu_count
from selfdistill.method import Needs

KINDS = ("folder", "table", "shards", "dataset")
CLASSES, SIDE, PER_SHARD = 10, 32, 10_000


@dataclass(frozen=True)
class Row:
    """One source: seconds to load, images per second of an epoch, and bytes above the imports."""

    kind: str
    images: int
    workers: int
    load_seconds: float
    images_per_second: float
    bytes: int

    def __str__(self) -> str:
        """A line of the table."""
        numbers = f"{self.images:>10,}{self.workers:>9}{self.load_seconds:>10.1f}{self.images_per_second:>12,.0f}"
        return f"{self.kind:<10}{numbers}{self.bytes / 2**20:>10,.0f}"


def pictures(count: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield a name, a label and a PNG file of noise for each image."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        content = io.BytesIO()
        pixels = torch.randint(256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(content, format="PNG", compress_level=1)
        yield f"{number:07}.png", number % CLASSES, content.getvalue()


def cells(count: int) -> Iterator[dict[str, object]]:
    """Yield them as rows of a dataset."""
    for _, label, content in pictures(count):
        yield {"image": {"bytes": content, "path": None}, "label": label}


def peak() -> int:
    """Most resident memory of this process so far, in bytes; Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def write(kind: str, root: Path, count: int) -> str:
    """Write images as one kind of source; return what names it."""
    if kind == "shards":
        root.mkdir()
        for start in range(0, count, PER_SHARD):
            with tarfile.open(root / f"part-{start // PER_SHARD:05}.tar", "w") as shard:
                for name, label, content in pictures(min(PER_SHARD, count - start)):
                    member = tarfile.TarInfo(f"{label}/{start}-{name}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
        return f"wds:{root}"
    if kind == "dataset":
        from datasets import ClassLabel, Dataset, Features
        from datasets import Image as Column

        features = Features({"image": Column(), "label": ClassLabel(num_classes=CLASSES)})
        settings = {"features": features, "cache_dir": str(root / "cache"), "gen_kwargs": {"count": count}}
        made = Dataset.from_generator(cells, **settings)
        made.save_to_disk(str(root / "saved"))
        return f"hf:{root / 'saved'}"
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    listed = ["path,label"]
    for name, label, content in pictures(count):
        (root / str(label) / name).write_bytes(content)
        listed.append(f"{label}/{name},{label}")
    if kind == "folder":
        return str(root)
    (root / "labels.csv").write_text("\n".join(listed))
    return str(root / "labels.csv")


def measure(kind: str, source: str, images: int, workers: int) -> Row:
    """Load a set and an epoch of it; for a process of its own."""
    importlib.import_module("torchvision.transforms.v2")
    if kind == "dataset":
        importlib.import_module("datasets")
    before = peak()
    started = time.perf_counter()
    data = load_data(source)
    loaded = time.perf_counter()
    loader = TrainLoader(data, Needs(), batch_size=128, seed=0, device="cpu", workers=workers)
    seconds = 0.0
    for epoch in range(2):
        begun = time.perf_counter()
        for _ in loader.epoch(epoch):
            pass
        seconds = time.perf_counter() - begun
    return Row(kind, images, workers, loaded - started, len(data.train) / seconds, peak() - before)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workers", type=int, default=min(8, cpu_count()))
    parser.add_argument("--folder", type=Path, help="where the images are written for a while")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(asdict(measure(given.measure[0], given.measure[1], given.images[0], given.workers))))
        return []
    rows = []
    print(f"{'kind':<10}{'images':>10}{'workers':>9}{'load (s)':>10}{'images/s':>12}{'MiB':>10}")
    for images in given.images:
        for kind in given.kinds:
            with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
                source = write(kind, Path(scratch) / "images", images)
                words = ["--measure", kind, source, "--images", str(images), "--workers", str(given.workers)]
                command = [sys.executable, __file__, *words]
                answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(Row(**json.loads(answer.stdout)))
            print(rows[-1], flush=True)
    save(given.json, given, rows)
    return rows


if __name__ == "__main__":
    main()
