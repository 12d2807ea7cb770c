"""Table 8, Fig. 4, Lemmas 1 and 2 and Proposition 1: the gradients of SD-Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from torch import nn

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.evaluate.images import Images
from selfdistill.network import default_device
from selfdistill.paper.analysis.assumptions import assumptions
from selfdistill.paper.analysis.components import Weights, measure_components
from selfdistill.paper.analysis.exact import check_proposition1
from selfdistill.paper.analysis.gradients import measure_gradients
from selfdistill.paper.analysis.lemma1 import check_lemma1
from selfdistill.paper.analysis.lemma2 import check_lemma2
from selfdistill.paper.analysis.proposition1 import proposition1
from selfdistill.paper.scales import PaperConfig, Training
from selfdistill.paper.tables import SD_DROPOUT, CellMetric, CellSpec, PaperTable, RunEvaluation
from selfdistill.train import load_run, random_state
from selfdistill.train.classification import assemble
from selfdistill.train.export import read_run_weights
from selfdistill.train.progress import Callback
from selfdistill.train.run import machine
from selfdistill.train.session import make_fabric

SAMPLE = 8
"""Images for the gradients with respect to all weights, which are taken class by class."""


@dataclass(frozen=True)
class GradientAnalysis:
    """An analysis of a run's network at some time of its training, on its test images.

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

    def cache_key(self, config: PaperConfig) -> dict[str, Any]:
        """What determines the numbers."""
        return {"kind": self.kind, "share": self.share, "weights": self.weights, "sample": SAMPLE}

    def skip_reason(self, config: PaperConfig) -> str | None:
        """None: it is part of every scale."""
        return None

    def check_data(self, config: PaperConfig, data: ImageData) -> None:
        """It needs only the run's own images."""

    def evaluate(self, run: Path, data: ImageData, config: PaperConfig, progress: Callback) -> dict[str, Any]:
        """Analyse the run's network."""
        device = default_device()
        model = load_network_at(run, data, self.share).to(device)
        images = Images(data.test, data, device, batch_size=128)
        if self.kind == "gradients":
            return measure_gradients(model, images).to_dict()
        if self.kind == "lemma1":
            return check_lemma1(model, images).to_dict()
        max_images = SAMPLE if self.weights == "all" else None
        components = measure_components(model, images, weights=self.weights, max_images=max_images)
        found = assumptions(components) if self.kind == "assumptions" else proposition1(components)
        return found.to_dict()


def load_network_at(run: Path, data: ImageData, share: float) -> nn.Module:
    """Return a run's network after a share of its training, on the CPU.

    Raises:
        ValueError: the weights of that epoch were not saved.
    """
    recipe = TrainConfig.from_yaml(run / "recipe.yaml")
    if share == 0:
        with random_state.preserved(), machine(recipe.threads):
            return assemble(recipe.resolve(data), data, make_fabric(recipe, accelerator="cpu")).task.model
    model = load_run(run).model
    epoch = max(1, round(share * recipe.epochs))
    if epoch < recipe.epochs:
        weights = run / f"model@{epoch}.safetensors"
        model.load_state_dict(read_run_weights(weights, f"delete {run} and run it again"))
    return model


@dataclass(frozen=True)
class NumericalCheck:
    """A check that needs no network: Lemma 2 on a grid of rho, or Proposition 1 on drawn posteriors."""

    kind: Literal["lemma2", "exact"]

    def run(self, config: PaperConfig) -> dict[str, Any]:
        """Return the numbers; at the scale "smoke" they are of fewer points."""
        return _check(self.kind, few=config.scale == "smoke")


@cache
def _check(kind: str, *, few: bool) -> dict[str, Any]:
    if kind == "lemma2":
        return check_lemma2(per_decade=2 if few else 50).to_dict()
    return check_proposition1(posteriors=20 if few else 300).to_dict()


_TRAINING = Training(SD_DROPOUT)
_FIRST = 0.005  # of the epochs: the first one, of 200 and of fewer
_SHARES = (0.0, _FIRST, 0.25, 0.5, 0.75, 1.0)
_AT_START = (
    "At the start BatchNorm has seen no image and normalises nothing, so that activations and gradients are those of "
    "no trained network; after the first epoch it does."
)
_MASKS = "Evaluation mode, T = 3, half of the features dropped; the masks depend on the seed 0 and the image alone."


def _number(evaluation: RunEvaluation | None, *path: str, digits: int = 4) -> tuple[CellMetric, ...]:
    return (CellMetric(path, evaluation, unit="", digits=digits),)


def _table8() -> PaperTable:
    columns = (("P(Assumption 1)", ("first",)), ("r", ("r", "mean")), ("r_1", ("r_1", "mean")))
    extra = (("r, median", ("r", "median")), ("r_1, median", ("r_1", "median")), ("P(r <= r_1)", ("second",)))
    cells = []
    for epoch, share in (("", 0.0), ("0", _FIRST), ("100", 0.5), ("200", 1.0)):
        head, whole = GradientAnalysis("assumptions", share), GradientAnalysis("assumptions", share, "all")
        row = f"{_at(share)}, the head's weights"
        for at, (column, path) in enumerate(columns):
            target = f"table8_assumptions/epoch/{epoch}/{at}" if epoch else None
            cells.append(CellSpec(row, column, _TRAINING, _number(head, *path), target))
        cells += [CellSpec(row, column, _TRAINING, _number(head, *path)) for column, path in extra]
        row = f"{_at(share)}, all weights, {SAMPLE} images"
        cells += [CellSpec(row, column, _TRAINING, _number(whole, *path)) for column, path in (*columns, *extra)]
    protocol = (
        "CIFAR-100, ResNet-18 trained with SD-Dropout, on test images. The paper does not say which network, which "
        "images and with respect to which weights: the printed numbers stand beside those of the head's weights, in "
        "closed form. Its epoch 0 is the first epoch, counted from 0: of an untrained network P(Assumption 1) is about "
        "0.91, not the printed 0.638.",
        "p and q are the two posteriors, r = |log(p_i / q_i)|, rho = |grad p_i| / |grad q_i| and r_1 = log rho + "
        "log log(rho + e - 1). Assumption 1 is rho > 1, Assumption 2 is r <= r_1.",
        "P, r and r_1 are over all classes of all images; ratios of tiny probabilities dominate a mean, so the median "
        "stands beside it. Where Assumption 1 fails r_1 is taken of 1 / rho.",
        _AT_START,
        _MASKS,
    )
    return PaperTable("table8", "Assumptions 1 and 2", tuple(cells), protocol)


def _figure4() -> PaperTable:
    columns = (("Cosine", "cosine", 4), ("L1 norm, forward", "forward", 2), ("L1 norm, reverse", "reverse", 2))
    cells = [
        CellSpec(
            f"{_at(share)}, {name}",
            column,
            _TRAINING,
            _number(GradientAnalysis("gradients", share), weights, key, digits=digits),
        )
        for name, weights in (("all weights", "whole"), ("the head's weights", "head"))
        for share in _SHARES
        for column, key, digits in columns
    ]
    protocol = (
        "CIFAR-100, ResNet-18 trained with SD-Dropout: gradients of Eq. 6 and Eq. 7 under the same two masks, batch by "
        "batch of 128 test images, without lambda and T squared. The paper prints no numbers in this figure.",
        _AT_START,
        _MASKS,
    )
    return PaperTable("figure4", "Forward and reverse gradients", tuple(cells), protocol, figure="curves")


def _lemma1() -> PaperTable:
    rows = {
        "Forward, by the logits": "forward_logits",
        "Forward, Eq. 8 as printed": "forward_weights",
        "Reverse, by the logits": "reverse_logits",
        "Reverse, Eq. 9 as printed": "reverse_weights",
        "Both = forward + reverse": "both",
    }
    cells = [
        CellSpec(row, "Largest difference", _TRAINING, _number(GradientAnalysis("lemma1"), key, digits=16))
        for row, key in rows.items()
    ]
    protocol = (
        "Lemma 1 against automatic differentiation in float64, on a trained network's features and head: the largest "
        "difference as a share of the gradient's largest cell; of several seeds the mean of these.",
        _MASKS,
    )
    return PaperTable("lemma1", "The derivatives of both directions", tuple(cells), protocol)


def _lemma2() -> PaperTable:
    check = NumericalCheck("lemma2")
    rows = {
        "Points of rho": ("points",),
        "with l > 0": ("positive_margin",),
        "with l' > 0": ("positive_slope",),
        "with l'' > 0": ("positive_curvature",),
        "Decimal digits": ("digits",),
    }
    cells = [CellSpec(row, "Count", None, _number(None, *path, digits=0), check=check) for row, path in rows.items()]
    cells += [
        CellSpec(f"{name} at rho = 1", "Value", None, (CellMetric(("at_one", at), unit="", digits=3),), check=check)
        for at, name in enumerate(("l", "l'", "l''"))
    ]
    protocol = (
        "l, l' and l'' at high precision for rho - 1 from 1e-12 to 1e6. The printed lemma has l'(1) = 1 and l(0) = "
        "0; what holds is l(1) = l'(1) = l''(1) = 0, and l' > 0 beyond. Eq. 25 as printed is not l'.",
    )
    return PaperTable("lemma2", "The functions of Proposition 1's proof", tuple(cells), protocol)


def _proposition1() -> PaperTable:
    analysis, check = GradientAnalysis("proposition1"), NumericalCheck("exact")
    rows: Sequence[tuple[str, str]] = (
        ("D_i > 0", "positive"),
        ("Assumptions 1 and 2 hold", "assumed"),
        ("D_i > 0 where both hold", "positive_if_assumed"),
        ("D_i > 0 where Assumption 1 fails", "positive_if_first_fails"),
        ("D > 0 (Eq. 21), of the images", "positive_images"),
    )
    cells = [CellSpec(row, "Share", _TRAINING, (CellMetric((key,), analysis),)) for row, key in rows]
    counts = {
        "Drawn components under both assumptions": "assumed",
        "of which D_i > 0": "positive_if_assumed",
        "Drawn components where Assumption 1 fails": "first_fails",
        "of these D_i > 0": "positive_if_first_fails",
    }
    cells += [CellSpec(row, "Count", None, _number(None, key, digits=0), check=check) for row, key in counts.items()]
    protocol = (
        "On a network trained with SD-Dropout, test images of CIFAR-100, gradients of the head: a component is one "
        "class of one image, D_i what the reverse divergence's terms exceed the forward one's by (Eq. 10), and D their "
        "sum over the classes (Eq. 21). The assumptions are Table 8's.",
        "Drawn components: pairs of posteriors with a linear head's gradients, at 60 digits.",
        _MASKS,
    )
    return PaperTable("proposition1", "Reverse against forward derivatives", tuple(cells), protocol)


def _at(share: float) -> str:
    named = {0.0: "Start", _FIRST: "First epoch", 1.0: "End"}
    return named[share] if share in named else f"{share:.0%} of the epochs".replace("%", " %")


TABLES = (_table8(), _figure4(), _lemma1(), _lemma2(), _proposition1())
