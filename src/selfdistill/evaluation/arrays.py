"""Tensors or numpy arrays in, checked float64 numpy arrays out: what every metric in this package starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.errors import NonFiniteError

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
    """Logits (N, C) and labels (N,) that belong together; a class may be masked with a logit of -inf.

    Raises:
        ValueError: a shape does not fit, a logit is not finite (-inf excepted), or a label is not a class.

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

    Rows that were rounded to half precision, whatever type holds them now, may be four of its steps off, which is 3 %
    in bfloat16 and 0.4 % in float16, and are divided by their sums.

    Raises:
        ValueError: a shape does not fit, a row is not a probability vector, or a label is not a class.

    Example:
        >>> checked_probabilities([[0.25, 0.75]], [1])[0]
        array([[0.25, 0.75]])
    """
    p = as_floats(probabilities)
    y = _checked_labels(p, labels, "probabilities")
    # NaN fails both comparisons, so it is caught here too.
    step = _half_precision_step(p)
    good = (p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= max(1e-3, 4 * step))
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"probabilities: row {row} is not a probability vector (smallest {p[row].min():.4g}, sum "
            f"{p[row].sum():.4g}); pass softmaxed values, not logits"
        )
    return (p / p.sum(axis=1, keepdims=True) if step else p), y


def _half_precision_step(values: Floats) -> float:
    """2^-7 if all values are bfloat16's, 2^-10 if they are float16's, otherwise 0."""
    single = values.astype(np.float32)
    bits = single.view(np.uint32)  # of which bfloat16 has the upper 16, and float16's fraction ends above the lower 13
    if (single != values).any() or (bits & 0x1FFF).any():
        return 0.0
    return 2.0**-10 if (bits & 0xFFFF).any() else 2.0**-7


def _check_shape(values: Floats, name: str) -> None:
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] < 2:
        raise ValueError(f"{name}: shape {values.shape}, expected (N, C) with N >= 1 and C >= 2")


def _check_finite(z: Floats) -> None:
    bad = int((~np.isfinite(z.max(axis=1))).sum())  # NaN, +inf, or nothing but -inf, which masks a class
    if bad:
        raise NonFiniteError(
            f"logits: {bad} of {len(z)} rows are not finite; the model diverged, check its training loss"
        )


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
