"""Out-of-distribution detection: how well do scores tell other images from the test images?"""

from __future__ import annotations

from collections.abc import Sequence

from selfdistill.records.metrics import DETECTOR, Values
from selfdistill.report.measured import Measured, Pick, by_ood_set, every, names, table
from selfdistill.report.measures.scores import histogram_panels, roc_panels
from selfdistill.report.section import Figure, Section, Sheet
from selfdistill.report.tables import Column, Table

_RATE = Column("rate", "Rate", "%", 100, 1)
_METRICS = {
    "AUROC": "auroc",
    "FPR at 95 % TPR": "fpr_at_95_tpr",
    "Error": "detection_error",
    "AUPR in": "aupr_in",
    "AUPR out": "aupr_out",
    "Balanced in": "balanced_aupr_in",
    "Balanced out": "balanced_aupr_out",
}
_SHOWN = ("AUROC", "FPR at 95 % TPR")  # as a table of their own: methods down, detectors across


def ood_section(methods: Sequence[Measured]) -> Section | None:
    """Tables for each set, ROC curves and score histograms; None where no set was given."""
    sets = by_ood_set(methods)
    if not sets:
        return None
    parts: list[Sheet | Figure] = []
    for at, (name, shown) in enumerate(sets.items()):
        several = len(shown) > 1
        if several:
            parts += [Sheet(_across(shown, metric), f"{name}: {metric} (%)") for metric in _SHOWN]
        parts.append(_whole(name, shown, folded=several))
        parts += _figures(at, name, shown)
    return Section(
        title="Out-of-distribution detection",
        explain="A score should be high on test images and low on images of something else. In-distribution is the "
        "positive class: the TPR is the share of test images that are accepted, the FPR the share of the other images "
        "that are accepted with them. AUROC 50 % is chance.",
        findings=_below_chance(sets),
        parts=tuple(parts),
        notes=_notes(sets),
    )


def _figures(at: int, name: str, shown: Sequence[Measured]) -> list[Figure]:
    seeds = max(len(method.by_seed) for method in shown)
    figures = [
        Figure(
            f"ood-roc-{at}",
            f"ROC curves against {name}",
            roc_panels(at, name, shown),
            2,
            "square",
            legend=True,
            caption=f"ROC curves{', averaged over seeds' * (seeds > 1)}. Dotted: TPR 95 %.",
        ),
        Figure(
            f"ood-scores-{at}",
            f"Scores of the test images and of {name}",
            histogram_panels(at, name, shown),
            3,
            "narrow",
            caption=f"Scores{' of the first seed' * (seeds > 1)}. Filled: the test images; line: {name}; in shares of "
            "either. ODIN's scores lie close together: their order alone counts.",
        ),
    ]
    return [figure for figure in figures if figure.panels]


def _across(shown: Sequence[Measured], metric: str) -> Table:
    """Methods down, detectors across."""
    return table(shown, [(name, _RATE, _metric(name, _METRICS[metric])) for name in _detectors(shown)])


def _whole(name: str, shown: Sequence[Measured], *, folded: bool) -> Sheet:
    """One row a detector (and method): every metric, and ODIN's eps."""
    rows = [
        (
            *[method.name] * folded,
            detector,
            *(_RATE.cell(method.statistic(_metric(detector, metric))) for metric in _METRICS.values()),
            every([method], _eps(detector)),
        )
        for method in shown
        for detector in _detectors([method])
    ]
    first = ("Method", "Detector") if folded else ("Detector",)
    headings = (*first, *_METRICS, "ODIN's eps")
    return Sheet(Table(headings, tuple(rows)), f"{name}: every metric (%)", by_method=folded, folded=folded)


def _detectors(shown: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(name for method in shown for values in method.values for name in values["detectors"]))


def _metric(detector: str, metric: str) -> Pick:
    def pick(values: Values) -> float | None:
        found = values["detectors"].get(detector)
        return None if found is None else float(found["metrics"][metric])

    return pick


def _eps(detector: str) -> Pick:
    return lambda values: (values["detectors"].get(detector) or {}).get("eps")


def _below_chance(sets: dict[str, list[Measured]]) -> tuple[str, ...]:
    sentences = []
    for name, shown in sets.items():
        worse = [m.name for m in shown if (s := m.statistic(_metric(DETECTOR, "auroc"))) is not None and s.mean < 0.5]
        if worse:
            sentences.append(
                f"On {name}, {DETECTOR} is worse than chance for {names(worse)}: more often than not it scores the "
                "other images higher than the test images."
            )
    return tuple(sentences)


def _notes(sets: dict[str, list[Measured]]) -> tuple[str, ...]:
    notes = []
    for name, shown in sets.items():
        n, inside = every(shown, lambda values: values["n"]), every(shown, _inside)
        prepared = ", ".join(dict.fromkeys(values["prepared"] for method in shown for values in method.values))
        notes.append(f"{name}: {n} images, {prepared}; against {inside} test images")
    shown = [method for of_set in sets.values() for method in of_set]
    there = _detectors(shown)
    temperature = every(shown, lambda values: values["temperature"])
    if "ODIN fixed" in there:
        eps = every(shown, _eps("ODIN fixed"))
        notes.append(f"ODIN fixed: T = {temperature} and one gradient step of eps = {eps} of the pixel range")
    if "ODIN released" in there:
        tuned = ", ".join(
            f"{every(of_set, _tuned(0))} test images and {every(of_set, _tuned(1))} of {name}"
            for name, of_set in sets.items()
        )
        notes.append(
            f"ODIN released: eps chosen among 21 values from 0 to 0.004 by the FPR on {tuned}, which are then not "
            "scored. The choice has seen images of the other set, so it is kinder than any use"
        )
    logits = [name for name in ("max softmax", "max logit", "energy") if name in there]
    if logits:
        notes.append(f"{', '.join(logits)}: of the logits as they are, T = 1")
    if "Mahalanobis" in there:
        notes.append("Mahalanobis: distance of the features to the nearest class mean of the training images")
    notes += [
        "Error: detection error, the smallest mean of the two error rates over all thresholds, as Table 7 prints it",
        "AUPR: area under the precision-recall curve with the test images (in) or the others (out) as positives, by "
        "counts, which depends on the sizes of the sets; balanced: both sets weigh the same",
        "Networks: evaluation mode, float32, dropout off",
    ]
    return tuple(notes)


def _inside(values: Values) -> float | None:
    counts = [found["metrics"]["n_in"] for name, found in values["detectors"].items() if name != "ODIN released"]
    return counts[0] if counts else None


def _tuned(at: int) -> Pick:
    return lambda values: values["tuned_on"][at]
