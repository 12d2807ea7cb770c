"""The record of an ensemble: the networks of a method's seeds, whose posteriors are averaged."""

from selfdistill.records.evaluation import Evaluation
from selfdistill.records.record import JsonRecord


class EnsembleRecord(JsonRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the mean of several networks' posteriors reaches on the test images.

    Attributes:
        method: of the networks.
        seeds: of the networks.
        evaluation: of the mean posterior.
    """

    method: str
    seeds: tuple[int, ...]
    evaluation: Evaluation
