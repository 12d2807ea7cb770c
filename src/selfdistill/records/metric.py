"""The numbers of DIRECTION that an evaluation's JSON holds deep inside; None where it was not measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, cast

_EPS = 2 / 255  # of the metrics that stand for a whole curve over eps
DETECTOR = "ODIN fixed"
"""The detector of the metrics that stand for all: its eps was chosen on nobody's images."""


def metric_of(evaluation: Mapping[str, Any], name: str) -> float | None:
    """A number of an evaluation, an `Evaluation` as a dict, by its name in DIRECTION.

    Raises:
        KeyError: no such metric.

    Example:
        >>> metric_of({"gap": -0.1, "shift": {"mca": 0.5}}, "mca"), metric_of({"gap": -0.1}, "mca")
        (0.5, None)
        >>> metric_of({"gap": -0.1}, "abs_gap")
        0.1
    """
    if name == "abs_gap":
        return None if evaluation["gap"] is None else abs(evaluation["gap"])
    if name == "adaptive_ece":
        return cast("float | None", evaluation.get(name))
    if name in _PLACES:
        part, key = _PLACES[name]
        return cast("float | None", (evaluation.get(part) or {}).get(key))
    if name in ("fgsm_2", "pgd_2"):
        return accuracy_at(evaluation.get("robustness"), name.removesuffix("_2"), _EPS)
    if name in ("ood_auroc", "ood_fpr"):
        return _over_sets(evaluation, {"ood_auroc": "auroc", "ood_fpr": "fpr_at_95_tpr"}[name])
    return cast("float | None", evaluation[name])


_PLACES = {
    "scaled_ece": ("scaled", "ece"),
    "scaled_nll": ("scaled", "nll"),
    "aurc": ("selective", "aurc"),
    "fgsm_paper": ("robustness", "paper"),
    "mca": ("shift", "mca"),
}


def protocol_of(evaluation: Mapping[str, Any], name: str) -> object:
    """What must be the same in two evaluations for a metric's difference to mean anything; None: nothing more.

    Example:
        >>> protocol_of({"shift": {"source": "own corruptions", "n": 1000}}, "mca")
        ('own corruptions', 1000)
    """
    if name in _PROTOCOLS:
        part, keys = _PROTOCOLS[name]
        values = evaluation.get(part) or {}
        return tuple(values.get(key) for key in keys)
    if name in ("ood_auroc", "ood_fpr"):
        keys = ("name", "n", "prepared", "temperature")
        return tuple(
            (*(one.get(key) for key in keys), one["detectors"].get(DETECTOR, {}).get("eps"))
            for one in evaluation.get("ood") or ()
        )
    return None


_PROTOCOLS = {
    "fgsm_2": ("robustness", ("n",)),
    "pgd_2": ("robustness", ("pgd_n", "pgd_steps")),
    "fgsm_paper": ("robustness", ("n", "paper_eps")),
    "mca": ("shift", ("source", "n")),
}


def accuracy_at(robustness: Mapping[str, Any] | None, attack: str, eps: float) -> float | None:
    """Accuracy under an attack at one eps; None where that eps was not measured.

    Example:
        >>> accuracy_at({"eps": [1 / 255, 2 / 255], "pgd": [0.5, 0.25]}, "pgd", 2 / 255)
        0.25
    """
    if robustness is None:
        return None
    pairs = zip(robustness["eps"], robustness[attack], strict=True)
    return next((float(accuracy) for at, accuracy in pairs if math.isclose(at, eps, rel_tol=1e-6)), None)


def _over_sets(evaluation: Mapping[str, Any], metric: str) -> float | None:
    """Mean over the out-of-distribution sets, each weighing the same."""
    values = [
        detection["detectors"][DETECTOR]["metrics"][metric]
        for detection in evaluation.get("ood") or ()
        if DETECTOR in detection["detectors"]
    ]
    return statistics.fmean(values) if values else None
