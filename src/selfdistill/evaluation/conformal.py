"""Split-conformal prediction sets: they hold the right class as often as asked for, however wrong the network is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from selfdistill.evaluation.arrays import Floats, as_floats, checked_probabilities

if TYPE_CHECKING:
    from torch import Tensor

Score = Literal["thr", "aps", "raps"]

_PENALTY, _FREE = 0.01, 5  # of RAPS: from the sixth class on; the paper's lambda and k for small sets


@dataclass(frozen=True)
class Conformal:
    """Which classes are in a set.

    Attributes:
        score: how much a class does not conform.
        threshold: classes of at most this are in the set.
    """

    score: Score
    threshold: float

    def sets(self, probabilities: Tensor | npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each class is in the set of each image. (N, C) -> (N, C).

        Raises:
            ValueError: a row is not a probability vector.

        Example:
            >>> Conformal("thr", 0.75).sets([[0.6, 0.3, 0.1]])
            array([[ True,  True, False]])
        """
        return np.asarray(nonconformity(probabilities, self.score) <= self.threshold)


def fit_conformal(
    probabilities: Tensor | npt.ArrayLike, labels: Tensor | npt.ArrayLike, coverage: float, score: Score = "thr"
) -> Conformal:
    """The ceil((N + 1) * coverage)-th smallest score of the right classes of N held-out images is the threshold.

    An image of the same kind then has its class in its set with a probability of at least `coverage` and, without ties,
    at most coverage + 1 / (N + 1): over the draw of all N + 1, whatever the network says.

    Args:
        probabilities: of held-out images, (N, C).
        labels: y, class indices, (N,).
        coverage: in (0, 1).
        score: see `nonconformity`.

    Raises:
        ValueError: a shape does not fit, `coverage` or `score` is none, or N < coverage / (1 - coverage), where every
            set would have to hold all classes.

    Example:
        >>> fit_conformal([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 0, 0], coverage=0.5, score="thr")
        Conformal(score='thr', threshold=0.19999999999999996)

    Source: Vovk et al., Algorithmic Learning in a Random World, 2005; Angelopoulos and Bates, A Gentle Introduction to
    Conformal Prediction, 2021.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: {coverage}, expected a share between 0 and 1")
    p, y = checked_probabilities(probabilities, labels)
    scores = np.sort(nonconformity(p, score)[np.arange(len(y)), y])
    at = math.ceil((len(y) + 1) * coverage * (1 - 1e-12))  # 20 * 0.95 shall be 19
    if at > len(y):
        least = math.ceil(coverage / (1 - coverage) * (1 - 1e-12))
        raise ValueError(f"coverage: {coverage:g} takes at least {least:,} images, not {len(y):,}: give more of them")
    return Conformal(score, float(scores[at - 1]))


def nonconformity(probabilities: Tensor | npt.ArrayLike, score: Score) -> Floats:
    """How little each class c fits each image, by its probability p_c and its rank r_c = 1, 2, ... (N, C) -> (N, C).

    thr: 1 - p_c; the smallest sets on average, some of them empty.
    aps: the sum of p over the classes of rank <= r_c; sets that are as likely to hold the class of a hard image.
    raps: aps + 0.01 * max(0, r_c - 5); without aps's long tails of unlikely classes.

    The last two are not randomised, so that an image always has the same set; the price is that the sets of a network
    that is right more often than `coverage` are large, since its scores crowd at 1.

    Args:
        probabilities: p, (N, C); of equal ones the first class has the lower rank.
        score: "thr", "aps" or "raps".

    Raises:
        ValueError: a row is not a probability vector, or another score.

    Example:
        >>> [nonconformity([[0.25, 0.5, 0.25]], score).tolist() for score in ("thr", "aps")]
        [[[0.75, 0.5, 0.75]], [[0.75, 0.5, 1.0]]]

    Source: thr: Sadinle et al., Least Ambiguous Set-Valued Classifiers, 2019; aps: Romano et al., Classification with
    Valid and Adaptive Coverage, 2020; raps: Angelopoulos et al., Uncertainty Sets for Image Classifiers, 2021.
    """
    if score not in get_args(Score):
        raise ValueError(f"score: {score!r}, expected one of {', '.join(get_args(Score))}")
    p = as_floats(probabilities)
    p, _ = checked_probabilities(p, np.zeros(len(p)))
    if score == "thr":
        return 1 - p
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1)
    if score == "raps":
        ranked += _PENALTY * np.maximum(0, np.arange(1, p.shape[1] + 1) - _FREE)
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, ranked, axis=1)
    return scores
