"""Out-of-distribution scores of features: the distance to the k-th nearest training image, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats
from selfdistill.evaluation.ood.mahalanobis import checked_features

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 1024  # scored at once: of 10,000 training images, 80 MB of similarities


@dataclass(frozen=True, eq=False)
class NearestNeighbours:
    """The directions of training features.

    Attributes:
        directions: f / |f| of each training image, (N, D).
        k: which neighbour counts, 1 <= k <= N.
    """

    directions: Floats
    k: int

    def scores(self, features: Tensor | npt.ArrayLike) -> Floats:
        """-|f / |f| - g_k|, g_k the k-th nearest of the directions: in [-2, 0]. (N, D) -> (N,).

        Raises:
            ValueError: features are not (N, D) or not finite.

        Example:
            >>> fitted = fit_neighbours([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], k=2)
            >>> fitted.scores([[5.0, 0.0], [0.0, 1.0]]).round(4) + 0.0
            array([ 0.    , -1.4142])
        """
        f = _directions(features)
        if f.shape[1] != self.directions.shape[1]:
            raise ValueError(f"features: {f.shape[1]} numbers per image, but fitted to {self.directions.shape[1]}")
        at = len(self.directions) - self.k
        # Of directions |f - g|^2 = |f|^2 + |g|^2 - 2 f.g, and only a feature of 0 is not of length 1.
        lengths = (self.directions**2).sum(axis=1)
        nearest = [
            np.partition(2 * part @ self.directions.T - lengths, at, axis=1)[:, at] - (part**2).sum(axis=1)
            for part in np.split(f, range(_ROWS, len(f), _ROWS))
        ]
        return np.asarray(-np.sqrt(np.maximum(-np.concatenate(nearest), 0)))


def fit_neighbours(features: Tensor | npt.ArrayLike, k: int = 50) -> NearestNeighbours:
    """Keep the directions of training features; a feature of 0 stays 0.

    Args:
        features: f(x) of training images, in evaluation mode, (N, D).
        k: which neighbour counts, 1 <= k <= N; the paper has 50 for CIFAR-10's 5,000 images per class.

    Raises:
        ValueError: features are not (N, D) or not finite, or k is outside 1..N.

    Example:
        >>> fit_neighbours([[3.0, 4.0]], k=1).directions
        array([[0.6, 0.8]])

    Source: Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, 2022.
    """
    f = _directions(features)
    if not 1 <= k <= len(f):
        raise ValueError(f"k: {k} is outside 1..{len(f)}, the number of training images")
    return NearestNeighbours(f, k)


def _directions(features: Tensor | npt.ArrayLike) -> Floats:
    f = checked_features(features)
    lengths = np.linalg.norm(f, axis=1, keepdims=True)
    return np.asarray(f / np.where(lengths > 0, lengths, 1))
