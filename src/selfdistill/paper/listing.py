"""What a table needs: its runs, their time on this machine, and the commands that make them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from selfdistill.config import TrainConfig
from selfdistill.config.yaml_config import YamlConfig
from selfdistill.data.synthetic import make_batch
from selfdistill.detect.config import DetectConfig
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.paper.detection_table import Detector
from selfdistill.paper.results import cells_of, kept, parts_of, run_of
from selfdistill.paper.scales import SETS, Setting, Training, check_run, size_of, write_images
from selfdistill.paper.tables import PaperTable
from selfdistill.records import write_atomically
from selfdistill.report.tables import DASH, Table
from selfdistill.runs.grid import is_trained
from selfdistill.timing.profiler import StepProfiler
from selfdistill.train.run import machine

_STEPS = 3


@dataclass(frozen=True)
class Need:
    """One training of a table.

    Attributes:
        training: which.
        trained: runs that are finished.
        wanted: runs in all.
        parts: names of what is measured of each, with how many runs are measured.
        seconds: of one run on this machine; None where nothing is to be trained.
        refused: why it is not trained at this scale; empty where it is.
    """

    training: Training
    trained: int
    wanted: int
    parts: Mapping[str, int]
    seconds: float | None
    refused: str

    @property
    def seconds_left(self) -> float:
        """Of all runs that are missing, one after another."""
        return (self.seconds or 0.0) * (self.wanted - self.trained)


def needs_of(table: PaperTable, setting: Setting, *, timed: dict[Training, float]) -> list[Need]:
    """Return what a table needs; images are not looked at, and nothing is downloaded.

    Args:
        table: which.
        setting: where, and at what scale.
        timed: seconds of a run by training; what is not in it is measured and put there.
    """
    cells = cells_of(table, setting)
    needs = []
    for training in table.trainings:
        own = [cell for (one, _), cell in cells.items() if one == training]
        done = [cell for cell in own if is_trained(cell, setting.runs)]
        refused = setting.refusal(training) or ""
        if len(done) < len(own) and not refused and training not in timed:
            timed[training] = run_seconds(training, own[0].recipe, setting)
        parts = {
            part.name: sum(kept(setting.runs / cell.name, part, setting) is not None for cell in done)
            for part in parts_of(table, training)
            if part.refusal(setting) is None
        }
        seconds = timed[training] if len(done) < len(own) and not refused else None
        needs.append(Need(training, len(done), len(own), parts, seconds, refused))
    return needs


def run_seconds(training: Training, recipe: TrainConfig, setting: Setting) -> float:
    """Estimate how long a run takes on this machine, from a few steps on noise; decoding and scoring are left out.

    On a CPU a step of a few images is measured and taken in proportion; of narrow networks, of more.
    """
    on_gpu = torch.cuda.is_available()
    images, _, classes = size_of(training.data, setting.scale)
    batch = recipe.batch_size or 1
    at_most = {16: 64, 32: 16, 64: 16}.get(recipe.image_size or 224, 2)
    few = batch // recipe.accumulate if on_gpu else min(batch, at_most)
    method = parse_method(recipe.method)
    steps = -(-images * method.needs.group // batch)
    assert recipe.model is not None
    assert recipe.image_size is not None
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = build(recipe.model, classes, width=recipe.width, head_layers=recipe.head_layers)
    trial = StepProfiler(
        network.to(memory_format=layout),
        method,
        make_batch(
            method.needs,
            batch_size=few,
            classes=classes,
            image_size=recipe.image_size,
            samples=max(images, few),
            device="cuda" if on_gpu else "cpu",
        ),
        precision=recipe.precision,
    )
    with machine(None):
        trial.seconds()  # the first step finds its memory
        step = median(trial.seconds() for _ in range(_STEPS))
    return step * batch / few * steps * recipe.epochs


def commands_of(tables: Sequence[PaperTable], setting: Setting) -> list[str]:
    """Write the recipe of each run and detector that is missing, and return the commands that make them, each once.

    A detector's command comes after its run's.

    Raises:
        ValueError: a run's folder of another recipe.
        OSError: a recipe cannot be written.
    """
    runs: dict[Path, TrainConfig] = {}
    detectors: dict[Path, DetectConfig] = {}
    for table in tables:
        for (training, seed), cell in cells_of(table, setting).items():
            run = run_of(setting, cell)
            check_run(run, cell.recipe, size_of(training.data, setting.scale))
            if setting.refusal(training) is not None:
                continue
            if not is_trained(cell, setting.runs):
                runs[run] = cell.recipe
                if setting.scale == "smoke":
                    write_images(setting.images(training.data), training.data)
            for part in parts_of(table, training):
                if isinstance(part, Detector) and part.refusal(setting) is None:
                    folder = part.folder(run)
                    if not (folder / "result.json").is_file():
                        detectors[folder] = part.recipe(run, setting, seed)
    recipes = setting.out / "recipes"
    recipes.mkdir(parents=True, exist_ok=True)
    return [
        *(_command("train", recipe, recipes / f"{run.name}.yaml", run) for run, recipe in runs.items()),
        *(
            _command("detect", recipe, recipes / f"{out.parents[1].name}-coco-{out.name}.yaml", out)
            for out, recipe in detectors.items()
        ),
    ]


def _command(name: str, recipe: YamlConfig, file: Path, out: Path) -> str:
    write_atomically(file, recipe.to_yaml().encode())
    return shlex.join(["selfdistill", name, "--recipe", str(file), "--out", str(out)])


def duration(seconds: float) -> str:
    """Return a rough duration in words.

    Example:
        >>> duration(20), duration(900), duration(8000), duration(2e6)
        ('20 s', '15 min', '2 h 13 min', '23 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes / 60 / 24:,.0f} days"


def needs_table(needs: Sequence[Need]) -> Table:
    """One row a training: what is done and what the rest would take."""
    rows = [
        (
            f"{SETS[need.training.data]}, {need.training.network}"
            + (", 2 FC" if need.training.head_layers == 2 else "")
            + f": {need.training.method}",
            need.refused or f"{need.trained} of {need.wanted}",
            ", ".join(f"{name} {done} of {need.wanted}" for name, done in need.parts.items()) or DASH,
            DASH if need.seconds is None else duration(need.seconds),
        )
        for need in needs
    ]
    return Table(("Training", "Runs done", "Measured", "A run"), tuple(rows))
