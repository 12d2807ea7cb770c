"""Abstention and prediction sets: what validation images promise, and what came of it on the test images."""

from __future__ import annotations

from collections.abc import Sequence

from selfdistill.evaluation.promises import Promises
from selfdistill.report.measured import Measured, every, table
from selfdistill.report.pages import Section, Sheet
from selfdistill.report.tables import Column

_SHARE = Column("share", "Share", "%", 100, 1)
_SIZE = Column("size", "Classes", digits=2)


def promises_section(methods: Sequence[Measured[Promises]]) -> Section | None:
    """Answered share and error, coverage and size of the sets; None where no run has validation images."""
    if not methods:
        return None
    found = [one for method in methods for one in method.values]
    risk, coverage = found[0].risk, found[0].coverage
    columns = [
        ("Answered (%)", _SHARE, lambda one: one.answered),
        ("Error (%)", _SHARE, lambda one: one.error),
        ("Coverage (%)", _SHARE, lambda one: one.covered),
        ("Classes per set", _SIZE, lambda one: one.size),
        ("Empty (%)", _SHARE, lambda one: one.empty),
    ]
    n_val, n = every(methods, lambda one: one.n_val), every(methods, lambda one: one.n)
    return Section(
        title="Abstention and prediction sets",
        about="Does it keep what it promises?",
        explain=f"Temperature, threshold and sets are found on {n_val} validation images and tried on the {n} test "
        f'images, as by selfdistill predict --abstain {risk:g} ("not sure", so that at most {100 * risk:g} % of the '
        f"answers are wrong) and --conformal {coverage:g} (sets that hold the right class in {100 * coverage:g} % of "
        "the cases).",
        findings=_findings(found),
        parts=(Sheet(table(methods, columns)),),
        notes=(
            "Answered: the share of the test images of which the network is sure enough; a dash where the validation "
            "images allow no such promise",
            "Error: wrong among the answered",
            "Coverage: the share of the sets that hold the right class; by THR, which makes some sets empty where the "
            "network is right more often than asked for",
        ),
    )


def _findings(found: Sequence[Promises]) -> tuple[str, ...]:
    said, of = [], f"of {len(found)} network{'s' * (len(found) > 1)}"
    usual = [one.usual for one in found]
    inside = sum(low <= one.covered <= high for one, (low, high) in zip(found, usual, strict=True))
    low, high = (_SHARE.number(end) for end in (min(low for low, _ in usual), max(high for _, high in usual)))
    said.append(f"Sets: for {inside} {of} the coverage is in {low} to {high} %, where chance puts it 19 times in 20.")
    answering = [one for one in found if one.error is not None]
    if answering:
        above = sum(one.error > one.risk for one in answering if one.error is not None)
        said.append(f"Abstention: the error is above {100 * found[0].risk:g} % for {above} {of}.")
    if silent := sum(one.answered is None for one in found):
        said.append(f"Abstention: for {silent} {of} the validation images allow no such promise.")
    return tuple(said)
