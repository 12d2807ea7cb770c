"""Calibration: reliability diagrams, bins of equal mass, and what temperature scaling alone would reach."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator, PercentFormatter

from selfdistill.evaluation.calibration import pool
from selfdistill.records import METRICS, Evaluation
from selfdistill.records.evaluation import Reliability
from selfdistill.report.measured import Measured, every, names, parts, table
from selfdistill.report.pages import Figure, Sheet
from selfdistill.report.style import INK, MUTED, Panel, colour, heading, plain, short
from selfdistill.report.tables import Column, column_of, columns_in, metrics_in
from selfdistill.report.verdict import confident

FEW = 20  # a bin of fewer images is drawn pale: its accuracy is mostly chance
_MOST_CLASSES = 3  # whose diagrams are drawn
BASELINE = "CrossEntropy()"
_TEMPERATURE = Column("temperature", "T", digits=2)


def calibration_sheet(methods: Sequence[Measured[Evaluation]]) -> Sheet | None:
    """The metrics of calibration, as they are and after temperature scaling; None where quality alone was measured."""
    beyond_quality = [name for name in metrics_in("calibration") if "quality" not in METRICS[name].places]
    if all(METRICS[name].read(values) is None for name in beyond_quality for m in methods for values in m.values):
        return None
    columns = [
        (column.title, column, METRICS[column.metric].read)
        for column in columns_in("calibration")
        if any(METRICS[column.metric].read(values) is not None for m in methods for values in m.values)
    ]
    return Sheet(table(methods, [*columns, ("T", _TEMPERATURE, _temperature)]))


def calibration_notes(methods: Sequence[Measured[Evaluation]]) -> tuple[str, ...]:
    """How the columns were made."""
    if calibration_sheet(methods) is None:
        return ()
    n = every(parts(methods, lambda evaluation: evaluation.scaled), lambda scaled: scaled.n)
    bins = every(methods, lambda evaluation: evaluation.bins)
    return (
        f"ECE: {bins} bins of equal width on the confidence",
        f"Adaptive ECE: {bins} bins of equally many images, so that no bin is almost empty",
        *(
            [f"Class-wise ECE: {bins} bins of each class's probability over all images, a mean over the classes"]
            * any(values.classwise_ece is not None for m in methods for values in m.values)
        ),
        f"Scaled: a reference, not a result: logits divided by T, one number fitted on one half of the {n} test images "
        "(even and odd positions) and scored on the other; no prediction changes",
        "T: mean of the two fitted temperatures; above 1 the network was over-confident",
    )


def scaling_findings(methods: Sequence[Measured[Evaluation]]) -> tuple[str, ...]:
    """Whether a method is better calibrated than cross-entropy with one number fitted afterwards."""
    column = column_of("ece")
    ece = {m.name: s.mean for m in methods if (s := m.statistic(lambda e: e.ece)) is not None}
    baseline = next((m for m in methods if m.name == BASELINE), methods[0])
    scaled = baseline.statistic(METRICS["scaled_ece"].read)
    if scaled is None or baseline.name not in ece:
        return ()
    reached = column.number(scaled.mean)
    if len(methods) == 1:
        fitted = baseline.statistic(_temperature)
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


def _temperature(evaluation: Evaluation) -> float | None:
    return evaluation.scaled.temperature if evaluation.scaled else None


def reliability_panels(methods: Sequence[Measured[Evaluation]]) -> list[Panel]:
    """For each method, accuracy against confidence and the counts below; the seeds' counts are summed."""
    panels = []
    for method in methods:
        diagram = pool([evaluation.reliability for evaluation in method.values])
        ece = statistics.fmean(evaluation.ece for evaluation in method.values)
        gap = statistics.fmean(evaluation.gap for evaluation in method.values)
        caption = f"ECE {ece:.3f}, gap {column_of('gap').number(gap)}: {confident(gap).partition(' (')[0]}"
        draw = partial(_draw_reliability, name=method.name, index=method.index, diagram=diagram, caption=caption)
        alt = f"Reliability diagram of {method.name}: {caption}."
        panels.append(Panel(f"reliability-{method.index}", alt, draw, 2.8, 3.6))
    return panels


def class_figure(
    index: int, classes: Sequence[str], diagrams: Sequence[Sequence[Reliability]], errors: Sequence[float]
) -> Figure:
    """The diagrams of the classes whose probability is the worst calibrated; the seeds' counts are summed.

    Args:
        index: of the method, for its colour.
        classes: their names.
        diagrams: of each seed, that of each class.
        errors: of each class, the calibration error of its probability.
    """
    panels = []
    for c in sorted(range(len(errors)), key=lambda at: -errors[at])[:_MOST_CLASSES]:
        name, caption = classes[c], f"ECE {errors[c]:.3f}"
        draw = partial(
            _draw_reliability,
            name=name,
            index=index,
            diagram=pool([of_seed[c] for of_seed in diagrams]),
            caption=caption,
            axes_of=("Share of the class", "Its probability"),
        )
        alt = f"Reliability diagram of the probability of {name}: {caption}."
        panels.append(Panel(f"class-reliability-{c}", alt, draw, 2.8, 3.6))
    return Figure(
        "class-reliability",
        "Reliability diagrams of classes",
        panels,
        3,
        caption="The classes whose probability is off most: bars, how often an image is of the class; ticks, the "
        "probability that it was given. Below, all images by that probability.",
    )


def _draw_reliability(
    figure: FigureBase,
    *,
    name: str,
    index: int,
    diagram: Reliability,
    caption: str,
    axes_of: tuple[str, str] = ("Accuracy", "Confidence"),
) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    left, width = diagram.edges[:-1], diagram.edges[1]
    shade = colour(index)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for x, n, confidence, accuracy in zip(left, diagram.count, diagram.confidence, diagram.accuracy, strict=True):
        if confidence is None or accuracy is None:
            continue
        pale = 0.35 if n < FEW else 1.0
        upper.bar(x, accuracy, width * 0.86, align="edge", color=shade, alpha=0.75 * pale, linewidth=0, zorder=2)
        # The distance that ECE adds up: from what was right to what was claimed.
        centre = x + width * 0.43
        upper.plot([centre, centre], [accuracy, confidence], color=INK, linewidth=1.1, alpha=pale, zorder=3)
        upper.plot(centre, confidence, marker="_", markersize=11, markeredgewidth=1.8, color=INK, alpha=pale, zorder=3)
    total = sum(diagram.count)
    lower.bar(
        left, [n / total for n in diagram.count], width * 0.86, align="edge", color=shade, alpha=0.75, linewidth=0
    )
    heading(upper, f"{short(name, 30)}\n\n", index)
    lines = caption.replace(": ", "\n", 1)
    upper.text(0, 1.03, lines, transform=upper.transAxes, color=MUTED, fontsize=8.5, va="bottom", in_layout=False)
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    upper.set_ylabel(axes_of[0], color=MUTED)
    lower.set_ylabel("Images", color=MUTED)
    lower.set_xlabel(axes_of[1], color=MUTED)
    lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    lower.yaxis.set_major_locator(MaxNLocator(2))
    lower.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    plain(upper)
    plain(lower)
