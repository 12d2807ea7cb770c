"""Selective prediction: how often is a network wrong on the share of images of which it is surest?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, as_floats
from selfdistill.records.evaluation import RiskCoverage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Abstention:
    """When a network answers.

    Attributes:
        threshold: it answers where its confidence is at least this.
        bound: of the error rate of the answered images, a fraction.
        coverage: share of the held-out images that it answers.
    """

    threshold: float
    bound: float
    coverage: float


def aurc(confidence: Tensor | npt.ArrayLike, correct: Tensor | npt.ArrayLike) -> float:
    """Area under the risk-coverage curve: AURC = 1/N sum_k r(k), r(k) the error rate of the k surest images.

    Equal confidences give no order: r(k) is its mean over all orders of the tied images, so that the result does not
    depend on the order of the rows, and constant confidence gives the plain error rate.

    Args:
        confidence: any score that rises with trust, usually the largest probability, (N,).
        correct: whether each prediction is right, true or false, (N,).

    Returns:
        A fraction in [0, 1]; lower is better. It falls with the error rate as well as with a better order.

    Raises:
        ValueError: a shape does not fit, a confidence is not finite, or `correct` holds anything but 0 and 1.

    Example:
        >>> aurc([0.9, 0.8, 0.7, 0.6], [True, True, False, False])
        0.20833333333333331

    Source: Geifman et al., Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, 2019.
    """
    return float(selective_risk(confidence, correct).mean())


def selective_risk(confidence: Tensor | npt.ArrayLike, correct: Tensor | npt.ArrayLike) -> Floats:
    """r(k) = (errors among the k surest images) / k for k = 1..N, averaged over the orders of equal confidences.

    Where the k-th image is the j-th of g tied ones, e of them wrong, and w wrong ones come before them:
    r(k) = (w + j * e / g) / k. The last value is the error rate of all.

    Args:
        confidence: higher = surer, (N,).
        correct: whether each prediction is right, true or false, (N,).

    Raises:
        ValueError: as for `aurc`.

    Example:
        >>> selective_risk([0.9, 0.5, 0.5], [True, False, True])
        array([0.        , 0.25      , 0.33333333])
    """
    sure, right = _checked(confidence, correct)
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], 1 - right[order]
    starts = np.flatnonzero(np.concatenate([[True], sure[1:] != sure[:-1]]))
    sizes = np.diff(np.append(starts, len(sure)))
    share = np.repeat(np.add.reduceat(wrong, starts) / sizes, sizes)  # of each image: the error rate of its ties
    return np.asarray(np.cumsum(share) / np.arange(1, len(sure) + 1))


def risk_coverage(
    confidence: Tensor | npt.ArrayLike, correct: Tensor | npt.ArrayLike, points: int = 100
) -> RiskCoverage:
    """The curve (k / N, r(k)) at `points` evenly spaced k, or at every k where there are fewer images.

    Args:
        confidence: higher = surer, (N,).
        correct: whether each prediction is right, true or false, (N,).
        points: at most so many points, >= 1; the last is always the whole set.

    Raises:
        ValueError: as for `aurc`, or points < 1.

    Example:
        >>> risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, False], points=2)
        RiskCoverage(coverage=(0.5, 1.0), risk=(0.0, 0.5), aurc=0.20833333333333331, n=4)
    """
    if points < 1:
        raise ValueError(f"points: {points}, expected at least 1")
    risk = selective_risk(confidence, correct)
    n = len(risk)
    points = min(points, n)
    k = np.arange(1, points + 1) * n // points
    return RiskCoverage(tuple((k / n).tolist()), tuple(risk[k - 1].tolist()), float(risk.mean()), n)


def abstention_threshold(
    confidence: Tensor | npt.ArrayLike, correct: Tensor | npt.ArrayLike, risk: float, delta: float = 0.05
) -> Abstention:
    """The confidence from which on a network errs in at most a share `risk`, with probability 1 - delta (SGR).

    A binary search over the N confidences tries K = ceil(log2 N) thresholds. Of the m images at or above one, e are
    wrong, and with probability 1 - delta / K the error rate there is at most the exact binomial bound, the b with
    P(Binomial(m, b) <= e) = delta / K. All K bounds hold together with probability 1 - delta, so that the lowest
    threshold with a bound of at most `risk` can be chosen among them. The probability is over the draw of these images,
    which must be of the kind that the network will meet, and have no part in its training.

    Args:
        confidence: higher = surer, of held-out images, (N,).
        correct: whether each prediction is right, true or false, (N,).
        risk: the error rate that is allowed among the answered images, in (0, 1).
        delta: how often the promise may be broken, in (0, 1).

    Raises:
        ValueError: as for `aurc`, `risk` or `delta` is out of range, or no threshold has such a bound.

    Example:
        >>> abstention_threshold(np.arange(200), np.arange(200) >= 50, risk=0.1)
        Abstention(threshold=44.0, bound=0.09526415095986185, coverage=0.78)

    Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, 2017, algorithm 1.
    """
    from scipy.stats import beta  # here, so that the other metrics need numpy alone

    for name, share in (("risk", risk), ("delta", delta)):
        if not 0 < share < 1:
            raise ValueError(f"{name}: {share}, expected a share between 0 and 1")
    sure, right = _checked(confidence, correct)
    order = np.argsort(sure, kind="stable")
    sure, errors = sure[order], np.cumsum(1 - right[order][::-1])[::-1]  # of the images from each position on
    n, steps = len(sure), max(1, math.ceil(math.log2(len(sure))))
    best, low, high = None, 0, n - 1
    for _ in range(steps):
        at = (low + high) // 2
        first = int(np.searchsorted(sure, sure[at]))  # of its ties
        m, e = n - first, int(errors[first])
        bound = 1.0 if e == m else float(beta.ppf(1 - delta / steps, e + 1, m - e))
        if bound <= risk:
            best, high = Abstention(float(sure[first]), bound, m / n), max(first - 1, 0)
        else:
            low = min(at + 1, n - 1)
    if best is None:
        least = math.ceil(math.log(delta / steps) / math.log1p(-risk))
        raise ValueError(
            f"risk: {risk:g} cannot be promised by these {n:,} images, of which {right.mean():.1%} are right (it takes "
            f"at least {least:,} sure and right ones): allow more, or give more images"
        )
    return best


def _checked(confidence: Tensor | npt.ArrayLike, correct: Tensor | npt.ArrayLike) -> tuple[Floats, Floats]:
    sure, right = as_floats(confidence), as_floats(correct)
    if sure.ndim != 1 or not len(sure):
        raise ValueError(f"confidence: shape {sure.shape}, expected (N,) with N >= 1")
    if right.shape != sure.shape:
        raise ValueError(f"correct: shape {right.shape}, expected ({len(sure)},), one for each confidence")
    bad = int((~np.isfinite(sure)).sum())
    if bad:
        raise ValueError(f"confidence: {bad} of {len(sure)} are not finite; check the model's training loss")
    other = right[(right != 0) & (right != 1)]
    if len(other):
        raise ValueError(f"correct: {other[0]:g}, expected true or false for each image")
    return sure, right
