"""Which classes are told apart: confusions, a table by class, and thumbnails of the surest mistakes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import FigureBase

from selfdistill.evaluation.accuracy import Counts, class_scores, confusion_matrix
from selfdistill.evaluation.calibration import class_reliability
from selfdistill.records import Predictions
from selfdistill.report.measured import Measured
from selfdistill.report.measures.calibration import class_figure
from selfdistill.report.pages import Figure, Gallery, Section, Sheet, Thumbnail, wide_figure
from selfdistill.report.style import CARD, GRID, INK, MUTED, colour, heading, short
from selfdistill.report.tables import DASH, PERCENT, Table

MOST_DRAWN = 20
"""The confusion matrix of more classes is not drawn."""

_MOST_ROWS, _MOST_PAIRS = 40, 6
_MOST_BYTES = 24_000  # of a thumbnail
_GRAD_CAM = (
    "Grad-CAM: the second picture, what the network sees of the image: red where its deepest map speaks most for the "
    "class that it names, blue where nothing does"
)
_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def classes_section(methods: Sequence[Measured[Predictions]], name: str) -> Section | None:
    """What one method's networks confuse; None if their predictions were not kept."""
    method = next((one for one in methods if one.name == name), None)
    if method is None:
        return None
    classes, counts = method.values[0].classes, confusion(method)
    pairs = _pairs(counts)
    parts: list[Sheet | Figure | Gallery] = _galleries(method.values[0])
    if pairs:
        parts.append(Sheet(_pair_table(counts, pairs, classes), "Most confused pairs", by_method=False))
    if len(classes) <= MOST_DRAWN:
        parts.append(_matrix(method, counts, classes))
    diagrams = [class_reliability(one.probabilities, one.labels) for one in method.values]
    errors = np.mean([[one.expected_calibration_error for one in of_seed] for of_seed in diagrams], axis=0).tolist()
    parts.append(class_figure(method.index, classes, diagrams, errors))
    other = next((one for one in methods if one is not method), None)
    parts.append(_by_class(method, other, counts, classes, errors))
    networks = len(method.by_seed)
    return Section(
        title="Classes and mistakes",
        about="Which classes are confused, and which images",
        explain=f"With {name}"
        + (f": counts are summed over {networks} seeds, the pictures are of the first." if networks > 1 else "."),
        findings=_findings(counts, pairs, classes),
        parts=tuple(parts),
        notes=(
            "Recall: the share of a class's images that are found",
            "Precision: the share of right ones among the images for which the class is predicted",
            "F1: their harmonic mean",
            "ECE: of the probability of the class over all images, a mean over the seeds; with few images of a class "
            "mostly chance",
            *([_GRAD_CAM] if method.values[0].heat_maps else []),
        ),
        folded=False,
    )


def confusion(method: Measured[Predictions]) -> Counts:
    """Counts of (true class, predicted class), summed over the seeds; (C, C).

    Example:
        >>> logits = np.array([[2, 1], [2, 1], [1, 2]], np.float32)
        >>> confusion(Measured("A()", 0, {0: Predictions(logits, np.array([0, 1, 1]), ("a", "b"))})).tolist()
        [[1, 0], [1, 1]]
    """
    found = [confusion_matrix(one.labels, one.predicted, len(one.classes)) for one in method.values]
    return np.asarray(np.sum(found, axis=0))


def _pairs(counts: Counts) -> list[tuple[int, int]]:
    """The pairs of (true class, other predicted class) with the most images."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS].tolist()
    found = [divmod(at, len(counts)) for at in order]
    return [(true, predicted) for true, predicted in found if wrong[true, predicted]]


def _pair_table(counts: Counts, pairs: Sequence[tuple[int, int]], classes: Sequence[str]) -> Table:
    rows = tuple(
        (classes[true], classes[other], f"{counts[true, other]:,}", _percent(counts[true, other] / counts[true].sum()))
        for true, other in pairs
    )
    return Table(("True class", "Predicted", "Images", "Of the class (%)"), rows)


def _findings(counts: Counts, pairs: Sequence[tuple[int, int]], classes: Sequence[str]) -> tuple[str, ...]:
    if not pairs:
        return ("Every test image is right.",)
    true, other = pairs[0]
    share = _percent(counts[true, other] / counts[true].sum())
    return (f"The commonest mistake: {share} % of the images of {classes[true]} are taken for {classes[other]}.",)


def _by_class(
    method: Measured[Predictions],
    other: Measured[Predictions] | None,
    counts: Counts,
    classes: Sequence[str],
    errors: Sequence[float],
) -> Sheet:
    """Recall, precision, F1 and ECE of each class, the lowest F1 first; beside them the recall of another method."""
    scores, of_class = class_scores(counts), counts.sum(axis=1)
    theirs = None if other is None else class_scores(confusion(other)).recall
    order = np.argsort([f1 or 0 for f1 in scores.f1], kind="stable").tolist()
    rows = tuple(
        (
            classes[c],
            f"{of_class[c] // len(method.by_seed):,}",
            *map(
                _percent,
                [scores.recall[c], *([] if theirs is None else [theirs[c]]), scores.precision[c], scores.f1[c]],
            ),
            f"{errors[c]:.3f}",
        )
        for c in order[:_MOST_ROWS]
    )
    beside = () if other is None else (f"Recall, {other.name} (%)",)
    table = Table(("Class", "Images", "Recall (%)", *beside, "Precision (%)", "F1 (%)", "ECE"), rows)
    caption = "By class, the hardest first"
    if len(classes) > _MOST_ROWS:
        caption = f"The {_MOST_ROWS} hardest of {len(classes)} classes"
    return Sheet(table, caption, by_method=False, folded=True)


def _percent(share: float | None) -> str:
    return DASH if share is None else PERCENT.number(share)


def _matrix(method: Measured[Predictions], counts: Counts, classes: Sequence[str]) -> Figure:
    side = 1.5 + 0.3 * len(classes)
    draw = partial(_draw_matrix, counts=counts, classes=classes, index=method.index)
    alt = f"Confusion matrix of {method.name}: a row a true class, a column a predicted one, shares of the row."
    caption = "Confusion matrix: share of each true class (row) by predicted class (column), in %. Mistakes are orange."
    return wide_figure("confusion", "Confusion matrix", alt, draw, (side, side), legend=False, caption=caption)


def _draw_matrix(figure: FigureBase, *, counts: Counts, classes: Sequence[str], index: int) -> None:
    axes = figure.subplots()
    of_class = counts.sum(axis=1)
    for row, column in np.argwhere(counts > 0).tolist():
        share = counts[row, column] / of_class[row]
        shade = colour(1) if row == column else colour(2)
        axes.fill_between(
            [column - 0.48, column + 0.48], row - 0.48, row + 0.48, color=shade, alpha=0.12 + 0.6 * share, linewidth=0
        )
        axes.text(column, row, f"{100 * share:.0f}", color=INK, fontsize=8, ha="center", va="center")
    names = [short(name, 12) for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(len(classes)), names)
    axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal", facecolor=CARD)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, length=0, labelsize=8.5)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    heading(axes, "True class by predicted class (%)")


def _galleries(network: Predictions) -> list[Sheet | Figure | Gallery]:
    """The thumbnails of the first seed's network: the surest mistakes, and the least sure right answers."""
    confidence = network.probabilities.max(axis=1)
    wrong: list[Thumbnail] = []
    right: list[Thumbnail] = []
    heat_maps = network.heat_maps or (b"",) * len(network.shown)
    for at, content, heat_map in zip(network.shown, network.thumbnails, heat_maps, strict=True):
        true, predicted = int(network.labels[at]), int(network.predicted[at])
        (right if true == predicted else wrong).append(
            Thumbnail(
                _data_uri(content),
                network.classes[predicted],
                PERCENT.number(float(confidence[at])),
                "" if true == predicted else network.classes[true],
                _data_uri(heat_map),
            )
        )
    captions = {
        "Surest mistakes: what the network says, how sure it is, and what is true": wrong,
        "Least sure right answers": right,
    }
    return [Gallery(caption, tuple(found)) for caption, found in captions.items() if found]


def _data_uri(content: bytes) -> str:
    """A thumbnail for a page; empty if it is neither PNG nor JPEG, or too large."""
    kind = next((kind for start, kind in _KINDS.items() if content.startswith(start)), None)
    if kind is None or len(content) > _MOST_BYTES:
        return ""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
