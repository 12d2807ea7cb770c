"""Out-of-distribution scores of features: the Mahalanobis distance to the nearest class, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, as_floats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """The classes' means and the covariance they share, as fitted to training features.

    Attributes:
        centre: mean of all training features, (D,).
        whitening: W with W W^T = Sigma^+, (D, R); R <= D is the rank of Sigma.
        means: W^T (mu_c - centre) of each class that has features, (C, R).
    """

    centre: Floats
    whitening: Floats
    means: Floats

    def scores(self, features: Tensor | npt.ArrayLike) -> Floats:
        """M(f) = -min_c (f - mu_c)^T Sigma^+ (f - mu_c): 0 at a class's mean, lower farther away. (N, D) -> (N,).

        Raises:
            ValueError: features are not (N, D) or not finite.

        Example:
            >>> fitted = fit_mahalanobis([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1])
            >>> fitted.scores([[0.0], [5.0], [12.0]]).round(9) + 0.0
            array([  0., -25.,  -4.])
        """
        f = checked_features(features)
        if f.shape[1] != len(self.centre):
            raise ValueError(f"features: {f.shape[1]} numbers per image, but fitted to {len(self.centre)}")
        whitened = (f - self.centre) @ self.whitening
        squares = (whitened**2).sum(axis=1)[:, None] - 2 * whitened @ self.means.T + (self.means**2).sum(axis=1)
        return np.asarray(-np.maximum(squares, 0).min(axis=1))


def fit_mahalanobis(features: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> Mahalanobis:
    """mu_c = mean of class c, Sigma = 1/N sum_i (f_i - mu_y_i)(f_i - mu_y_i)^T, one covariance for all classes.

    Sigma^+ is the pseudo-inverse: a direction in which the training features do not vary, such as a unit that never
    fires, counts for nothing. A class without features is left out.

    Args:
        features: f(x) of training images, in evaluation mode, (N, D).
        labels: y, class indices, (N,).

    Raises:
        ValueError: features are not (N, D) or not finite, labels do not fit, or no feature varies within a class.

    Example:
        >>> fit_mahalanobis([[-1.0, 0.0], [1.0, 0.0], [9.0, 0.0], [11.0, 0.0]], [0, 0, 1, 1]).whitening.shape
        (2, 1)

    Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
    2018, on the last features alone, without their input perturbation.
    """
    f, y = checked_features(features), as_floats(labels)
    if y.shape != f.shape[:1]:
        raise ValueError(f"labels: shape {y.shape}, expected ({len(f)},) class indices, one for each row of features")
    centre = f.mean(axis=0)
    f = f - centre
    classes, index = np.unique(y, return_inverse=True)
    means = np.stack([f[index == c].mean(axis=0) for c in range(len(classes))])
    residuals = f - means[index]
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(f))
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    if not kept.any():
        raise ValueError("features: none varies within a class; fit on more images per class")
    whitening = vectors[:, kept] / np.sqrt(values[kept])
    return Mahalanobis(centre, whitening, means @ whitening)


def checked_features(features: Tensor | npt.ArrayLike) -> Floats:
    """Features (N, D), float64, of tensors, arrays or maps (N, D, 1, 1).

    Raises:
        ValueError: the shape does not fit, or a feature is not finite.

    Example:
        >>> checked_features([[1, 2]])
        array([[1., 2.]])
    """
    f = as_floats(features)
    if f.ndim > 2 and f.size == f.shape[0] * f.shape[1]:  # maps (N, D, 1, 1)
        f = f.reshape(f.shape[:2])
    if f.ndim != 2 or f.size == 0:
        raise ValueError(f"features: shape {f.shape}, expected (N, D) with N, D >= 1")
    bad = int((~np.isfinite(f)).any(axis=1).sum())
    if bad:
        raise ValueError(f"features: {bad} of {len(f)} rows are not finite; check the model's training loss")
    return f
