"""What to make of a network's outputs: its class, "not sure" or "unknown", and the classes that it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from selfdistill.errors import ArgumentError, blaming, check_range
from selfdistill.evaluation.accuracy import softmax
from selfdistill.evaluation.arrays import Floats, as_floats
from selfdistill.evaluation.conformal import Conformal, Score, fit_conformal
from selfdistill.evaluation.ood.detectors import OF_FEATURES, OF_HEAD, Detector, Detectors, fit_detectors
from selfdistill.evaluation.selective import Abstention, abstention_threshold
from selfdistill.records import VALIDATION, Predictions

NOT_SURE, UNKNOWN = "not sure", "unknown"


@dataclass(frozen=True)
class Rules:
    """How to decide; with nothing, always for the likeliest class.

    Attributes:
        abstain: the error rate that is allowed among the answered images, in (0, 1): see
            `selfdistill.evaluation.selective.abstention_threshold`.
        ood: the detector that stops unknown images: those below the score that 95 % of the validation images reach.
        conformal: how often a prediction set shall hold the right class, in (0, 1).
        sets: how the sets are made, see `selfdistill.evaluation.conformal.nonconformity`.

    Raises:
        ArgumentError: a number out of range, or ``sets`` without ``conformal``.
    """

    abstain: float | None = None
    ood: Detector | None = None
    conformal: float | None = None
    sets: Score = "thr"

    def __post_init__(self) -> None:
        """Check everything."""
        for name in ("abstain", "conformal"):
            value = getattr(self, name)
            check_range(name, value, 1e-6, 1 - 1e-6)
        if self.sets != "thr" and self.conformal is None:
            raise ArgumentError("sets", "would be ignored: it is of `conformal`, which is not given")

    @property
    def first(self) -> str | None:
        """The name of the first that is to be found on validation images; None without any."""
        return next((name for name in ("abstain", "ood", "conformal") if getattr(self, name) is not None), None)


@dataclass(frozen=True, eq=False)
class Decisions:
    """Rules with what they need of one network.

    Attributes:
        classes: their names.
        temperature: T of the probabilities softmax(z / T).
        abstention: None: it always answers.
        ood: None: it takes every image as known.
        detectors: of ``ood``.
        conformal: None: no sets.
    """

    classes: Sequence[str]
    temperature: float = 1.0
    abstention: Abstention | None = None
    ood: Detector | None = None
    detectors: Detectors | None = None
    conformal: Conformal | None = None

    @property
    def needs_features(self) -> bool:
        """Whether the outputs must hold the features before the head."""
        return self.ood in OF_FEATURES

    def probabilities(self, logits: Tensor | npt.ArrayLike) -> Floats:
        """softmax(z / T) in float64. (N, C) -> (N, C)."""
        return softmax(as_floats(logits) / self.temperature)

    def decide(self, logits: Tensor, features: Tensor | None = None) -> list[str] | None:
        """The class of each image, "not sure" or "unknown"; None where it is always the class.

        Args:
            logits: z, (N, C).
            features: (N, D), where they are needed.
        """
        if self.abstention is None and self.detectors is None:
            return None
        p = self.probabilities(logits)
        decided = [self.classes[at] for at in p.argmax(axis=1)]
        if self.abstention is not None:
            sure = p.max(axis=1) >= self.abstention.threshold
            decided = [name if one else NOT_SURE for name, one in zip(decided, sure, strict=True)]
        if self.detectors is not None and self.ood is not None:
            known = self.detectors.scores(self.ood, logits, features) >= self.detectors.thresholds[self.ood]
            decided = [name if one else UNKNOWN for name, one in zip(decided, known, strict=True)]
        return decided

    def sets(self, logits: Tensor) -> list[tuple[str, ...]] | None:
        """The classes that each image may be, the likeliest first; None where none are asked for."""
        if self.conformal is None:
            return None
        p = self.probabilities(logits)
        inside = self.conformal.sets(p)
        return [
            tuple(self.classes[at] for at in np.argsort(-row, kind="stable") if those[at])
            for row, those in zip(p, inside, strict=True)
        ]


def prepare_decisions(run: Path, classes: Sequence[str], temperature: float, rules: Rules) -> Decisions:
    """Find on a run's validation images what some rules need.

    Raises:
        ArgumentError: the run was not calibrated, or by too few images for what is asked for.
    """
    plain = Decisions(classes, temperature)
    if rules.first is None:
        return plain
    outputs = Predictions.load(run, None, VALIDATION)
    if outputs is None or len(outputs.classes) != len(classes):
        raise ArgumentError(
            rules.first,
            f"needs validation images, by which {run} is not calibrated: selfdistill calibrate {run} --data "
            "LABELLED-IMAGES, such as it was neither trained nor tested on",
        )
    p, correct = plain.probabilities(outputs.logits), outputs.predicted == outputs.labels
    abstention = conformal = detectors = None
    if rules.abstain is not None:
        with blaming("abstain"):
            abstention = abstention_threshold(p.max(axis=1), correct, rules.abstain)
    if rules.conformal is not None:
        with blaming("conformal"):
            conformal = fit_conformal(p, outputs.labels, rules.conformal, rules.sets)
    if rules.ood is not None:
        detectors = Detectors.load(run) or fit_detectors(outputs.logits)
        if rules.ood not in detectors.thresholds:
            fitted_to = "a linear head and the training images" if rules.ood in OF_HEAD else "the training images"
            raise ArgumentError(
                "ood", f"is {rules.ood}, which is fitted to {fitted_to}: run selfdistill calibrate {run} first"
            )
    return Decisions(classes, temperature, abstention, rules.ood, detectors, conformal)


def describe_decisions(decisions: Decisions, rules: Rules) -> list[str]:
    """Return what was found on the validation images, in lines."""
    said = []
    if (one := decisions.abstention) is not None:
        said.append(
            f"{NOT_SURE}: confidence below {one.threshold:.4g}; {one.coverage:.0%} of the validation images have more, "
            f"and of such at most {one.bound:.1%} are wrong, with 95 % probability"
        )
    if decisions.ood is not None and decisions.detectors is not None:
        at = decisions.detectors.thresholds[decisions.ood]
        said.append(f"{UNKNOWN}: {decisions.ood} below {at:.4g}, as of 5 % of the validation images")
    if decisions.conformal is not None:
        said.append(f"set: {decisions.conformal.score}, holds the right class in {rules.conformal:.0%} of the cases")
    return said
