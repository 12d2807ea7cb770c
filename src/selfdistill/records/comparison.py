"""The records of what a comparison measures beside its runs: a linear probe, and the ensemble of a method's seeds."""

from pathlib import Path
from typing import Self

from selfdistill.records.evaluation import Evaluation
from selfdistill.records.record import JsonRecord, read_json, to_struct

LINEAR_PROBE = "linear_probe.json"
"""Its name, beside the runs of a comparison."""


class LinearProbeRecord(JsonRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logistic regression on the features of pretrained weights, measured on the test images.

    Attributes:
        of: names the images and the weights.
        evaluation: of its predictions.
        features: D.
        seconds: that it took, the pass over the images included.
    """

    of: str
    evaluation: Evaluation
    features: int
    seconds: float

    @classmethod
    def beside(cls, runs: Path) -> Self | None:
        """Read the one in a comparison's folder; None if there is none, or it is damaged: it is made anew."""
        path = runs / LINEAR_PROBE
        try:
            return to_struct(read_json(path, ""), cls, "", "") if path.is_file() else None
        except ValueError:
            return None


class EnsembleRecord(JsonRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the mean of the posteriors of a method's networks reaches on the test images.

    Attributes:
        method: of the networks.
        seeds: of the networks.
        evaluation: of the mean posterior.
    """

    method: str
    seeds: tuple[int, ...]
    evaluation: Evaluation
