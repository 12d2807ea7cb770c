"""The record of a search: every trial, what was chosen, and which settings mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from selfdistill.records.record import JsonRecord, read_json, to_struct

SEARCH = "search.json"
"""Its name, in the folder of a search."""

Metric = Literal["nll", "accuracy"]


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One network that was trained to be measured on the validation images.

    Attributes:
        of: the method as it was asked for.
        number: of the trial, from 0 for each method.
        method: with its settings; its repr.
        rates: the learning rates and the weight decay that were tried, by name; empty: those of the recipe.
        seed: of the training.
        state: "finished", "stopped" before its last epoch, or "failed".
        epochs: trained.
        top1, nll: on the validation images after these epochs; None of one that failed.
        seconds: of the training.
        reason: why it failed.
    """

    of: str
    number: int
    method: str
    rates: dict[str, float] = msgspec.field(default_factory=dict)
    seed: int = 0
    state: Literal["finished", "stopped", "failed"] = "finished"
    epochs: int = 0
    top1: float | None = None
    nll: float | None = None
    seconds: float = 0.0
    reason: str = ""

    def loss(self, metric: Metric) -> float:
        """What the search makes small: the NLL, or the share of wrong images."""
        value = self.nll if metric == "nll" else None if self.top1 is None else 1 - self.top1
        return float("inf") if value is None else value


class SearchRecord(JsonRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search.

    Attributes:
        metric: what was made small on the validation images.
        epochs: of a trial that is not stopped; per_method: the trials of each method.
        val_n: validation images; val_split: which they are.
        trials: in the order in which they ended.
        chosen: the baseline's best finished trial and that of all others; empty before the end.
        recipe: of all trials, resolved, but for method, seed and rates; fingerprint: of the images, see
            `selfdistill.data.fingerprint`; both are empty in records of earlier versions.
        importance: of each method's settings: the share of the differences between its trials that each one explains.
    """

    metric: Metric
    epochs: int
    per_method: int
    val_n: int
    val_split: str
    recipe: dict[str, Any] = msgspec.field(default_factory=dict)
    fingerprint: dict[str, Any] = msgspec.field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    chosen: tuple[Trial, ...] = ()
    importance: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record of a search's folder."""
        remedy = "run selfdistill tune with the same folder again"
        path = folder / SEARCH
        return to_struct(read_json(path, remedy), cls, f"{path} is damaged", remedy)
