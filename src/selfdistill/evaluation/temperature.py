"""Temperature scaling: how well would a network be calibrated if one number, fitted afterwards, divided its logits?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.accuracy import negative_log_likelihood, softmax
from selfdistill.evaluation.arrays import checked_logits
from selfdistill.evaluation.calibration import calibration_gap, expected_calibration_error
from selfdistill.records.evaluation import Scaled

if TYPE_CHECKING:
    from torch import Tensor

LOWEST, HIGHEST = 0.01, 100.0
"""The range of a fitted temperature."""


def fit_temperature(logits: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike) -> float:
    """argmin over T in [0.01, 100] of mean_i -log softmax(z_i / T)_{y_i}, in float64.

    In b = 1 / T this is convex, with slope mean_i (sum_c softmax(b z_i)_c z_ic - z_{i,y_i}); T is where the slope is 0.
    Where every label has the largest logit, the likelihood only rises with b, and T is 0.01; where the logits tell no
    more about the labels than chance, T is 100; where no T makes a difference (each row's logits all equal, as in a
    collapsed network), T is 1. A class that is masked with -inf adds 0 to the sum; a row of which it is the label is as
    unlikely at every T, and left out.

    Args:
        logits: z, (N, C).
        labels: y, class indices, (N,).

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or a label is not a class.

    Example:
        >>> z = [[3.0, 0.0]] * 4  # 95 % sure, and right in 3 of 4
        >>> round(fit_temperature(z, [0, 0, 0, 1]) * math.log(3), 6)
        3.0

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    from scipy.optimize import brentq  # here, so that the other metrics need numpy alone

    z, y = checked_logits(logits, labels)
    z = z - z.max(axis=1, keepdims=True)
    label = z[np.arange(len(z)), y]
    z, label = z[label > -np.inf], label[label > -np.inf]
    if not len(z):
        return 1.0
    finite = np.where(z > -np.inf, z, 0)

    def slope(log_b: float) -> float:
        e = np.exp(math.exp(log_b) * z)
        return float(((e * finite).sum(axis=1) / e.sum(axis=1) - label).mean())

    first, last = -math.log(HIGHEST), -math.log(LOWEST)
    at_first, at_last = slope(first), slope(last)
    if at_first == at_last == 0:
        return 1.0
    if at_first >= 0:
        return HIGHEST
    if at_last <= 0:
        return LOWEST
    return math.exp(-brentq(slope, first, last, xtol=1e-12))


def temperature_scaling(logits: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, *, bins: int = 10) -> Scaled:
    """NLL, ECE and gap of softmax(z_i / T_i), T_i = `fit_temperature` of the half that image i is not in.

    The halves are the even and the odd positions, so no image has a say in its own temperature and no image is lost;
    images in another order are halved otherwise, and their numbers differ a little. It is the reference for a method
    that claims better calibration: what scaled cross-entropy reaches too, one number buys.

    Args:
        logits: z, (N, C), N >= 2.
        labels: y, class indices, (N,).
        bins: M of the ECE, >= 1.

    Raises:
        ValueError: fewer than 2 rows, a shape does not fit, a logit is not finite, a label is not a class, or bins < 1.

    Example:
        >>> z = [[3.0, 0.0]] * 8
        >>> scaled = temperature_scaling(z, [0, 0, 0, 0, 0, 0, 1, 1])
        >>> round(scaled.ece, 6), round(expected_calibration_error(softmax(z), [0, 0, 0, 0, 0, 0, 1, 1]), 6)
        (0.0, 0.202574)

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    z, y = checked_logits(logits, labels)
    if len(z) < 2:
        raise ValueError("logits: 1 row, expected at least 2; a temperature is fitted on one half and scores the other")
    even, odd = fit_temperature(z[::2], y[::2]), fit_temperature(z[1::2], y[1::2])
    scaled = z.copy()
    scaled[::2] /= odd
    scaled[1::2] /= even
    p = softmax(scaled)
    return Scaled(
        temperatures=(even, odd),
        n=len(y),
        nll=negative_log_likelihood(scaled, y),
        ece=expected_calibration_error(p, y, bins),
        gap=calibration_gap(p, y),
        bins=bins,
    )
