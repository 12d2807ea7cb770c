"""The parts that look into a network: Table 8, Fig. 4, Lemma 1 and Proposition 1; and Lemma 2, which needs none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.evaluate.images import Images
from selfdistill.paper.analysis.assumptions import assumptions
from selfdistill.paper.analysis.components import Weights, measure_components
from selfdistill.paper.analysis.exact import check_proposition1
from selfdistill.paper.analysis.gradients import measure_gradients
from selfdistill.paper.analysis.lemma1 import check_lemma1
from selfdistill.paper.analysis.lemma2 import check_lemma2
from selfdistill.paper.analysis.proposition1 import proposition1
from selfdistill.train import load_run, random_state
from selfdistill.train.classification import assemble
from selfdistill.train.progress import Callback
from selfdistill.train.run import machine
from selfdistill.train.session import make_fabric

if TYPE_CHECKING:
    from selfdistill.paper.scales import Setting

Kind = Literal["assumptions", "gradients", "lemma1", "proposition1"]

SAMPLE = 8
"""Images of which the gradients with respect to all weights are taken, class by class."""


@dataclass(frozen=True)
class Analysis:
    """What is measured of a network at some time of its training, on its test images.

    Attributes:
        kind: what.
        share: of the training that is done, in [0, 1]; at 0 it is the network as it starts.
        weights: what gradients are taken with respect to, where one chooses.
    """

    kind: Kind
    share: float = 1.0
    weights: Weights = "head"

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.kind}-{self.weights}-{self.share:g}"

    def asked(self, setting: Setting) -> dict[str, Any]:
        """What decides the numbers."""
        return {"kind": self.kind, "share": self.share, "weights": self.weights, "sample": SAMPLE}

    def refusal(self, setting: Setting) -> str | None:
        """None: it is measured at every scale."""
        return None

    def check(self, setting: Setting, data: ImageData) -> None:
        """Nothing is needed besides the run's own images."""

    def measure(self, run: Path, data: ImageData, setting: Setting, progress: Callback) -> dict[str, Any]:
        """Return what was found as a dict."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = network_at(run, data, self.share).to(device)
        images = Images(data.test, data, device, batch_size=128)
        if self.kind == "gradients":
            return measure_gradients(model, images).to_dict()
        if self.kind == "lemma1":
            return check_lemma1(model, images).to_dict()
        most = SAMPLE if self.weights == "all" else None
        components = measure_components(model, images, weights=self.weights, max_images=most)
        found = assumptions(components) if self.kind == "assumptions" else proposition1(components)
        return found.to_dict()


def network_at(run: Path, data: ImageData, share: float) -> nn.Module:
    """Return a run's network when so much of the training was done, on the CPU.

    Raises:
        ValueError: the weights of that epoch were not kept.
    """
    recipe = TrainConfig.from_yaml(run / "recipe.yaml")
    if share == 0:
        with random_state.preserved(), machine(recipe.threads):
            return assemble(recipe.resolve(data), data, make_fabric(recipe, accelerator="cpu")).task.model
    model = load_run(run).model
    epoch = max(1, round(share * recipe.epochs))
    if epoch < recipe.epochs:
        weights = run / f"model@{epoch}.safetensors"
        if not weights.is_file():
            raise ValueError(f"{weights} is missing: delete {run} and run it again")
        model.load_state_dict(load_file(weights))
    return model


@dataclass(frozen=True)
class Scalar:
    """What is checked without a network: Lemma 2 over a grid of rho, or Proposition 1 on drawn posteriors."""

    kind: Literal["lemma2", "exact"]

    def found(self, setting: Setting) -> dict[str, Any]:
        """Return what was found as a dict; the grid is coarser at the scale "smoke"."""
        return _checked(self.kind, few=setting.scale == "smoke")


@cache
def _checked(kind: str, *, few: bool) -> dict[str, Any]:
    if kind == "lemma2":
        return check_lemma2(per_decade=2 if few else 50).to_dict()
    return check_proposition1(posteriors=20 if few else 300).to_dict()
