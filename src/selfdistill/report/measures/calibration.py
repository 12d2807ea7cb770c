"""Calibration beside the ECE: bins of equal mass, and what temperature scaling alone would reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from selfdistill.records.metrics import METRICS, Values, metric_of
from selfdistill.report.measured import Measured, every, names, parts, table
from selfdistill.report.section import Sheet
from selfdistill.report.tables import Column, column_of, columns_in, metrics_in

BASELINE = "CrossEntropy()"
_TEMPERATURE = Column("temperature", "T", digits=2)


def calibration_sheet(methods: Sequence[Measured]) -> Sheet | None:
    """The metrics of calibration, as they are and after temperature scaling; None where quality alone was measured."""
    beyond_quality = [name for name in metrics_in("calibration") if "quality" not in METRICS[name].places]
    if all(metric_of(values, name) is None for name in beyond_quality for m in methods for values in m.values):
        return None
    shown = [(column.title, column, partial(metric_of, name=column.metric)) for column in columns_in("calibration")]
    return Sheet(table(methods, [*shown, ("T", _TEMPERATURE, temperature)]))


def calibration_notes(methods: Sequence[Measured]) -> tuple[str, ...]:
    """How the columns were made."""
    if calibration_sheet(methods) is None:
        return ()
    n = every(parts(methods, "scaled"), lambda scaled: scaled["n"])
    bins = every(methods, lambda values: values["bins"])
    return (
        f"ECE: {bins} bins of equal width on the confidence",
        f"Adaptive ECE: {bins} bins of equally many images, so that no bin is almost empty",
        f"Scaled: a reference, not a result: logits divided by T, one number fitted on one half of the {n} test images "
        "(even and odd positions) and scored on the other; no prediction changes",
        "T: mean of the two fitted temperatures; above 1 the network was over-confident",
    )


def scaling_findings(methods: Sequence[Measured]) -> tuple[str, ...]:
    """Whether a method is better calibrated than cross-entropy with one number fitted afterwards."""
    column = column_of("ece")
    ece = {m.name: s.mean for m in methods if (s := m.statistic(partial(metric_of, name="ece"))) is not None}
    baseline = next((m for m in methods if m.name == BASELINE), methods[0])
    scaled = baseline.statistic(partial(metric_of, name="scaled_ece"))
    if scaled is None or baseline.name not in ece:
        return ()
    reached = column.number(scaled.mean)
    if len(methods) == 1:
        fitted = baseline.statistic(temperature)
        assert fitted is not None
        verb = "would bring" if scaled.mean < ece[baseline.name] else "would not lower"
        own = column.number(ece[baseline.name])
        text = f"Temperature scaling alone, T = {fitted.mean:.2f}, {verb} the ECE of {own}"
        return (f"{text} to {reached}." if verb == "would bring" else f"{text}: it would be {reached}.",)
    others = [m.name for m in methods if m is not baseline and m.name in ece]
    above = [name for name in others if ece[name] > scaled.mean]
    head = f"{baseline.name} reaches an ECE of {reached} with temperature scaling alone, one number fitted afterwards"
    if not above:
        return (f"{head}; no other method's ECE is above that.",)
    listed = [f"{name} ({column.number(ece[name])})" for name in above]
    which = "every other method's" if len(above) == len(others) and len(above) > 4 else f"that of {names(listed)}"
    return (f"{head}; {which} is above that.",)


def temperature(values: Values) -> float | None:
    """Mean of the two fitted temperatures."""
    scaled = values.get("scaled")
    return None if scaled is None else sum(scaled["temperatures"]) / 2
