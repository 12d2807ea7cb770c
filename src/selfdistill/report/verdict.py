"""What the numbers say, in plain words: written from the intervals alone, the same whoever wins."""

from __future__ import annotations

from dataclasses import dataclass

from selfdistill.records import METRICS, Summary
from selfdistill.report.measured import names
from selfdistill.report.tables import column_of, difference_column, interval

BALANCED = 0.005  # |gap| below half a point: neither over- nor under-confident
_POINTS = column_of("gap", unit="points", scale=100, digits=1)


@dataclass(frozen=True)
class Finding:
    """What is said of one method: its name, and sentences on accuracy, calibration and, where measured, robustness."""

    method: str
    accuracy: str
    calibration: str
    robustness: str = ""


@dataclass(frozen=True)
class Verdict:
    """A headline of two or three sentences, what is said of each method, and remarks that bear on reading it."""

    headline: str
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]


def confident(gap: float) -> str:
    """A signed gap in words.

    Example:
        >>> confident(0.031), confident(-0.2)
        ('over-confident by 3.1 points', 'under-confident by 20.0 points')
        >>> confident(0.001)
        'neither over- nor under-confident (+0.1 points)'
    """
    if side(gap) == "balanced":
        return f"neither over- nor under-confident ({_POINTS.number(gap)} points)"
    return f"{side(gap)}-confident by {abs(gap) * 100:.1f} points"


def confidence_of(summary: Summary, method: str) -> str:
    """A method's mean gap in words, and whether the seeds scatter about zero."""
    gap = summary.statistics[method, "gap"]
    scattered = gap.sd is not None and gap.sd >= abs(gap.mean) >= BALANCED
    return confident(gap.mean) + (" on average, but the seeds disagree" if scattered else "")


def side(gap: float) -> str:
    """`over`, `under` or `balanced`, of a signed gap."""
    return "balanced" if abs(gap) < BALANCED else "over" if gap > 0 else "under"


def verdict(summary: Summary) -> Verdict:
    """Say whether anything helped, from a summary of last-epoch results."""
    first = summary.methods[0]
    findings = tuple(_finding(summary, method) for method in summary.methods)
    if len(summary.methods) == 1:
        gap = summary.statistics[first, "gap"].mean
        headline = (
            f"{first} is right on {_percent(summary, first)} of the test images and {confident(gap)}. "
            "There is no second method to compare it with."
        )
        return Verdict(headline, findings, _remarks(summary))
    sentences = (_headline_accuracy(summary), _headline_calibration(summary), _headline_robustness(summary))
    return Verdict(" ".join(sentences).rstrip(), findings, _remarks(summary))


def _headline_accuracy(summary: Summary) -> str:
    first = summary.methods[0]
    better, worse, unclear, undecided = _sorted(summary, "top1")
    if undecided and not (better or worse or unclear):
        return "One seed for each method: no verdict on accuracy can be given."
    if not (better or worse):
        return f"No clear difference in top-1 accuracy to {first}."
    parts = []
    if better:
        parts.append(f"{names(better)} raised top-1 accuracy over {first}")
    else:
        parts.append(f"No method raised top-1 accuracy over {first}")
    if worse:
        parts.append(f"{names(worse)} lowered it")
    if unclear:
        parts.append(f"{names(unclear)} made no clear difference")
    return "; ".join(parts) + "."


def _headline_calibration(summary: Summary) -> str:
    better, worse, unclear, undecided = _sorted(summary, "ece")
    if undecided and not (better or worse or unclear):
        return "Nor on calibration." if _sorted(summary, "top1")[3] else ""
    if not (better or worse):
        return "No clear difference in calibration."
    parts = [f"{names(better)} improved calibration" if better else "No method improved calibration"]
    if worse:
        parts.append(f"{names(worse)} made it worse")
    if unclear:
        parts.append(f"{names(unclear)} left it as it was, as far as the seeds can tell")
    return "; ".join(parts) + "."


def _headline_robustness(summary: Summary) -> str:
    """One sentence on attack, corruption and other images, of those that were measured."""
    parts, none = [], []
    for metric in METRICS.values():
        if not metric.verdict:
            continue
        better, worse, unclear, _ = _sorted(summary, metric.name)
        judged = [f"{names(found, 2)} {word}" for found, word in ((better, "better"), (worse, "worse")) if found]
        if judged:
            parts.append(f"{metric.verdict}: {', '.join(judged)}")
        elif unclear:
            none.append(metric.verdict)
    if none:
        parts.append(f"no clear difference {' or '.join(none)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _sorted(summary: Summary, metric: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Methods that are better, worse, without a clear difference, and without an interval."""
    out: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
    for method in summary.methods[1:]:
        difference = summary.differences.get((method, metric))
        if difference is None or difference.low is None:
            out[3].append(method)
        else:
            out[("better", "worse", "unclear").index(difference.effect)].append(method)
    return out


def _finding(summary: Summary, method: str) -> Finding:
    first = summary.methods[0]
    n = len(summary.seeds[method])
    accuracy = f"Top-1 {_percent(summary, method)} ({n} seed{'s' * (n > 1)})"
    if method == first:
        train = summary.statistics.get((method, "train_top1"))
        if train is not None:
            accuracy += f", and {train.mean * 100:.1f} % on its training images"
    else:
        accuracy += _against(summary, method, "top1", "accuracy")
    ece = column_of("ece").number(summary.statistics[method, "ece"].mean)
    calibration = f"ECE {ece}: {confidence_of(summary, method)}"
    if method != first:
        calibration += _against(summary, method, "ece", "ECE") + _sign_note(summary, method)
    return Finding(method, accuracy + ".", calibration + ".", _finding_robustness(summary, method))


def _finding_robustness(summary: Summary, method: str) -> str:
    """The metrics of the last sentence that were measured, and how clearly they differ from the first method's."""
    parts = []
    for metric in METRICS.values():
        statistic = summary.statistics.get((method, metric.name))
        if statistic is None or not metric.verdict:
            continue
        column, difference = difference_column(metric.name), summary.differences.get((method, metric.name))
        text = f"{metric.title} {column_of(metric.name).with_unit(statistic.mean)}"
        if difference is not None and difference.mean is not None:
            ends = f"95 % interval {interval(column, difference)}" if difference.low is not None else "one pair of runs"
            effect = {"better": ": better", "worse": ": worse", "unclear": ": no clear difference"}[difference.effect]
            text += f" ({column.with_unit(difference.mean)}, {ends}{effect * (difference.low is not None)})"
        parts.append(text)
    return "; ".join(parts) + "." if parts else ""


def _against(summary: Summary, method: str, metric: str, word: str) -> str:
    difference = summary.differences.get((method, metric))
    if difference is None or difference.mean is None:
        return f"; no seed in common with {summary.methods[0]}"
    column = difference_column(metric)
    text = f"; {column.with_unit(difference.mean)} against {summary.methods[0]}"
    if difference.low is None:
        return text + ", from one pair of runs, so this may be the seed"
    effect = {"better": f"{word} is better", "worse": f"{word} is worse", "unclear": "no clear difference"}
    return f"{text} (95 % interval {interval(column, difference)}): {effect[difference.effect]}"


def _sign_note(summary: Summary, method: str) -> str:
    """Why the ECE moved, where the signed gaps tell."""
    before = summary.statistics[summary.methods[0], "gap"].mean
    after = summary.statistics[method, "gap"].mean
    difference = summary.differences.get((method, "ece"))
    if difference is None or difference.effect != "worse" or side(after) != "under":
        return ""
    cause = {
        "over": "it overshoots: an over-confident network became under-confident",
        "balanced": "there was no over-confidence to mend",
        "under": "the network was under-confident already",
    }[side(before)]
    return f"; {cause}, and a weaker setting is the first thing to try"


def _remarks(summary: Summary) -> tuple[str, ...]:
    """What bears on reading the verdict: how far the baseline fits its training images, and few seeds."""
    first = summary.methods[0]
    remarks = []
    train = summary.statistics.get((first, "train_top1"))
    test = summary.statistics[first, "top1"].mean
    if train is not None:
        numbers = f"{train.mean * 100:.1f} % on training images, {test * 100:.1f} % on test images"
        if train.mean < 0.9:
            judged = "the schedule may be too short, or the network too small, to judge a regulariser"
            remarks.append(f"{first} does not fit its training images yet ({numbers}): {judged}.")
        elif train.mean - test > 0.02:
            remarks.append(f"{first} overfits ({numbers}): there is something for regularisation to mend.")
        else:
            remarks.append(f"{first} hardly overfits ({numbers}): there is little for regularisation to mend.")
    pairs = [d.n for (_, metric), d in summary.differences.items() if metric == "top1" and d.n > 1]
    if pairs and min(pairs) < 5:
        remarks.append(f"With {min(pairs)} seeds only large differences can be told from the spread.")
    return tuple(remarks)


def _percent(summary: Summary, method: str) -> str:
    return column_of("top1").cell(summary.statistics[method, "top1"]) + " %"
