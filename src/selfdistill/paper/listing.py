"""What tables need without running them: their runs, the time on this machine, and one command per run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from selfdistill.config import TrainConfig
from selfdistill.config.yaml_config import YamlConfig
from selfdistill.detect.config import DetectConfig
from selfdistill.files import make_folder, write_atomically
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.network import default_device, put_channels_last
from selfdistill.paper.detection_table import Detector
from selfdistill.paper.results import load_cached_evaluation
from selfdistill.paper.scales import (
    DATASETS,
    PaperConfig,
    Training,
    check_run,
    dataset_size,
    write_synthetic_images,
)
from selfdistill.paper.tables import PaperTable
from selfdistill.report.tables import DASH, Table
from selfdistill.runs.grid import is_trained
from selfdistill.text import format_duration
from selfdistill.timing.profiler import StepProfiler
from selfdistill.timing.synthetic import make_batch
from selfdistill.training.run import machine

_TIMED_STEPS = 3
_MAX_CPU_BATCH = {16: 64, 32: 16, 64: 16}  # by image size; 2 for larger images


@dataclass(frozen=True)
class TrainingNeeds:
    """What a table needs of one training.

    Attributes:
        n_evaluated: finished runs with a cached result, by the evaluation's name.
        seconds: per run on this machine; None if nothing is left to train.
        skip_reason: why the scale skips it; empty if it does not.
    """

    training: Training
    n_trained: int
    n_runs: int
    n_evaluated: Mapping[str, int]
    seconds: float | None
    skip_reason: str

    @property
    def seconds_left(self) -> float:
        """Of all missing runs, one after another."""
        return (self.seconds or 0.0) * (self.n_runs - self.n_trained)


def list_needs(table: PaperTable, config: PaperConfig, seconds: dict[Training, float]) -> list[TrainingNeeds]:
    """Return what a table needs; images are neither loaded nor downloaded.

    Args:
        seconds: per run, by training; a training that is not in it is timed and added.
    """
    runs = table.planned_runs(config)
    needs = []
    for training in table.trainings:
        planned = [run for (one, _), run in runs.items() if one == training]
        trained = [run for run in planned if is_trained(run, config.runs)]
        skip_reason = config.skip_reason(training) or ""
        is_needed = len(trained) < len(planned) and not skip_reason
        if is_needed and training not in seconds:
            seconds[training] = estimate_seconds(training, planned[0].recipe, config)
        n_evaluated = {
            one.name: sum(load_cached_evaluation(config.runs / run.name, one, config) is not None for run in trained)
            for one in table.planned_evaluations(training, config)
        }
        per_run = seconds[training] if is_needed else None
        needs.append(TrainingNeeds(training, len(trained), len(planned), n_evaluated, per_run, skip_reason))
    return needs


def needs_table(needs: Sequence[TrainingNeeds]) -> Table:
    """Return a row per training: what is done, and how long a run takes."""
    rows = [
        (
            f"{DATASETS[need.training.data]}, {need.training.network}"
            + (", 2 FC" if need.training.head_layers == 2 else "")
            + f": {need.training.method}",
            need.skip_reason or f"{need.n_trained} of {need.n_runs}",
            ", ".join(f"{name} {done} of {need.n_runs}" for name, done in need.n_evaluated.items()) or DASH,
            DASH if need.seconds is None else format_duration(need.seconds),
        )
        for need in needs
    ]
    return Table(("Training", "Runs done", "Evaluations", "Per run"), tuple(rows))


def describe_time_left(needs: Iterable[TrainingNeeds]) -> str:
    """Say how long the missing runs of several tables would take; tables share their runs."""
    left: dict[Training, float] = {}
    for need in needs:
        left[need.training] = max(left.get(need.training, 0.0), need.seconds_left)
    if not any(left.values()):
        return "No run is missing."
    return (
        f"The missing runs would take about {format_duration(sum(left.values()))} here, one after another, on an "
        "otherwise idle machine; their evaluations, and the detectors of Table 4, come on top."
    )


def estimate_seconds(training: Training, recipe: TrainConfig, config: PaperConfig) -> float:
    """Estimate how long a run takes on this machine, from a few steps on noise, without decoding and scoring.

    On a CPU a step of few images is timed and scaled up; of more for small images.
    """
    on_gpu = torch.cuda.is_available()
    images, _, classes = dataset_size(training.data, config.scale)
    batch = recipe.batch_size or 1
    few = batch // recipe.accumulate if on_gpu else min(batch, _MAX_CPU_BATCH.get(recipe.image_size or 224, 2))
    method = parse_method(recipe.method)
    steps = -(-images * method.needs.group // batch)
    assert recipe.model is not None
    assert recipe.image_size is not None
    network = build(recipe.model, classes, width=recipe.width, head_layers=recipe.head_layers)
    if recipe.channels_last:
        put_channels_last(network, default_device())
    profiler = StepProfiler(
        network,
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
    assert recipe.epochs is not None
    with machine(None):
        profiler.seconds()  # the first step allocates memory
        step = median(profiler.seconds() for _ in range(_TIMED_STEPS))
    return step * batch / few * steps * recipe.epochs


def write_commands(tables: Iterable[PaperTable], config: PaperConfig) -> list[str]:
    """Write the recipe of each missing run and detector, and return the commands that make them, each once.

    A detector's command comes after that of its run.

    Raises:
        ValueError: a run's folder belongs to another recipe.
        OSError: a recipe cannot be written.
    """
    runs: dict[Path, TrainConfig] = {}
    detectors: dict[Path, DetectConfig] = {}
    for table in tables:
        for (training, seed), planned in table.planned_runs(config).items():
            run = config.runs / planned.name
            check_run(run, planned.recipe, dataset_size(training.data, config.scale))
            if config.skip_reason(training) is not None:
                continue
            if not is_trained(planned, config.runs):
                runs[run] = planned.recipe
                if config.scale == "smoke":
                    write_synthetic_images(config.images_folder(training.data), training.data)
            detectors |= _missing_detectors(table, config, training, seed, run)
    recipes = make_folder(config.out / "recipes")
    return [
        *(_command("train", recipe, recipes / f"{run.name}.yaml", run) for run, recipe in runs.items()),
        *(
            _command("detect", recipe, recipes / f"{out.parents[1].name}-coco-{out.name}.yaml", out)
            for out, recipe in detectors.items()
        ),
    ]


def _missing_detectors(
    table: PaperTable, config: PaperConfig, training: Training, seed: int, run: Path
) -> dict[Path, DetectConfig]:
    return {
        one.folder(run): one.recipe(run, config, seed)
        for one in table.planned_evaluations(training, config)
        if isinstance(one, Detector) and not (one.folder(run) / "result.json").is_file()
    }


def _command(name: str, recipe: YamlConfig, file: Path, out: Path) -> str:
    write_atomically(file, recipe.to_yaml().encode())
    return shlex.join(["selfdistill", name, "--recipe", str(file), "--out", str(out)])
