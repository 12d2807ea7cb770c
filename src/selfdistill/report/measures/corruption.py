"""Robustness to distribution shift: accuracy under fifteen corruptions at five severities."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import FigureBase

from selfdistill.records import Evaluation
from selfdistill.records.evaluation import PUBLISHED, CorruptionAccuracy
from selfdistill.report.measured import Measured, every, few_images, parts, table
from selfdistill.report.pages import Section, Sheet, wide_figure
from selfdistill.report.style import GRID, INK, MUTED, colour, heading, marker, plain
from selfdistill.report.tables import PERCENT, Table, column_of


def corruption_section(methods: Sequence[Measured[Evaluation]]) -> Section | None:
    """mCA, by severity and by corruption; None where it was not measured."""
    results = parts(methods, lambda evaluation: evaluation.shift)
    if not results:
        return None
    first = results[0].values[0]
    severities = range(len(first.per_severity))
    n = every(results, lambda shift: shift.n)
    # Of the runs that have the measure: a row is of the same networks throughout.
    clean = {m.name: m.statistic(lambda e: e.top1 if e.shift else None) for m in methods}
    columns = [
        ("mCA", column_of("mca"), lambda shift: shift.mca),
        *((f"Severity {s + 1}", PERCENT, _at_severity(s)) for s in severities),
    ]
    sheet = table(results, columns)
    rows = tuple((row[0], PERCENT.cell(clean[row[0]]), *row[1:]) for row in sheet.rows)
    by_severity = Table((sheet.headings[0], "Clean", *sheet.headings[1:]), rows)
    severity = (
        "Accuracy by severity, mean over fifteen corruptions; a bar a method, a line from the smallest to the largest "
        "seed."
    )
    each = "Accuracy by corruption, mean over five severities and the seeds; a mark a method."
    draw_severities, draw_each = partial(_draw_severities, methods=results), partial(_draw_each, methods=results)
    return Section(
        title="Robustness to corruption",
        about="How much accuracy is left on blurred, noisy or foggy images?",
        explain=f"Accuracy (%) on images that were blurred, noised, fogged over and so on: fifteen corruptions, five "
        f"severities each, {n} images in each of the 75. mCA is the mean of the fifteen. {source_in_words(results)}",
        findings=few_images(results, lambda shift: shift.n),
        parts=(
            Sheet(by_severity),
            wide_figure("corruptions", "Accuracy by severity", severity, draw_severities, (5.0, 3.0)),
            Sheet(_by_corruption(results), "By corruption: accuracy (%), mean over severities", False, folded=True),
            wide_figure("corruption-each", "Accuracy by corruption", each, draw_each, (5.0, 4.6)),
        ),
        notes=(
            "mCA: mean corruption accuracy, not the mean corruption error (mCE) of other papers",
            f"Clean: the {every(methods, lambda e: e.n if e.shift else None)} test images as they are",
            "Severity: mean over the fifteen corruptions",
        ),
    )


def source_in_words(results: Sequence[Measured[CorruptionAccuracy]]) -> str:
    """Whose corruptions they are, and what may stand beside them."""
    sources = {shift.source for method in results for shift in method.values}
    if sources == {PUBLISHED}:
        return "The images are the published arrays (CIFAR-10-C or CIFAR-100-C), as in Table 6 of the paper."
    if PUBLISHED not in sources:
        return (
            "They are our own corruptions of the test images, a substitute for the published arrays: the numbers "
            "compare with each other, and not with Table 6 or another paper's."
        )
    own = [m.name for m in results if any(shift.source != PUBLISHED for shift in m.values)]
    return (
        f"The runs are not alike: {', '.join(own)} saw our own corruptions, the others the published arrays. These do "
        "not compare; evaluate all runs with the same corruptions."
    )


def corruption_in_words(name: str) -> str:
    """Return a corruption's name as words.

    Example:
        >>> corruption_in_words("gaussian_noise"), corruption_in_words("jpeg_compression")
        ('Gaussian noise', 'JPEG compression')
    """
    return name.replace("_", " ").capitalize().replace("Jpeg", "JPEG")


def _at_severity(severity: int) -> Callable[[CorruptionAccuracy], float]:
    return lambda shift: shift.per_severity[severity]


def _of(corruption: str) -> Callable[[CorruptionAccuracy], float]:
    return lambda shift: statistics.fmean(shift.accuracy[corruption])


def _by_corruption(results: Sequence[Measured[CorruptionAccuracy]]) -> Table:
    """One row a corruption, one column a method."""
    rows = tuple(
        (corruption_in_words(name), *(PERCENT.cell(method.statistic(_of(name))) for method in results))
        for name in results[0].values[0].accuracy
    )
    total = ("mCA", *(column_of("mca").cell(method.statistic(lambda shift: shift.mca)) for method in results))
    return Table(("Corruption", *(method.name for method in results)), (*rows, total))


def _draw_severities(figure: FigureBase, *, methods: Sequence[Measured[CorruptionAccuracy]]) -> None:
    axes = figure.subplots()
    width = 0.82 / len(methods)
    for place, method in enumerate(methods):
        by_severity = [[100 * a for a in at] for at in zip(*(v.per_severity for v in method.values), strict=True)]
        left = [s - 0.41 + place * width for s in range(len(by_severity))]
        heights = [statistics.fmean(at) for at in by_severity]
        axes.bar(
            left, heights, width * 0.88, align="edge", color=colour(method.index), alpha=0.85, linewidth=0, zorder=2
        )
        if len(method.values) > 1:
            centres = [x + width * 0.44 for x in left]
            axes.vlines(
                centres, list(map(min, by_severity)), list(map(max, by_severity)), color=INK, linewidth=1, zorder=3
            )
    severities = range(len(methods[0].values[0].per_severity))
    axes.set_xticks(severities, [f"{s + 1}" for s in severities])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Severity", color=MUTED)
    heading(axes, "Accuracy (%), mean over the corruptions")
    plain(axes)


def _draw_each(figure: FigureBase, *, methods: Sequence[Measured[CorruptionAccuracy]]) -> None:
    axes = figure.subplots()
    corruptions = list(methods[0].values[0].accuracy)
    for row in range(len(corruptions)):
        axes.axhline(row, color=GRID, linewidth=0.8, zorder=1)
    for method in methods:
        means = [100 * found.mean for name in corruptions if (found := method.statistic(_of(name))) is not None]
        axes.plot(
            means, range(len(corruptions)), linestyle="none", marker=marker(method.index), markersize=6,
            color=colour(method.index), alpha=0.8, zorder=2,
        )  # fmt: skip
    axes.set_yticks(range(len(corruptions)), [corruption_in_words(name) for name in corruptions])
    axes.set_ylim(len(corruptions) - 0.5, -0.5)
    heading(axes, "Accuracy (%), mean over the severities")
    plain(axes, grid="x")
