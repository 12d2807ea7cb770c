"""The paper's regime: networks fit their training images, and cross-entropy is over-confident.

Outside it every regulariser loses, and the numbers say nothing about the paper.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from selfdistill.paper.scales import DATASETS, PaperConfig, Training
from selfdistill.paper.tables import SD_DROPOUT, PaperTable
from selfdistill.records import RunRecord
from selfdistill.train.record import optimiser_steps

MIN_TRAIN_TOP1, MIN_GAP, MAX_TRAIN_CE = 0.99, 0.1, 0.5
"""The first two bound cross-entropy's networks, the last SD-Dropout's; the paper's have 1, 0.12 and 0.126."""

NETWORK_NAMES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "densenet121": "DenseNet-121",
    "resnet18_byot224": "ResNet-18 with BYOT's stem",
    "resnet152": "ResNet-152",
}
"""The paper's networks by the names it prints."""


class Fit(NamedTuple):
    """How the networks of one method fit their training images, means over seeds.

    Attributes:
        train_top1: accuracy on the training images after the last epoch, in evaluation mode.
        train_ce: the cross-entropy of the clean logits over the steps of the last epoch, in training mode.
        gap: mean confidence minus accuracy on the test images.
    """

    train_top1: float
    train_ce: float
    gap: float


@dataclass(frozen=True)
class Regime:
    """How two methods fit one dataset with one network.

    Attributes:
        networks: dataset and network, such as "CIFAR-100, ResNet-18".
        steps: optimiser steps per run.
        cross_entropy: the fit of `CrossEntropy()`.
        sd_dropout: the fit of `SDDropout()`.
    """

    networks: str
    steps: int
    cross_entropy: Fit
    sd_dropout: Fit

    @property
    def is_papers(self) -> bool:
        """Whether the networks are in the paper's regime."""
        return (
            self.cross_entropy.train_top1 > MIN_TRAIN_TOP1
            and self.cross_entropy.gap > MIN_GAP
            and self.sd_dropout.train_ce < MAX_TRAIN_CE
        )


def table_regimes(table: PaperTable, config: PaperConfig) -> tuple[Regime, ...]:
    """Return the regime of each dataset and network of a table for which both methods have a finished run."""
    trainings = dict.fromkeys(replace(training, method=SD_DROPOUT) for training in table.trainings)
    regimes = (_regime(training, config, table.seeds(config)) for training in trainings)
    return tuple(regime for regime in regimes if regime is not None)


def _regime(training: Training, config: PaperConfig, seeds: Sequence[int]) -> Regime | None:
    plain = _load_records(replace(training, method="CrossEntropy()"), config, seeds)
    distilled = _load_records(training, config, seeds)
    if not plain or not distilled:
        return None
    layers = "" if training.head_layers == 1 else f" with {training.head_layers} fully connected layers"
    networks = f"{DATASETS[training.data]}, {NETWORK_NAMES[training.network]}{layers}"
    return Regime(networks, optimiser_steps(plain[0]), _fit(plain), _fit(distilled))


def _load_records(training: Training, config: PaperConfig, seeds: Sequence[int]) -> list[RunRecord]:
    files = (config.runs / config.plan_run(training, seed).name / "result.json" for seed in seeds)
    return [RunRecord.load(file) for file in files if file.is_file()]


def _fit(records: Sequence[RunRecord]) -> Fit:
    return Fit(
        statistics.fmean(record.evaluation.train_top1 or 0.0 for record in records),
        statistics.fmean(record.log[-1].terms["ce"] or 0.0 for record in records),
        statistics.fmean(record.evaluation.gap for record in records),
    )
