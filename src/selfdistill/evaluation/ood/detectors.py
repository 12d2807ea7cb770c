"""The OOD detectors of one network, fitted and with a threshold each; `detectors.npz` beside a run's record."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats
from selfdistill.evaluation.ood.linear_head import LinearHead, fit_linear_head, read_linear_head
from selfdistill.evaluation.ood.mahalanobis import Mahalanobis, fit_mahalanobis
from selfdistill.evaluation.ood.metrics import threshold_at_tpr
from selfdistill.evaluation.ood.neighbours import NearestNeighbours, fit_neighbours
from selfdistill.evaluation.ood.scores import energy, max_softmax
from selfdistill.files import open_file, write_atomically
from selfdistill.records.predictions import DAMAGED

if TYPE_CHECKING:
    from torch import Tensor

    from selfdistill.evaluation.images import Reading

DETECTORS = "detectors.npz"

Detector = Literal["energy", "max_softmax", "mahalanobis", "knn", "vim", "react", "dice", "ash"]
OF_HEAD: tuple[Detector, ...] = ("vim", "react", "dice", "ash")
"""These need a linear head."""

OF_FEATURES: tuple[Detector, ...] = ("mahalanobis", "knn", *OF_HEAD)
"""These read the features before the head and are fitted to training images."""

_OF_LOGITS = {"energy": energy, "max_softmax": max_softmax}


@dataclass(frozen=True, eq=False)
class Detectors:
    """Fitted detectors.

    Attributes:
        mahalanobis: None where there were no training images.
        neighbours: likewise.
        head: likewise, or where the head is not linear.
        thresholds: of each detector, the score that 95 % of the validation images reach.
    """

    mahalanobis: Mahalanobis | None = None
    neighbours: NearestNeighbours | None = None
    head: LinearHead | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @property
    def of_features(self) -> tuple[Detector, ...]:
        """Those of `OF_FEATURES` that are fitted."""
        if self.mahalanobis is None:
            return ()
        return OF_FEATURES if self.head is not None else ("mahalanobis", "knn")

    def scores(
        self, detector: Detector, logits: Tensor | npt.ArrayLike, features: Tensor | npt.ArrayLike | None = None
    ) -> Floats:
        """The scores of images by a detector, higher for known images.

        Args:
            logits: (N, C).
            features: (N, D), of the detectors of features.

        Raises:
            ValueError: a shape does not fit, or a value is not finite.
        """
        if detector in _OF_LOGITS:
            return _OF_LOGITS[detector](logits)
        assert features is not None
        if detector in OF_HEAD:
            return np.asarray(getattr(self.head, detector)(features))
        fitted = self.mahalanobis if detector == "mahalanobis" else self.neighbours
        assert fitted is not None
        return fitted.scores(features)

    def save(self, run: Path) -> None:
        """Write them into a run's folder, whole or not at all."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {}
        if self.mahalanobis is not None and self.neighbours is not None:
            one, other = self.mahalanobis, self.neighbours
            arrays = {"centre": one.centre, "whitening": one.whitening, "means": one.means, "k": np.array(other.k)}
            arrays["directions"] = other.directions.astype(np.float32)
        if self.head is not None:
            arrays |= {f"head_{one.name}": np.array(getattr(self.head, one.name)) for one in fields(LinearHead)}
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
                return cls(Mahalanobis(centre, whitening, means), neighbours, _load_head(arrays), thresholds)
        except DAMAGED:
            return None


def fit_detectors(
    logits: Tensor | npt.ArrayLike,
    features: Tensor | npt.ArrayLike | None = None,
    training: Reading | None = None,
) -> Detectors:
    """Fit the detectors of features to training images, and find each one's threshold on validation images.

    Args:
        logits: of validation images, (N, C).
        features: of the same, (N, D).
        training: what was read of training images; without it, the detectors of logits alone.

    Raises:
        ValueError: a shape does not fit, a value is not finite, or no training feature varies within a class.

    Example:
        >>> fit_detectors([[0.0, float(z)] for z in range(20)]).thresholds["energy"]
        1.3132616875182228
    """
    fitted = Detectors() if training is None else fit_to_training(training)
    names: tuple[Detector, ...] = ("energy", "max_softmax", *fitted.of_features)
    thresholds: dict[str, float] = {name: threshold_at_tpr(fitted.scores(name, logits, features)) for name in names}
    return replace(fitted, thresholds=thresholds)


def fit_to_training(training: Reading) -> Detectors:
    """Fit the detectors of features to training images; without thresholds.

    A neighbour of rank k = N / (10 C), at most 50, is one of an image's own class also in small sets. Without those of
    the head where it is not linear, or the images are too few.

    Raises:
        ValueError: no feature varies within a class.
    """
    features, labels = training.features.flatten(1), training.labels
    k = max(1, min(50, len(labels) // (10 * len(labels.unique()))))
    head = None
    if (linear := read_linear_head(training.head, training.features)) is not None:
        with suppress(ValueError):
            head = fit_linear_head(features, *linear)
    return Detectors(fit_mahalanobis(features, labels), fit_neighbours(features, k), head)


def _load_head(arrays: Any) -> LinearHead | None:
    """Read what is kept of the head; None where nothing is, as by earlier versions.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if "head_weight" not in arrays:
        return None
    values: dict[str, Any] = {field.name: arrays[f"head_{field.name}"] for field in fields(LinearHead)}
    classes, dimensions = values["weight"].shape
    wanted = {"bias": (classes,), "kept": (classes, dimensions), "origin": (dimensions,)}
    if any(values[name].shape != shape for name, shape in wanted.items()) or len(values["residual"]) != dimensions:
        raise ValueError("the arrays of the head do not fit each other")
    return LinearHead(**values | {name: float(values[name]) for name in ("ceiling", "alpha")})
