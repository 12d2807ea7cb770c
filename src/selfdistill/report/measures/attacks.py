"""What FGSM and PGD together say: FGSM alone flatters a network whose gradients are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfdistill.records.metrics import accuracy_at
from selfdistill.report.measured import Measured, Pick, every
from selfdistill.report.tables import Column

HIDDEN = 0.05
"""The report names a method where more than this share of the images has no gradient."""
_BROKEN = 0.01  # with less than this left right, PGD tells no networks apart
_POINTS = 0.02  # without an interval, a difference of so much counts
_DIFFERENCE = Column("difference", "Difference", "points", 100, 1, signed=True)


def at_eps(eps: float) -> str:
    """An eps as the field writes it.

    Example:
        >>> at_eps(0.5 / 255), at_eps(8 / 255)
        ('0.5/255', '8/255')
    """
    return f"{round(eps * 255, 4):g}/255"


def disagreements(methods: Sequence[Measured]) -> tuple[str, ...]:
    """A sentence for each method that FGSM tells apart from the first one where PGD on the same images does not."""
    sentences = []
    for method in methods[1:]:
        found = [
            (eps, fgsm, pgd)
            for eps in method.values[0]["eps"]
            if (fgsm := _against(method, methods[0], "pgd_fgsm", eps))
            and (pgd := _against(method, methods[0], "pgd", eps))
            and fgsm.sign != 0
            and pgd.sign != fgsm.sign
            and pgd.mean * fgsm.sign < abs(fgsm.mean)  # as large a difference, only less certain, is no disagreement
        ]
        if not found:
            continue
        standing = [one for one in found if max(one[2].left) >= _BROKEN] or found
        eps, fgsm, pgd = max(standing, key=lambda one: abs(one[1].mean))
        signs = {fgsm.sign for _, fgsm, _ in found}
        where = "above" if signs == {1} else "below" if signs == {-1} else "away from"
        at = ", ".join(at_eps(eps) for eps, _, _ in found)
        ours, theirs = (f"{100 * left:.1f} %" for left in pgd.left)
        # An interval that holds zero may hold FGSM's difference too: that is no disagreement yet.
        head = "FGSM and PGD disagree on" if pgd.sign else "PGD does not confirm FGSM on"
        if max(pgd.left) < _BROKEN:
            judged = f"PGD breaks both, leaving {ours} and {theirs} right"
        else:
            way = "PGD puts it on the other side" if pgd.sign else "PGD shows no clear difference"
            judged = f"{way}: {pgd.words}, with {ours} and {theirs} left right"
        sentences.append(
            f"{head} {method.name}: FGSM puts it {where} {methods[0].name} at {at}"
            f"{f'; at {at_eps(eps)}' * (len(found) > 1)}: {fgsm.words}. On the same images {judged}."
        )
    return tuple(sentences)


def hidden_gradients(methods: Sequence[Measured]) -> tuple[str, ...]:
    """A sentence on the methods many of whose images have no gradient at all."""
    shares = {m.name: s.mean for m in methods if (s := m.statistic(lambda values: values["vanished"])) is not None}
    hidden = [f"{name} ({share * 100:.1f} %)" for name, share in shares.items() if share > HIDDEN]
    if not hidden:
        return ()
    return (
        f"A saturated softmax hides the gradient: it is exactly zero on part of the images of {', '.join(hidden)}. "
        "FGSM cannot move these images and so flatters the network; PGD, which needs the same gradient, may flatter it "
        "too.",
    )


def flattery(methods: Sequence[Measured]) -> tuple[str, ...]:
    """For a single network: where FGSM leaves most right that PGD breaks."""
    if len(methods) != 1:
        return ()
    gaps = [
        (fgsm.mean - pgd.mean, fgsm.mean, pgd.mean, eps)
        for eps in methods[0].values[0]["eps"]
        if (fgsm := methods[0].statistic(_pick("pgd_fgsm", eps))) and (pgd := methods[0].statistic(_pick("pgd", eps)))
    ]
    if not gaps or max(gaps)[0] <= _POINTS:
        return ()
    _, fgsm_left, pgd_left, eps = max(gaps)
    steps = every(methods, lambda values: values["pgd_steps"])
    return (
        f"FGSM alone flatters: at {at_eps(eps)} it leaves {fgsm_left * 100:.1f} % right, PGD-{steps} on the same "
        f"images {pgd_left * 100:.1f} %.",
    )


def _pick(attack: str, eps: float) -> Pick:
    return lambda values: accuracy_at(values, attack, eps)


@dataclass(frozen=True)
class _Told:
    """A method against the first one under an attack: 1, -1 or, where it is not clear, 0; and what is left of both."""

    sign: int
    mean: float
    words: str
    left: tuple[float, float]


def _against(method: Measured, baseline: Measured, attack: str, eps: float) -> _Told | None:
    pick = _pick(attack, eps)
    difference, interval = method.against(baseline, pick)
    ours, theirs = method.statistic(pick), baseline.statistic(pick)
    if difference is None or ours is None or theirs is None:
        return None
    mean, left = difference.mean, (ours.mean, theirs.mean)
    points = f"{_DIFFERENCE.number(mean)} points"
    if interval is None:
        return _Told((mean > _POINTS) - (mean < -_POINTS), mean, f"{points} (one pair of runs)", left)
    low, high = interval
    ends = f"{_DIFFERENCE.number(low)} to {_DIFFERENCE.number(high)}"
    return _Told((low > 0) - (high < 0), mean, f"{points} (95 % interval {ends})", left)
