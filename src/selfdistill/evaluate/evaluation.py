"""`Evaluation`: everything that was measured of one network on one test set, frozen, whole to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfdistill.evaluate.accuracy import (
    brier_score,
    negative_log_likelihood,
    rank_of_label,
    softmax,
    top_k_accuracy,
)
from selfdistill.evaluate.arrays import checked_logits
from selfdistill.evaluate.calibration import (
    Reliability,
    adaptive_calibration_error,
    calibration_gap,
    reliability,
)
from selfdistill.evaluate.corruptions import CorruptionAccuracy
from selfdistill.evaluate.ood.measure import OODResult
from selfdistill.evaluate.robustness import Robustness
from selfdistill.evaluate.selective import RiskCoverage, risk_coverage
from selfdistill.evaluate.temperature import Scaled, temperature_scaling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one trained model on one test set. Every rate is a fraction.

    Attributes:
        n: test images.
        top1: share of test images whose predicted class is right.
        top5: share whose class is among the five likeliest; None if there are fewer than six classes.
        nll: mean negative log-likelihood, nats.
        brier: Brier score, in [0, 2].
        ece: expected calibration error (Eq. 12) over `bins` bins.
        bins: number of bins of `ece`, `adaptive_ece` and `reliability`.
        confidence: mean of the largest probability.
        gap: `confidence` minus `top1`: above 0 over-confident, below 0 under-confident.
        reliability: the diagram's numbers.
        per_class: accuracy of each class; None for a class without a test image.
        train_n: training images that were scored, without augmentation and in eval mode; None if none were.
        train_top1: accuracy on them: near 1 says that the network has fitted its training set.
        adaptive_ece: the calibration error over bins of equally many images.
        scaled: what temperature scaling makes of the same logits, for reference; None for a single image.
        selective: error rate by the share of images that are answered, the surest first.
        robustness: accuracy under FGSM and PGD; None where it was not measured, as the next.
        shift: accuracy under corruption.
        ood: one entry for each out-of-distribution set.
        omitted: a line for each measure that was asked for and could not be taken.
    """

    n: int
    top1: float
    top5: float | None
    nll: float
    brier: float
    ece: float
    bins: int
    confidence: float
    gap: float
    reliability: Reliability
    per_class: tuple[float | None, ...]
    train_n: int | None = None
    train_top1: float | None = None
    adaptive_ece: float | None = None
    scaled: Scaled | None = None
    selective: RiskCoverage | None = None
    robustness: Robustness | None = None
    shift: CorruptionAccuracy | None = None
    ood: tuple[OODResult, ...] = ()
    omitted: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        parts: dict[str, Any] = {
            name: None if (part := getattr(self, name)) is None else part.to_dict() for name in _PARTS
        }
        lists = {
            "per_class": list(self.per_class),
            "ood": [detection.to_dict() for detection in self.ood],
            "omitted": list(self.omitted),
        }
        return {name: (parts | lists).get(name, getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`, exactly; what an older record does not have is not measured."""
        parts = {
            name: None if values.get(name) is None else kind.from_dict(values[name]) for name, kind in _PARTS.items()
        }
        lists = {
            "per_class": tuple(values["per_class"]),
            "ood": tuple(OODResult.from_dict(detection) for detection in values.get("ood", ())),
            "omitted": tuple(values.get("omitted", ())),
        }
        return cls(**(dict(values) | parts | lists))


_PARTS: dict[str, Any] = {
    "reliability": Reliability,
    "scaled": Scaled,
    "selective": RiskCoverage,
    "robustness": Robustness,
    "shift": CorruptionAccuracy,
}


def score(
    logits: Tensor, labels: Tensor, *, bins: int = 10, train_n: int | None = None, train_top1: float | None = None
) -> Evaluation:
    """The `Evaluation` of logits (N, C) and labels (N,) at hand; the last two arguments are stored as given.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, a label is not a class, or bins < 1.

    Example:
        >>> import torch
        >>> score(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])).top1
        0.5
    """
    z, y = checked_logits(logits, labels)
    p = softmax(z)
    right = rank_of_label(z, y) == 1
    diagram = reliability(p, y, bins)
    return Evaluation(
        n=len(y),
        top1=float(right.mean()),
        top5=top_k_accuracy(z, y, 5) if z.shape[1] > 5 else None,
        nll=negative_log_likelihood(z, y),
        brier=brier_score(p, y),
        ece=diagram.expected_calibration_error,
        bins=bins,
        confidence=float(p.max(axis=1).mean()),
        gap=calibration_gap(p, y),
        reliability=diagram,
        per_class=tuple(float(right[y == c].mean()) if (y == c).any() else None for c in range(z.shape[1])),
        train_n=train_n,
        train_top1=train_top1,
        adaptive_ece=adaptive_calibration_error(p, y, bins),
        scaled=temperature_scaling(z, y, bins=bins) if len(y) > 1 else None,
        selective=risk_coverage(p.max(axis=1), right),
    )
