"""What the numbers say, in plain words: written from the intervals alone, the same whoever wins."""

from __future__ import annotations

from dataclasses import dataclass

from selfdistill.records import METRICS, Difference, Summary
from selfdistill.report.decision import Decision, decide, plain_name, probabilities
from selfdistill.report.measured import names
from selfdistill.report.tables import column_of, difference_column, interval

BALANCED = 0.005  # |gap| below half a point: neither over- nor under-confident
_POINTS = column_of("gap", unit="points", scale=100, digits=1)


@dataclass(frozen=True)
class Line:
    """What is said of one side of a method.

    Attributes:
        title: "Accuracy", "Confidence" or "Robustness".
        text: a sentence or two.
        effect: "better", "worse", or "unclear", as the first method has it too.
        judged: the effect in words, such as "no clear difference"; "" for the first method.
    """

    title: str
    text: str
    effect: str = "unclear"
    judged: str = ""


@dataclass(frozen=True)
class Finding:
    """What is said of one method: its name, and a line on accuracy, on confidence and, where measured, robustness."""

    method: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Verdict:
    """What to do, what is said of each method, remarks that bear on reading it, and which number decided."""

    decision: Decision
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    decided: str = ""

    @property
    def lines(self) -> tuple[Line, ...]:
        """Those of the method that the decision is about."""
        return next(finding.lines for finding in self.findings if finding.method == self.decision.method)

    @property
    def compared(self) -> str:
        """What the lines are about."""
        first, method = plain_name(self.findings[0].method), self.decision.method
        if self.decision.kind == "only":
            return ""
        which = "" if self.decision.kind == "use" or len(self.findings) == 2 else "The best of the others, "
        return f"{which}{plain_name(method)}, compared with {first}{self.decided}:"


def verdict(summary: Summary) -> Verdict:
    """Say whether anything helped, from a summary of last-epoch results."""
    findings = tuple(_finding(summary, method) for method in summary.methods)
    decision = decide(summary)
    return Verdict(
        decision, findings, (*_trade_offs(summary, decision), *_remarks(summary)), _decided(summary, decision)
    )


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


def _finding(summary: Summary, method: str) -> Finding:
    seeds = len(summary.seeds[method])
    top1, ece = column_of("top1"), summary.statistics[method, "ece"].mean
    accuracy = f"Right on {top1.cell(summary.statistics[method, 'top1'])} % of the test images"
    accuracy += f" ({seeds} seed{'s' * (seeds > 1)})"
    off = f"Its probabilities are off by {100 * ece:.1f} points on average (ECE {column_of('ece').number(ece)})"
    sides = f": {confidence_of(summary, method)}{_sign_note(summary, method)}."
    lines = [
        _line("Accuracy", accuracy, "", summary.differences.get((method, "top1"))),
        _line("Confidence", off, sides, summary.differences.get((method, "ece"))),
    ]
    return Finding(method, (*lines, *_robustness(summary, method)))


def _line(title: str, text: str, rest: str, difference: Difference | None) -> Line:
    """A sentence, how far it is from the first method, and what else there is to say."""
    if difference is None:
        return Line(title, f"{text}{rest or '.'}")
    return Line(title, f"{text}, {_against(difference)}{rest or '.'}", difference.effect, judge(difference))


def judge(difference: Difference) -> str:
    """The effect of a difference in words: better, worse, or why neither can be said."""
    return difference.verdict if difference.effect == "unclear" else difference.effect


def _decided(summary: Summary, decision: Decision) -> str:
    """Which number decided that a method is used."""
    if not decision.by:
        return ""
    column, difference = difference_column(decision.by), summary.differences[decision.method, decision.by]
    assert difference.mean is not None
    size = f"{column.with_unit(difference.mean)} (95 % interval {interval(column, difference)})"
    said = f"; decided by {METRICS[decision.by].title}, {size}"
    if decision.needs_temperature:
        scaled = summary.differences[decision.method, "scaled_nll"]
        of = difference_column("scaled_nll")
        assert scaled.mean is not None
        said += f", and by the NLL after temperature scaling, {of.with_unit(scaled.mean)} ({interval(of, scaled)})"
    return said


def _against(difference: Difference) -> str:
    if difference.mean is None:
        return f"with no seed in common with {difference.baseline}"
    column = _POINTS if difference.metric == "ece" else difference_column(difference.metric)
    text = f"{column.with_unit(difference.mean)} against {difference.baseline}"
    if difference.low is None:
        return f"{text}, from one pair of runs, so this may be the seed"
    return f"{text} (95 % interval {interval(column, difference)})"


def _robustness(summary: Summary, method: str) -> list[Line]:
    """One line on what was measured of attack and corruption."""
    measured = [
        (metric, statistic, summary.differences.get((method, metric.name)))
        for metric in METRICS.values()
        if metric.verdict and (statistic := summary.statistics.get((method, metric.name))) is not None
    ]
    if not measured:
        return []
    judgements = list(dict.fromkeys(judge(difference) for _, _, difference in measured if difference is not None))
    texts = []
    for metric, statistic, difference in measured:
        text = f"{metric.verdict} {column_of(metric.name).with_unit(statistic.mean)}"
        if difference is not None:
            text += f", {_against(difference)}" + f": {judge(difference)}" * (len(judgements) > 1)
        texts.append(text)
    text = "; ".join(texts)
    clear = [one for one in judgements if one in ("better", "worse")]
    words = " and ".join(sorted(clear)) or next(iter(judgements), "")
    return [Line("Robustness", f"{text[0].upper()}{text[1:]}.", clear[0] if len(clear) == 1 else "unclear", words)]


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


def _trade_offs(summary: Summary, decision: Decision) -> list[str]:
    """The methods that are better in accuracy and worse in their probabilities, or the other way round.

    What a temperature mends in the method to be used is no trade-off.
    """
    remarks = []
    for accuracy, of, words in (
        ("better", "worse", "more often right, but the probabilities are worse: choose by which of them you need"),
        ("worse", "better", "less often right, but the probabilities are better: choose by which of them you need"),
    ):
        found = [
            method
            for method in summary.methods[1:]
            if (method, "top1") in summary.differences
            and not (decision.needs_temperature and method == decision.method)
            and (summary.differences[method, "top1"].effect, probabilities(summary, method).effect) == (accuracy, of)
        ]
        if found:
            remarks.append(f"With {names(found)} the network is {words}.")
    return remarks


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
