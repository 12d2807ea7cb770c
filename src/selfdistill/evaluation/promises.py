"""Do the promises made on validation images hold on test images? Abstention and prediction sets. Numpy and scipy."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from selfdistill.evaluation.accuracy import softmax
from selfdistill.evaluation.conformal import Score, fit_conformal
from selfdistill.evaluation.selective import abstention_threshold
from selfdistill.evaluation.temperature import fit_temperature
from selfdistill.records.predictions import Predictions


@dataclass(frozen=True)
class Promises:
    """What was promised on validation images, and what came of it on test images.

    Attributes:
        n_val: validation images.
        n: test images.
        risk: the error rate that was allowed among the answered images.
        answered: share of the test images that are answered; None where no threshold allows the promise.
        error: error rate among these; None where none is answered.
        coverage: how often a prediction set was to hold the right class.
        covered: how often it does.
        size: mean number of classes in a set.
        empty: share of the sets without a class.
    """

    n_val: int
    n: int
    risk: float
    answered: float | None
    error: float | None
    coverage: float
    covered: float
    size: float
    empty: float

    @property
    def usual(self) -> tuple[float, float]:
        """Between which shares `covered` comes out in 95 % of the draws of both sets, without ties.

        With N validation images and k = ceil((N + 1) coverage), the number of covered ones among n test images is
        beta-binomial with parameters k and N + 1 - k.

        Example:
            >>> Promises(999, 1000, 0.05, None, None, 0.9, 0.9, 1.0, 0.0).usual
            (0.873, 0.925)
        """
        from scipy.stats import betabinom

        k = math.ceil((self.n_val + 1) * self.coverage * (1 - 1e-12))
        low, high = betabinom.ppf([0.025, 0.975], self.n, k, self.n_val + 1 - k) / self.n
        return float(low), float(high)


def check_promises(
    validation: Predictions, test: Predictions, *, risk: float = 0.05, coverage: float = 0.9, sets: Score = "thr"
) -> Promises:
    """Find temperature, threshold and sets on validation images, as ``predict`` does, and try them on test images.

    Args:
        validation: a network's outputs on validation images.
        test: the same network's on test images.
        risk: see `selfdistill.evaluation.selective.abstention_threshold`.
        coverage: see `selfdistill.evaluation.conformal.fit_conformal`.
        sets: how the sets are made.

    Raises:
        ValueError: too few validation images for such a coverage, or other classes.

    Example:
        >>> z = np.array([[4.0, 0.0], [0.0, 4.0]] * 100, np.float32)
        >>> outputs = Predictions(z, np.array([0, 1] * 100), ("a", "b"))
        >>> found = check_promises(outputs, outputs)
        >>> found.answered, found.error, found.covered, found.size
        (1.0, 0.0, 1.0, 1.0)
    """
    if validation.classes != test.classes:
        raise ValueError(f"test: of {len(test.classes)} other classes than the validation images")
    temperature = fit_temperature(validation.logits, validation.labels)
    p_val, p = (softmax(one.logits / temperature) for one in (validation, test))
    inside = fit_conformal(p_val, validation.labels, coverage, sets).sets(p)
    answered = error = None
    with suppress(ValueError):  # no threshold has such a bound
        found = abstention_threshold(p_val.max(axis=1), validation.predicted == validation.labels, risk)
        sure = p.max(axis=1) >= found.threshold
        answered = float(sure.mean())
        error = float((test.predicted != test.labels)[sure].mean()) if sure.any() else None
    sizes = inside.sum(axis=1)
    return Promises(
        n_val=len(validation.labels),
        n=len(test.labels),
        risk=risk,
        answered=answered,
        error=error,
        coverage=coverage,
        covered=float(inside[np.arange(len(inside)), test.labels].mean()),
        size=float(sizes.mean()),
        empty=float((sizes == 0).mean()),
    )
