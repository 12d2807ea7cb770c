"""Table 8, Fig. 4, Lemmas 1 and 2 and Proposition 1: the gradients of SD-Dropout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from torch import nn

from selfdistill.config import ResolvedTrainConfig
from selfdistill.data import ImageData
from selfdistill.evaluation.images import Images
from selfdistill.network import default_device, float64_device
from selfdistill.paper.analysis import directions, high_precision, proposition1
from selfdistill.paper.analysis.components import Weights, measure_components
from selfdistill.paper.scales import PaperConfig, Training
from selfdistill.paper.tables import SD_DROPOUT, CellMetric, CellSpec, PaperTable, RunEvaluation
from selfdistill.progress import OnProgress
from selfdistill.training import load_run, random_state
from selfdistill.training.classification import assemble
from selfdistill.training.export import read_run_weights
from selfdistill.training.run import machine
from selfdistill.training.session import make_fabric

SAMPLE = 8
"""Images for the gradients with respect to all weights, which are taken class by class."""

_RESULTS = {
    "assumptions": proposition1.Assumptions,
    "gradients": directions.Gradients,
    "lemma1": directions.Lemma1,
    "proposition1": proposition1.Proposition1,
}


@dataclass(frozen=True)
class GradientAnalysis(RunEvaluation):
    """An analysis of a run's network at some time of its training, on its test images, evenly spaced.

    Attributes:
        kind: which analysis.
        share: of the training that is done, in [0, 1]; 0 is the network before training.
        weights: what gradients are taken with respect to, if there is a choice.
    """

    kind: Literal["assumptions", "gradients", "lemma1", "proposition1"]
    share: float = 1.0
    weights: Weights = "head"

    @property
    def name(self) -> str:
        """Name of the cache file, without its suffix."""
        return f"{self.kind}-{self.weights}-{self.share:g}"

    @property
    def result_type(self) -> type[Any]:
        """What `evaluate` returns."""
        return _RESULTS[self.kind]

    def cache_key(self, config: PaperConfig) -> dict[str, Any]:
        """Return what determines the numbers."""
        return {"kind": self.kind, "share": self.share, "weights": self.weights, "sample": SAMPLE}

    def evaluate(self, run: Path, data: ImageData, config: PaperConfig, progress: OnProgress) -> object:
        """Analyse the run's network."""
        device = float64_device(default_device())
        model = load_network_at(run, data, self.share).to(device)
        images = Images(data.test, data, device, batch_size=128)
        if self.kind == "gradients":
            return directions.measure_gradients(model, images.spaced(1024))
        if self.kind == "lemma1":
            return directions.check_lemma1(model, images.spaced(256))
        images = images.spaced(SAMPLE if self.weights == "all" else 10_000)
        components = measure_components(model, images, self.weights)
        if self.kind == "assumptions":
            return proposition1.measure_assumptions(components)
        return proposition1.measure_proposition1(components)


def load_network_at(run: Path, data: ImageData, share: float) -> nn.Module:
    """Return a run's network after a share of its training, on the CPU."""
    recipe = ResolvedTrainConfig.from_yaml(run / "recipe.yaml")
    if share == 0:
        with random_state.preserved(), machine(recipe.threads):
            return assemble(recipe.resolve(data), data, make_fabric(recipe, accelerator="cpu")).task.model
    model = load_run(run).model
    epoch = max(1, round(share * recipe.epochs))
    if epoch < recipe.epochs:
        weights = run / f"model@{epoch}.safetensors"
        model.load_state_dict(read_run_weights(weights, f"delete {run} and run it again"))
    return model


@cache
def run_lemma2(config: PaperConfig) -> high_precision.Lemma2:
    """Check Lemma 2 on a grid of rho; at the scale "smoke" of fewer points."""
    return high_precision.check_lemma2(2 if config.scale == "smoke" else 50)


@cache
def run_proposition1(config: PaperConfig) -> high_precision.RandomPosteriors:
    """Check Proposition 1 on random posteriors; at the scale "smoke" on fewer of them."""
    return high_precision.check_proposition1(20 if config.scale == "smoke" else 300)


_TRAINING = Training(SD_DROPOUT)
_FIRST = 0.005  # of the epochs: the first one, of 200 and of fewer
_SHARES = {
    0.0: "Start",
    _FIRST: "First epoch",
    **{share: f"{share:.0%} of the epochs".replace("%", " %") for share in (0.25, 0.5, 0.75)},
    1.0: "End",
}


def _number(evaluation: RunEvaluation | None, *path: str | int, digits: int = 4) -> tuple[CellMetric, ...]:
    return (CellMetric(path, evaluation, unit="", digits=digits),)


def _assumptions() -> Iterator[CellSpec]:
    """Yield the cells of Table 8."""
    columns = {
        "P(Assumption 1)": ("first",),
        "r": ("r", "mean"),
        "r_1": ("r_1", "mean"),
        "r, median": ("r", "median"),
        "r_1, median": ("r_1", "median"),
        "P(r <= r_1)": ("second",),
    }
    for epoch, share in ((None, 0.0), (0, _FIRST), (100, 0.5), (200, 1.0)):
        head, whole = GradientAnalysis("assumptions", share), GradientAnalysis("assumptions", share, "all")
        for at, (column, path) in enumerate(columns.items()):
            target = None if epoch is None or at > 2 else f"table8_assumptions/epoch/{epoch}/{at}"
            yield CellSpec(f"{_SHARES[share]}, the head's weights", column, _TRAINING, _number(head, *path), target)
        for column, path in columns.items():
            row = f"{_SHARES[share]}, all weights, {SAMPLE} images"
            yield CellSpec(row, column, _TRAINING, _number(whole, *path))


def _directions() -> Iterator[CellSpec]:
    """Yield the numbers of Fig. 4."""
    columns = (("Cosine", "cosine", 4), ("L1 norm, forward", "forward", 2), ("L1 norm, reverse", "reverse", 2))
    for name, weights in (("all weights", "whole"), ("the head's weights", "head")):
        for share, when in _SHARES.items():
            for column, key, digits in columns:
                number = _number(GradientAnalysis("gradients", share), weights, key, digits=digits)
                yield CellSpec(f"{when}, {name}", column, _TRAINING, number)


def _lemma1() -> Iterator[CellSpec]:
    rows = {
        "Forward, by the logits": "forward_logits",
        "Forward, Eq. 8 as printed": "forward_weights",
        "Reverse, by the logits": "reverse_logits",
        "Reverse, Eq. 9 as printed": "reverse_weights",
        "Both = forward + reverse": "both",
    }
    for row, key in rows.items():
        yield CellSpec(row, "Largest difference", _TRAINING, _number(GradientAnalysis("lemma1"), key, digits=16))


def _lemma2() -> Iterator[CellSpec]:
    rows = {
        "Points of rho": "points",
        "with l > 0": "positive_margin",
        "with l' > 0": "positive_slope",
        "with l'' > 0": "positive_curvature",
        "Decimal digits": "digits",
    }
    for row, key in rows.items():
        yield CellSpec(row, "Count", None, _number(None, key, digits=0), check=run_lemma2)
    for at, name in enumerate(("l", "l'", "l''")):
        yield CellSpec(f"{name} at rho = 1", "Value", None, _number(None, "at_one", at, digits=3), check=run_lemma2)


def _proposition1() -> Iterator[CellSpec]:
    shares = {
        "D_i > 0": "positive",
        "Assumptions 1 and 2 hold": "assumed",
        "D_i > 0 where both hold": "positive_if_assumed",
        "D_i > 0 where Assumption 1 fails": "positive_if_first_fails",
        "D > 0 (Eq. 21), of the images": "positive_images",
    }
    for row, key in shares.items():
        yield CellSpec(row, "Share", _TRAINING, (CellMetric((key,), GradientAnalysis("proposition1")),))
    counts = {
        "Drawn components under both assumptions": "assumed",
        "of which D_i > 0": "positive_if_assumed",
        "Drawn components where Assumption 1 fails": "first_fails",
        "of these D_i > 0": "positive_if_first_fails",
    }
    for row, key in counts.items():
        yield CellSpec(row, "Count", None, _number(None, key, digits=0), check=run_proposition1)


TABLES = (
    PaperTable("table8", tuple(_assumptions())),
    PaperTable("figure4", tuple(_directions()), figure="curves"),
    PaperTable("lemma1", tuple(_lemma1())),
    PaperTable("lemma2", tuple(_lemma2())),
    PaperTable("proposition1", tuple(_proposition1())),
)
