"""Whether networks are in the paper's regime: they fit their training images, and cross-entropy is over-confident.

Elsewhere every regulariser loses, and what is measured says nothing about the paper.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from selfdistill.paper.scales import SETS, Setting, Training
from selfdistill.paper.tables import SD_DROPOUT, PaperTable
from selfdistill.records import RunRecord
from selfdistill.train.record import optimiser_steps

LEAST_TRAIN_TOP1, LEAST_GAP, MOST_TRAIN_CE = 0.99, 0.1, 0.5
"""Of cross-entropy's networks the first two, of SD-Dropout's the last; the paper's have 1, .12 and .126."""

NETWORKS = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "densenet121": "DenseNet-121",
    "resnet18_byot224": "ResNet-18 with BYOT's stem",
    "resnet152": "ResNet-152",
}
"""The paper's networks as it calls them."""


class Fit(NamedTuple):
    """How networks of one method fit, means over seeds.

    Attributes:
        train_top1: share of the training images that are right after the last epoch, in evaluation mode.
        train_ce: the cross-entropy of the clean logits over the steps of the last epoch, in training mode.
        gap: mean confidence minus accuracy on the test images.
    """

    train_top1: float
    train_ce: float
    gap: float


@dataclass(frozen=True)
class Regime:
    """What the runs of one data set and network are like.

    Attributes:
        networks: which, such as "CIFAR-100, ResNet-18".
        steps: optimiser steps of a run.
        cross_entropy: the fit of `CrossEntropy()`.
        sd_dropout: the fit of `SDDropout()`.
    """

    networks: str
    steps: int
    cross_entropy: Fit
    sd_dropout: Fit

    @property
    def is_papers(self) -> bool:
        """Whether the networks are where the paper's are."""
        return (
            self.cross_entropy.train_top1 > LEAST_TRAIN_TOP1
            and self.cross_entropy.gap > LEAST_GAP
            and self.sd_dropout.train_ce < MOST_TRAIN_CE
        )


def regimes_of(table: PaperTable, setting: Setting) -> tuple[Regime, ...]:
    """Return the regime of each data set and network of a table of which both methods have a finished run."""
    alone = dict.fromkeys(replace(training, method=SD_DROPOUT) for training in table.trainings)
    regimes = (_regime(training, setting, table.seeds(setting)) for training in alone)
    return tuple(regime for regime in regimes if regime is not None)


def _regime(training: Training, setting: Setting, seeds: Sequence[int]) -> Regime | None:
    plain = _records(replace(training, method="CrossEntropy()"), setting, seeds)
    distilled = _records(training, setting, seeds)
    if not plain or not distilled:
        return None
    layers = "" if training.head_layers == 1 else f" with {training.head_layers} fully connected layers"
    networks = f"{SETS[training.data]}, {NETWORKS[training.network]}{layers}"
    return Regime(networks, optimiser_steps(plain[0]), _fit(plain), _fit(distilled))


def _records(training: Training, setting: Setting, seeds: Sequence[int]) -> list[RunRecord]:
    files = (setting.runs / setting.cell(training, seed).name / "result.json" for seed in seeds)
    return [RunRecord.load(file) for file in files if file.is_file()]


def _fit(records: Sequence[RunRecord]) -> Fit:
    return Fit(
        statistics.fmean(record.evaluation["train_top1"] for record in records),
        statistics.fmean(record.log[-1]["ce"] for record in records),
        statistics.fmean(record.evaluation["gap"] for record in records),
    )
