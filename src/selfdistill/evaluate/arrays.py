"""Tensors or numpy arrays in, checked float64 numpy arrays out: what every metric in this package starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def as_floats(values: Tensor | npt.ArrayLike) -> Floats:
    """`values` as a float64 numpy array on the host; half-precision tensors included.

    Example:
        >>> as_floats([[1, 2]])
        array([[1., 2.]])
    """
    detach = getattr(values, "detach", None)
    if detach is not None:  # a tensor: numpy knows no bfloat16, and an accelerator's memory is not the host's
        values = detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def checked_logits(logits: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> tuple[Floats, Integers]:
    """Logits (N, C) and labels (N,) that belong together.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or a label is not a class.

    Example:
        >>> checked_logits([[0.0, 1.0]], [1])[1]
        array([1])
    """
    z = as_floats(logits)
    y = _checked_labels(z, labels, "logits")
    _check_finite(z)
    return z, y


def unlabelled_logits(logits: Tensor | npt.ArrayLike) -> Floats:
    """Logits (N, C) alone.

    Raises:
        ValueError: the shape does not fit, or a logit is not finite.

    Example:
        >>> unlabelled_logits([[0, 1]])
        array([[0., 1.]])
    """
    z = as_floats(logits)
    _check_shape(z, "logits")
    _check_finite(z)
    return z


def checked_probabilities(
    probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike
) -> tuple[Floats, Integers]:
    """Probabilities (N, C), each row in [0, 1] and summing to 1 within 1e-3, and labels (N,).

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, or a label is not a class.

    Example:
        >>> checked_probabilities([[0.25, 0.75]], [1])[0]
        array([[0.25, 0.75]])
    """
    p = as_floats(probabilities)
    y = _checked_labels(p, labels, "probabilities")
    # NaN fails both comparisons, so it is caught here too.
    good = (p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= 1e-3)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"probabilities: row {row} is not a probability vector (smallest {p[row].min():.4g}, sum "
            f"{p[row].sum():.4g}); pass softmaxed values, not logits"
        )
    return p, y


def _check_shape(values: Floats, name: str) -> None:
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] < 2:
        raise ValueError(f"{name}: shape {values.shape}, expected (N, C) with N >= 1 and C >= 2")


def _check_finite(z: Floats) -> None:
    bad = int((~np.isfinite(z)).any(axis=1).sum())
    if bad:
        raise ValueError(f"logits: {bad} of {len(z)} rows are not finite; the model diverged, check its training loss")


def _checked_labels(values: Floats, labels: Tensor | npt.ArrayLike, name: str) -> Integers:
    _check_shape(values, name)
    floats = as_floats(labels)
    if floats.shape != values.shape[:1]:
        raise ValueError(
            f"labels: shape {floats.shape}, expected ({len(values)},) class indices, one for each row of {name}"
        )
    wrong = (floats != np.floor(floats)) | ~(floats >= 0) | ~(floats < values.shape[1])  # true of NaN as well
    if wrong.any():
        raise ValueError(f"labels: {floats[wrong][0]:g} is not a class index in 0..{values.shape[1] - 1}")
    return floats.astype(np.int64)
