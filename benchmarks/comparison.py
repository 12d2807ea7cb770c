"""How long a comparison on photographs takes beside the same runs of a plain loop; a linear probe beside scikit-learn.

uv run python benchmarks/comparison.py                                  on photographs made here
uv run python benchmarks/comparison.py --data DIR --weights lite0.pth   on folders of classes, weights of timm's form
uv run python benchmarks/comparison.py --parts frozen probe --epochs 5  a part of it, shorter
uv run python benchmarks/comparison.py --json comparison.json           the numbers too

"frozen" and "whole": ``selfdistill compare``, four methods with three seeds each, on 300 photographs at 128 pixels,
with ``--freeze backbone`` and with all layers; beside plain_fine_tuning.py, which takes as many optimiser steps of as
many images and measures as often. Both are processes of their own: imports and all are counted.

"probe": the linear probe that ``compare`` begins with, beside one pass over the photographs and scikit-learn's logistic
regression on the features.

Of each the processor seconds, in which other work on the machine hardly counts, and the seconds by the clock.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from common import save
from input import photographs
from numpy.typing import NDArray
from plain_fine_tuning import loader, pretrained
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader
from torchvision.transforms import Normalize

from selfdistill.config import TrainConfig
from selfdistill.config.train_config import COMPARED_METHODS
from selfdistill.data.folders import class_folders, image_files
from selfdistill.runs.compare import measure_linear_probe
from selfdistill.training.run import load

PARTS = ("frozen", "whole", "probe")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Taken:
    """Seconds of the processors and by the clock."""

    processor: float
    clock: float


@dataclass(frozen=True)
class Row:
    """Ours beside theirs."""

    part: str
    what: str
    ours: Taken
    theirs: Taken

    @property
    def ratio(self) -> float:
        """Of processor seconds."""
        return self.ours.processor / self.theirs.processor

    def __str__(self) -> str:
        """A line of the table."""
        times = "".join(f"{one.processor:>12.1f}{one.clock:>9.1f}" for one in (self.ours, self.theirs))
        return f"{self.part:<8}{self.what:<44}{times}{self.ratio:>8.3f}"


def of_process(command: Sequence[str], threads: int) -> Taken:
    """Run a command to its end."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, env=os.environ | limits, stdout=subprocess.DEVNULL)
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return Taken(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock)


def of_work(work: Callable[[], object]) -> Taken:
    """Do something in this process."""
    processor, started = time.process_time(), time.perf_counter()
    work()
    return Taken(time.process_time() - processor, time.perf_counter() - started)


def lay_out(data: Path | None, count: int, classes: int, folder: Path) -> None:
    """Copy photographs, as many of each class, four of five into ``train`` and the rest into ``test``."""
    each = count // classes
    if data is None:
        made = photographs(folder / "made", count)
        found = {f"class{number}": made[number::classes] for number in range(classes)}
    else:
        source = data / "train" if (data / "train").is_dir() else data
        full = {name: files for name, at in class_folders(source).items() if len(files := image_files(at)) >= each}
        found = {name: files[:each] for name, files in islice(full.items(), classes)}
    for name, files in found.items():
        for number, file in enumerate(files[:each]):
            place = folder / "photos" / ("test" if number % 5 == 4 else "train") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)


def comparison(part: str, given: argparse.Namespace, folder: Path, weights: Path) -> Row:
    """``compare`` beside the plain loop."""
    methods, freeze = list(given.methods), part == "frozen"
    settings = ["--epochs", str(given.epochs), "--seeds", str(given.seeds), "--methods", *methods]
    ours = ["--data", str(folder / "photos"), "--data-root", str(folder), "--out", str(folder / part), "--quick"]
    ours += ["--model", f"timm:{given.model}", "--weights", str(weights), "--image-size", str(given.size)]
    ours += ["--workers", str(given.workers), "--freeze", "backbone" if freeze else "none"]
    plain = ["--model", given.model, "--weights", str(weights), "--size", str(given.size)]
    plain += ["--workers", str(given.workers), *(["--freeze"] if freeze else [])]
    script = [str(_HERE / "plain_fine_tuning.py"), str(folder / "photos")]
    return Row(
        part,
        f"{len(methods) * given.seeds} runs of {given.epochs} epochs",
        of_process([sys.executable, "-m", "selfdistill", "compare", *ours, *settings], given.threads),
        of_process([sys.executable, *script, *plain, *settings], given.threads),
    )


def probe(given: argparse.Namespace, folder: Path, weights: Path) -> Row:
    """The linear probe of ``compare`` beside scikit-learn's on ready features, plus the pass that makes them."""
    torch.set_num_threads(given.threads)
    model = pretrained(given.model, weights, 1000, freeze=True)
    cfg = model.pretrained_cfg
    normalize = Normalize(cfg["mean"], cfg["std"])
    parts = [loader(folder / "photos", given.size, 0, normalize, part, augment=False) for part in ("train", "test")]

    def theirs() -> None:
        (x, y), (x_test, y_test) = (features(model, part) for part in parts)
        LogisticRegression(max_iter=1000).fit(x, y).score(x_test, y_test)

    recipe = TrainConfig(
        data=str(folder / "photos"),
        data_root=str(folder),
        model=f"timm:{given.model}",
        weights=str(weights),
        image_size=given.size,
        workers=0,
    )
    data, out = load(recipe), folder / "probe"
    out.mkdir()
    (folder / "elsewhere").mkdir()
    elsewhere = replace(recipe, data_root=str(folder / "elsewhere"))  # the probe is kept beside the decoded photographs
    measure_linear_probe(elsewhere, load(elsewhere), folder, trained=False)  # what is imported on use
    ours = of_work(lambda: measure_linear_probe(recipe, data, out, trained=False))
    theirs()
    return Row("probe", f"{len(data.train)} training and {len(data.test)} test images", ours, of_work(theirs))


def features(model: Any, images: DataLoader[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What is before the head, and the labels."""
    with torch.inference_mode():
        found = [(model.forward_head(model.forward_features(x), pre_logits=True), y) for x, y in images]
    return torch.cat([x for x, _ in found]).numpy(), torch.cat([y for _, y in found]).numpy()


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, help="a folder of classes (default: photographs made here)")
    parser.add_argument("--photographs", type=int, default=300)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=128, help="side of the images, pixels")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="of timm")
    parser.add_argument("--weights", type=Path, help="its weights for 1000 classes (default: random, as fast)")
    parser.add_argument("--methods", nargs="+", default=list(COMPARED_METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0, help="decoding processes of each")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "made").mkdir()
        lay_out(given.data, given.photographs, given.classes, folder)
        weights = folder / "weights.pth"
        if given.weights is None:
            torch.manual_seed(0)
            torch.save(timm.create_model(given.model).state_dict(), weights)
        else:
            shutil.copy(given.weights, weights)
        print(f"{'':<52}{'ours: CPU s':>12}{'clock s':>9}{'CPU s':>12}{'clock s':>9}{'ratio':>8}")
        for part in given.parts:
            row = probe(given, folder, weights) if part == "probe" else comparison(part, given, folder, weights)
            rows.append(row)
            print(row, flush=True)
    save(given.json, given, rows)
    return rows


if __name__ == "__main__":
    main()
