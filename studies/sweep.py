"""One factor at a time around a paper-like setting: images per class, steps, features, classes.

uv run python studies/sweep.py                                    adds what is missing to results/sweep.jsonl.xz
uv run python studies/sweep.py --jobs 12 --minutes 9 --compile    on a GPU; call it again to go on
uv run python studies/sweep.py --factors "images per class"

The setting in the middle is the paper's Table 1 at the scale "small": 100 classes of CIFAR-100 with 15 images each at
16 px, 512 features, 9,400 steps. Every other point differs from it in one number; the steps stay what they are, so that
fewer images are seen more often. SIGTERM and SIGINT stop it: runs in progress save and go on in the next call.
"""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import archive
import msgspec
from linked import linked_table, points_cell

import paper
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.data.steps import steps_per_epoch
from selfdistill.paper.scales import SEEDS, PaperConfig, Training
from selfdistill.progress import Display, OnProgress, make_console
from selfdistill.records import RunRecord, record
from selfdistill.runs.evaluation import BASIC_EVALUATION, train_and_evaluate
from selfdistill.runs.executor import Listener, Task
from selfdistill.runs.failures import Failure
from selfdistill.runs.grid import describe_record, slug
from selfdistill.runs.processes import Processes
from selfdistill.training import Interrupted
from selfdistill.training.run import load

BASELINE = "CrossEntropy()"
WEIGHTS = {0.1: "SDDropout(weight=0.1)", 0.3: "SDDropout(weight=0.3)", 1: "SDDropout()"}
METHODS = (BASELINE, *WEIGHTS.values(), "LabelSmoothing()", "Dropout()")
FACTORS = {
    "images per class": (5, 10, 15, 30, 60, 120),
    "steps": (1504, 4700, 9400, 18_800, 37_600),
    "features": (64, 128, 256, 512, 1024, 2048),
    "classes": (10, 25, 50, 100),
}
MIDDLE = {"images per class": 15, "steps": 9400, "features": 512, "classes": 100}
ARCHIVE = "sweep.jsonl.xz"


@dataclass(frozen=True)
class Point:
    """A setting of a sweep.

    Attributes:
        factor: what differs from the middle.
        value: its number.
    """

    factor: str
    value: int

    @property
    def name(self) -> str:
        """Of its folder; the middle belongs to all sweeps."""
        return "middle" if self.value == MIDDLE[self.factor] else f"{self.factor.replace(' ', '-')}-{self.value}"

    def recipe(self, method: str, seed: int) -> TrainConfig:
        """Return how one of its networks is trained."""
        at = MIDDLE | {self.factor: self.value}
        middle = PaperConfig("small", Path()).plan_run(Training(method), seed).recipe
        assert middle.batch_size is not None
        epochs = round(at["steps"] / steps_per_epoch(at["images per class"] * at["classes"], middle.batch_size))
        return replace(
            middle,
            data_root="data",
            per_class=at["images per class"],
            features=at["features"],
            classes=None if at["classes"] == MIDDLE["classes"] else at["classes"],
            epochs=epochs,
            eval_every=epochs,
            keep_epochs=(),
        )


def points(factors: Sequence[str] = tuple(FACTORS)) -> list[Point]:
    """Every setting once, the middle first."""
    found = {Point(factor, value).name: Point(factor, value) for factor in factors for value in FACTORS[factor]}
    return sorted(found.values(), key=lambda point: point.name != "middle")


def load_records(file: Path = archive.RESULTS / ARCHIVE) -> dict[str, list[RunRecord]]:
    """Return the records by their setting's name; those of the middle are the paper's miniature too."""
    found: dict[str, list[RunRecord]] = {}
    for path, content in archive.read(file).items():
        found.setdefault(path.partition("/")[0], []).append(record.to_struct(content, RunRecord, path, ""))
    with paper.committed("small") as config:
        there = [run for run in paper.table1_records(config) if run.method in METHODS]
    return found | {"middle": [*there, *found.get("middle", [])]}


def planned(factors: Sequence[str]) -> Iterator[tuple[str, TrainConfig]]:
    """Yield the path and the recipe of every run, all settings with one seed before the next."""
    for seed, point, method in product(SEEDS, points(factors), METHODS):
        yield f"{point.name}/{slug(method)}-seed{seed}", point.recipe(method, seed)


def _train(recipe: TrainConfig, folder: Path, *, data: ImageData, cpus: int | None, progress: OnProgress) -> RunRecord:
    """Train on images of its own: a worker's are those of its first run."""
    return train_and_evaluate(recipe, folder, BASIC_EVALUATION, data=load(recipe), cpus=cpus, progress=progress)


def run(given: argparse.Namespace) -> None:
    """Train what is missing, and put each record into the archive when it is there."""
    file, work = given.out / ARCHIVE, Path("runs/sweep")
    here = load_records(file)
    done = {(name, one.method, one.seed) for name, some in here.items() for one in some}
    tasks = []
    for path, recipe in planned(given.factors):
        if (path.partition("/")[0], recipe.method, recipe.seed) not in done:
            fast = replace(recipe, compile=given.compile, data_root=str(given.data_root))
            tasks.append(Task(work / path, fast, partial(_train, fast, work / path)))
    with Display(make_console(), jobs=len(tasks), every=30.0) as display:

        def ended(folder: Path, result: RunRecord) -> None:
            content: Any = msgspec.to_builtins(result)
            content["commit"] = content["commit"] or given.commit
            archive.write(file, archive.read(file) | {f"{folder.relative_to(work)}.json": content})
            display.finish(_name(folder), f"{folder.parent.name}: {describe_record(result)}")

        def failed(folder: Path, failure: Failure) -> None:
            display.finish(_name(folder), f"{folder.parent.name}/{folder.name} failed: {failure.reason}")

        listener = Listener(lambda folder, event: display.update(_name(folder), event), ended, failed)
        Processes(given.jobs).execute(tasks, listener, "run the same command again to go on")


def _name(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def tables() -> str:
    """One table for each factor that was varied: cross-entropy, and what the methods change, paired by seed."""
    here = load_records()
    shown = []
    for factor, values in FACTORS.items():
        rows = [_row(value, here.get(Point(factor, value).name, [])) for value in values]
        if sum(row is not None for row in rows) > 1:
            names = [f"λ = {weight:g}" for weight in WEIGHTS]
            headings = (factor.capitalize(), "Cross-entropy (training)", *names, "Label smoothing", "Dropout", "n")
            shown.append(
                f"### {factor.capitalize()}\n\n{linked_table(headings, [row for row in rows if row], words=0)}"
            )
    return "\n\n".join(shown) or "Not measured yet."


def _row(value: int, records: Sequence[RunRecord]) -> tuple[str, ...] | None:
    by_method = {method: [one for one in records if one.method == method] for method in METHODS}
    base = by_method[BASELINE]
    if not base:
        return None
    train = fmean(one.evaluation.train_top1 or 0.0 for one in base)
    top1 = {method: {one.seed: one.evaluation.top1 for one in some} for method, some in by_method.items()}
    gains = [points_cell(top1[method], top1[BASELINE], len(base)) for method in METHODS[1:]]
    return (f"{value:,}", f"{100 * fmean(top1[BASELINE].values()):.1f} ({100 * train:.0f})", *gains, str(len(base)))


def main() -> None:
    """Parse the command line, and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--factors", nargs="+", choices=FACTORS, default=list(FACTORS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--minutes", type=float, help="of this call (default: no end)")
    parser.add_argument("--compile", action="store_true", help="compile the step")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where cifar100/train.npz is")
    parser.add_argument("--out", type=Path, default=archive.RESULTS, help="folder of the archive")
    parser.add_argument("--commit", help="of the code, where it lies without its repository")
    given = parser.parse_args()
    if given.minutes is not None and hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 60 * given.minutes)
    try:
        run(given)
    except Interrupted as stopped:
        print(stopped)
        sys.exit(stopped.exit_status)


if __name__ == "__main__":
    main()
