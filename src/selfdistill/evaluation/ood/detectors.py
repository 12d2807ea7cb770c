"""The OOD detectors of one network, fitted and with a threshold each; `detectors.npz` beside a run's record."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats
from selfdistill.evaluation.ood.mahalanobis import Mahalanobis, fit_mahalanobis
from selfdistill.evaluation.ood.metrics import threshold_at_tpr
from selfdistill.evaluation.ood.neighbours import NearestNeighbours, fit_neighbours
from selfdistill.evaluation.ood.scores import energy, max_softmax
from selfdistill.files import open_file, write_atomically
from selfdistill.records.predictions import DAMAGED

if TYPE_CHECKING:
    from torch import Tensor

DETECTORS = "detectors.npz"

Detector = Literal["energy", "max_softmax", "mahalanobis", "knn"]
OF_FEATURES: tuple[Detector, ...] = ("mahalanobis", "knn")
"""These read the features before the head and are fitted to training images."""

_OF_LOGITS = {"energy": energy, "max_softmax": max_softmax}


@dataclass(frozen=True, eq=False)
class Detectors:
    """Fitted detectors.

    Attributes:
        mahalanobis: None where there were no training images.
        neighbours: likewise.
        thresholds: of each detector, the score that 95 % of the validation images reach.
    """

    mahalanobis: Mahalanobis | None = None
    neighbours: NearestNeighbours | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def scores(
        self, detector: Detector, logits: Tensor | npt.ArrayLike, features: Tensor | npt.ArrayLike | None = None
    ) -> Floats:
        """The scores of images by a detector, higher for known images.

        Args:
            detector: one that is fitted.
            logits: (N, C).
            features: (N, D), of the detectors of features.

        Raises:
            ValueError: a shape does not fit, or a value is not finite.
        """
        if detector in _OF_LOGITS:
            return _OF_LOGITS[detector](logits)
        fitted = self.mahalanobis if detector == "mahalanobis" else self.neighbours
        assert fitted is not None
        assert features is not None
        return fitted.scores(features)

    def save(self, run: Path) -> None:
        """Write them into a run's folder, whole or not at all."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {}
        if self.mahalanobis is not None and self.neighbours is not None:
            one, other = self.mahalanobis, self.neighbours
            arrays = {"centre": one.centre, "whitening": one.whitening, "means": one.means, "k": np.array(other.k)}
            arrays["directions"] = other.directions.astype(np.float32)
        np.savez(content, names=np.array(list(self.thresholds)), at=np.array(list(self.thresholds.values())), **arrays)
        write_atomically(run / DETECTORS, content.getvalue())

    @classmethod
    def load(cls, run: Path) -> Self | None:
        """Read those of a run's folder; None where there are none, or they are damaged."""
        try:
            with open_file(run / DETECTORS) as file, np.load(file, allow_pickle=False) as arrays:
                thresholds = dict(zip(arrays["names"].tolist(), arrays["at"].astype(np.float64).tolist(), strict=True))
                if "directions" not in arrays:
                    return cls(thresholds=thresholds)
                centre, whitening, means, directions = (
                    arrays[name].astype(np.float64) for name in ("centre", "whitening", "means", "directions")
                )
                if len({len(centre), len(whitening), directions.shape[1]}) > 1 or means.shape[1] != whitening.shape[1]:
                    return None
                neighbours = NearestNeighbours(directions, min(max(int(arrays["k"]), 1), len(directions)))
                return cls(Mahalanobis(centre, whitening, means), neighbours, thresholds)
        except DAMAGED:
            return None


def fit_detectors(
    logits: Tensor | npt.ArrayLike,
    features: Tensor | npt.ArrayLike | None = None,
    training: tuple[Tensor, Tensor] | None = None,
) -> Detectors:
    """Fit the detectors of features to training images, and find each one's threshold on validation images.

    A neighbour of rank k = N / (10 C), at most 50, is one of an image's own class also in small sets.

    Args:
        logits: of validation images, (N, C).
        features: of the same, (N, D).
        training: features (M, D) and labels (M,) of training images; without them, the detectors of logits alone.

    Raises:
        ValueError: a shape does not fit, a value is not finite, or no training feature varies within a class.

    Example:
        >>> fit_detectors([[0.0, float(z)] for z in range(20)]).thresholds["energy"]
        1.3132616875182228
    """
    fitted = Detectors()
    if training is not None:
        of_training, labels = training
        k = max(1, min(50, len(labels) // (10 * len(labels.unique()))))
        fitted = Detectors(fit_mahalanobis(of_training, labels), fit_neighbours(of_training, k))
    names: tuple[Detector, ...] = ("energy", "max_softmax", *(OF_FEATURES if training is not None else ()))
    thresholds: dict[str, float] = {name: threshold_at_tpr(fitted.scores(name, logits, features)) for name in names}
    return replace(fitted, thresholds=thresholds)
