"""Which method to use: one rule, from the paired intervals alone, the same whoever wins; and what to run next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from selfdistill.records import FEW_IMAGES, TOO_FEW_IMAGES, VALIDATION, Difference, RunRecord, Summary
from selfdistill.report.predictions import run_folder
from selfdistill.text import printable

LEAST_SEEDS, ENOUGH_SEEDS = 3, 5
"""With fewer seeds in common than the first nothing is decided; the second is what a next comparison has at least."""

MARGIN = 0.01
"""A better calibrated method is used if its interval says that it costs less top-1 accuracy than this, a fraction."""


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        kind: "use" a method; "keep" the first one; too "few seeds" or "few images" to say; or there is one "only".
        headline: the same in words.
        method: to be used, or the one with the highest accuracy of those that are not: the one to look at.
        by: the metric in which a method to be used is better: "top1", "nll" or "ece"; "" where none is used.
        needs_temperature: whether a method to be used has worse probabilities until they are temperature-scaled.
    """

    kind: Literal["use", "keep", "few seeds", "few images", "only"]
    headline: str
    method: str
    by: str = ""
    needs_temperature: bool = False

    def network(self, first: str) -> str:
        """The method whose networks are worth a closer look: the one to be used, or where it is kept, the first."""
        return first if self.kind == "keep" else self.method


def decide(summary: Summary) -> Decision:
    r"""Decide between the first method and the others.

    For each other method and seed s that both have, :math:`d_s = m_s - m_s^{first}` in top-1 accuracy, NLL and ECE.
    Their mean has the 95 % interval :math:`\bar d \pm t_{0.975,\,n-1}\, sd(d) / \sqrt n`; a method is better or worse
    where it does not hold zero.

    1. Fewer than 100 test images, or fewer than `LEAST_SEEDS` seeds in common with every method: nothing is decided.
    2. A method is used if its accuracy is better and its probabilities are not worse; or if its probabilities are
       better and its interval of the accuracy lies above minus `MARGIN`. Among several, the highest gain in accuracy
       wins, or else in NLL, or else in ECE.
    3. Otherwise a method is used, with a temperature, if its accuracy is better and its NLL after temperature scaling
       is not worse than that of the first method, scaled too. Among several, the highest gain wins.
    4. If a method's probabilities are better and its accuracy neither worse nor safe in that sense, more seeds are
       needed.
    5. Otherwise the first method is kept.

    Probabilities are judged as `probabilities` says.

    Robustness does not enter.

    Example:
        >>> from selfdistill.records import Statistic
        >>> accuracy = {("CrossEntropy()", "top1"): Statistic(0.9, None, 1)}
        >>> decide(Summary(("CrossEntropy()",), {"CrossEntropy()": (0,)}, accuracy, {})).kind
        'only'
    """
    first, *others = summary.methods
    if not others:
        return Decision("only", f"Only {plain_name(first)} was measured: there is nothing to compare it with", first)
    best = max(others, key=lambda method: summary.statistics[method, "top1"].mean)
    pairs = {method: (summary.differences[method, "top1"], probabilities(summary, method)) for method in others}
    if any(top1.verdict == TOO_FEW_IMAGES for top1, _ in pairs.values()):
        return Decision("few images", "Too few test images to decide", best)
    pairs = {method: of for method, of in pairs.items() if of[0].n >= LEAST_SEEDS}
    if not pairs:
        return Decision("few seeds", "Too few seeds to decide", best)
    if helping := {method: of for method, of in pairs.items() if _helps(*of)}:
        chosen = max(helping, key=lambda method: _gain(*helping[method]))
        return Decision("use", f"Use {chosen}", chosen, by=_better_in(*helping[chosen]).metric)
    if scaled := {m: of for m, of in pairs.items() if of[0].effect == "better" and _is_mended(summary, m)}:
        chosen = max(scaled, key=lambda method: _gain(*scaled[method]))
        return Decision("use", f"Use {chosen}, with a temperature", chosen, by="top1", needs_temperature=True)
    if promising := [m for m, (top1, of) in pairs.items() if of.effect == "better" and top1.effect == "unclear"]:
        return Decision("few seeds", "Too few seeds to decide", max(promising, key=lambda m: _gain(*pairs[m])))
    return Decision("keep", f"Keep {plain_name(first)}", best)


def probabilities(summary: Summary, method: str) -> Difference:
    """The difference that says whether a method's probabilities are better: in NLL, where undecided in ECE.

    The NLL is a proper score: on average only the true probabilities make it lowest. The ECE is not: a network that is
    sure of nothing, and right as rarely as it says, has none.
    """
    nll = summary.differences[method, "nll"]
    return summary.differences[method, "ece"] if nll.effect == "unclear" else nll


def plain_name(method: str) -> str:
    """A method's name in a sentence."""
    return "cross-entropy" if method == "CrossEntropy()" else method


def _helps(top1: Difference, of: Difference) -> bool:
    if top1.effect == "better":
        return of.effect != "worse"
    return of.effect == "better" and top1.effect == "unclear" and top1.low is not None and top1.low > -MARGIN


def _is_mended(summary: Summary, method: str) -> bool:
    """Whether temperature scaling leaves a method's NLL no worse than the first method's."""
    scaled = summary.differences.get((method, "scaled_nll"))
    return scaled is not None and scaled.n >= LEAST_SEEDS and scaled.effect != "worse"


def _better_in(top1: Difference, of: Difference) -> Difference:
    """The difference that speaks for a method."""
    return top1 if top1.effect == "better" else of


def _gain(top1: Difference, of: Difference) -> tuple[int, float]:
    """For sorting: a clear gain in accuracy first, then in NLL, then in ECE; each by its size."""
    found = _better_in(top1, of)
    assert found.mean is not None
    return ("ece", "nll", "top1").index(found.metric), abs(found.mean)


class NextStep(NamedTuple):
    """Why, and the command."""

    why: str
    command: str


def next_step(
    decision: Decision,
    summary: Summary,
    records: Sequence[RunRecord],
    folders: Sequence[Path],
    *,
    best: Path | None = None,
) -> NextStep | None:
    """Say what to run next: use a network, or compare with more seeds or more images.

    Args:
        best: the network of a search, whose settings a new comparison would not search again.

    Returns:
        None if the runs are not there.
    """
    more = max(ENOUGH_SEEDS, 2 * max(map(len, summary.seeds.values())))
    if best is not None:
        undecided = decision.kind == "few seeds" or (decision.kind == "keep" and _may_still_gain(summary))
        hint = f"Say --seeds {more} in the same command for a surer answer. " if undecided else ""
        return NextStep(f"{hint}Classify images with the network of this search:", _join("predict", best, "new-photos"))
    method = decision.network(summary.methods[0])
    run = next((path for one in records if one.method == method and (path := run_folder(one, folders))), None)
    if run is None:
        return None

    in_python = records[0].recipe.data_is_in_python

    def compare(out: Path) -> str:
        if in_python:
            return f"selfdistill.compare(model, data, methods={list(summary.methods)}, seeds={more}, out={str(out)!r})"
        words = ["--recipe", run / "recipe.yaml", "--methods", *summary.methods, "--seeds", more]
        return _join("compare", *words, *_options(records[0]), "--out", out)

    if decision.kind == "few images":
        n = records[0].evaluation.n
        why = f"Add test images ({n} now, at least {FEW_IMAGES} are needed) and compare again:"
        return NextStep(why, compare(Path(f"{run.parent}-more-images")))
    if decision.kind == "few seeds":
        return NextStep(f"Compare with {more} seeds:", compare(run.parent))
    if decision.kind == "keep" and _may_still_gain(summary):
        why = f"A gain of more than {MARGIN * 100:g} point is not ruled out yet; {more} seeds say more:"
        return NextStep(why, compare(run.parent))
    if decision.needs_temperature and not in_python and not (run / VALIDATION).is_file():
        why = "Fit the temperature on labelled images that the network was neither trained nor tested on, then predict:"
        return NextStep(why, _join("calibrate", run, "--data", "labelled-photos"))
    predict = f"selfdistill.predict({str(run)!r}, images)" if in_python else _join("predict", run, "new-photos")
    return NextStep("Classify images with a network of this comparison:", predict)


def _may_still_gain(summary: Summary) -> bool:
    differences = [summary.differences[method, "top1"] for method in summary.methods[1:]]
    return any(d.effect == "unclear" and d.high is not None and d.high > MARGIN for d in differences)


def _options(record: RunRecord) -> list[object]:
    """The options by which the runs were evaluated."""
    if not record.evaluation.measured:
        return ["--quick"]
    config = record.evaluation.measured.config
    corruptions = ["--corruptions", config.corruptions] if config.corruptions else []
    return ["--max-images", config.max_images, *(["--ood", *config.ood] if config.ood else []), *corruptions]


def _join(*words: object) -> str:
    return printable(shlex.join(["selfdistill", *map(str, words)]))
