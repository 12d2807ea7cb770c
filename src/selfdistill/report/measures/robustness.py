"""Robustness to attack: accuracy under FGSM and PGD by eps, and what both together say.

FGSM alone flatters a network whose gradients are hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from selfdistill.records import Evaluation
from selfdistill.records.evaluation import Robustness
from selfdistill.records.metrics import Attack, accuracy_at
from selfdistill.report.measured import Measured, every, few_images, over_seeds, parts, table
from selfdistill.report.pages import Figure, Section, Sheet
from selfdistill.report.style import MUTED, Panel, colour, heading, marker, plain
from selfdistill.report.tables import PERCENT, Column

_DASHED = (0, (3.5, 1.6))
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


def robustness_section(methods: Sequence[Measured[Evaluation]]) -> Section | None:
    """Tables and curves of both attacks; None where none was measured."""
    results = parts(methods, lambda evaluation: evaluation.robustness)
    if not results:
        return None
    n, few = every(results, lambda attacks: attacks.n), every(results, lambda attacks: attacks.pgd_n)
    steps = every(results, lambda attacks: attacks.pgd_steps)
    paper = every(results, lambda attacks: attacks.paper_eps)
    eps = results[0].values[0].eps
    fgsm = [
        ("Clean", PERCENT, lambda attacks: attacks.clean),
        *((at_eps(e), PERCENT, _at("fgsm", e)) for e in eps),
        ("Paper", PERCENT, lambda attacks: attacks.paper),
        ("No gradient", PERCENT, lambda attacks: attacks.vanished),
    ]
    pgd = [
        ("Clean", PERCENT, lambda attacks: attacks.pgd_clean),
        *((at_eps(e), PERCENT, _at("pgd", e)) for e in eps),
    ]
    return Section(
        title="Robustness to attack",
        about="How much accuracy is left where each pixel may be changed a little?",
        explain="Each image is changed by at most eps in every pixel, in the direction that raises the loss. FGSM "
        f"takes one step and PGD {steps}: PGD is the harder test, and the one to believe where the two disagree."
        f"{over_seeds(results)}",
        findings=(
            *(few_images(results, lambda attacks: attacks.pgd_n) or disagreements(results)),
            *hidden_gradients(results),
            *flattery(results),
        ),
        parts=(
            Sheet(table(results, fgsm), f"Accuracy (%) under FGSM, {n} test images"),
            Sheet(table(results, pgd), f"Accuracy (%) under PGD-{steps}, {few} of them, evenly spaced"),
            Figure(
                "attacks",
                "Accuracy by eps under FGSM and under PGD",
                _panels(results, few, steps),
                2,
                "wide",
                legend=True,
            ),
        ),
        notes=(
            "FGSM: one step of eps along the sign of the gradient of the true label's loss; eps is a share of the "
            "pixel range and pixels stay valid",
            f"PGD-{steps}: {steps} steps of 2.5 eps / {steps} within eps of the image, from a random start; an image "
            "that a smaller eps breaks counts as broken at a larger",
            f"Paper: the paper's protocol, FGSM with eps = {paper} in normalised units against the network's own "
            "prediction, clipped to [0, 1] there, as in Table 5; not comparable with other papers' FGSM numbers, nor "
            "with eps in pixels",
            "No gradient: images, %, whose gradient is exactly zero; right ones among them count as robust unattacked",
            "Networks: evaluation mode, float32",
        ),
    )


def _at(attack: Attack, eps: float) -> Callable[[Robustness], float | None]:
    return lambda attacks: accuracy_at(attacks, attack, eps)


def _panels(methods: Sequence[Measured[Robustness]], few: str, steps: str) -> list[Panel]:
    on = f"{few} images"
    alone = len(methods) == 1
    ways: tuple[tuple[tuple[Attack, ...], str], ...] = (
        ((("pgd_fgsm", "pgd"), f"FGSM, PGD-{steps} dashed"),)
        if alone
        else ((("pgd_fgsm",), f"FGSM, {on}"), (("pgd",), f"PGD-{steps}, the same images"))
    )
    return [
        Panel(
            f"attacks-{i}",
            f"Accuracy by eps: {title}.{over_seeds(methods)}",
            partial(_draw, methods=methods, attacks=attacks, title=title),
            4.2,
            3.0,
        )
        for i, (attacks, title) in enumerate(ways)
    ]


def _draw(
    figure: FigureBase, *, methods: Sequence[Measured[Robustness]], attacks: Sequence[Attack], title: str
) -> None:
    axes = figure.subplots()
    eps = methods[0].values[0].eps
    for attack in attacks:
        for method in methods:
            _curve(axes, method, attack, eps)
    axes.set_xticks(range(len(eps) + 1), ["0", *(at_eps(e).removesuffix("/255") for e in eps)])
    axes.set_ylim(bottom=0, top=100 * max(attacks.pgd_clean for m in methods for attacks in m.values) * 1.06 + 1)
    axes.set_xlabel("eps (1/255 of the pixel range)", color=MUTED)
    heading(axes, f"Accuracy (%): {title}")
    plain(axes)


def _curve(axes: Axes, method: Measured[Robustness], attack: Attack, eps: Sequence[float]) -> None:
    rows = [(attacks.pgd_clean, *(accuracy_at(attacks, attack, e) for e in eps)) for attacks in method.values]
    runs = 100 * np.array(rows, dtype=np.float64)  # None becomes NaN
    at, shade = np.arange(len(eps) + 1), colour(method.index)
    axes.fill_between(at, runs.min(axis=0), runs.max(axis=0), color=shade, alpha=0.16, linewidth=0)
    dashed = attack == "pgd"
    axes.plot(
        at, runs.mean(axis=0), color=shade, linewidth=1.7, linestyle=_DASHED if dashed else "-",
        marker=marker(method.index), markersize=4, markerfacecolor="none" if dashed else shade,
        clip_on=False,
    )  # fmt: skip


def disagreements(methods: Sequence[Measured[Robustness]]) -> tuple[str, ...]:
    """A sentence for each method that FGSM tells apart from the first one where PGD on the same images does not."""
    sentences = []
    for method in methods[1:]:
        found = [
            (eps, fgsm, pgd)
            for eps in method.values[0].eps
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


def hidden_gradients(methods: Sequence[Measured[Robustness]]) -> tuple[str, ...]:
    """A sentence on the methods many of whose images have no gradient at all."""
    shares = {m.name: s.mean for m in methods if (s := m.statistic(lambda attacks: attacks.vanished)) is not None}
    hidden = [f"{name} ({share * 100:.1f} %)" for name, share in shares.items() if share > HIDDEN]
    if not hidden:
        return ()
    return (
        f"A saturated softmax hides the gradient: it is exactly zero on part of the images of {', '.join(hidden)}. "
        "FGSM cannot move these images and so flatters the network; PGD, which needs the same gradient, may flatter it "
        "too.",
    )


def flattery(methods: Sequence[Measured[Robustness]]) -> tuple[str, ...]:
    """For a single network: where FGSM leaves most right that PGD breaks."""
    if len(methods) != 1:
        return ()
    gaps = [
        (fgsm.mean - pgd.mean, fgsm.mean, pgd.mean, eps)
        for eps in methods[0].values[0].eps
        if (fgsm := methods[0].statistic(_at("pgd_fgsm", eps))) and (pgd := methods[0].statistic(_at("pgd", eps)))
    ]
    if not gaps or max(gaps)[0] <= _POINTS:
        return ()
    _, fgsm_left, pgd_left, eps = max(gaps)
    steps = every(methods, lambda attacks: attacks.pgd_steps)
    return (
        f"FGSM alone flatters: at {at_eps(eps)} it leaves {fgsm_left * 100:.1f} % right, PGD-{steps} on the same "
        f"images {pgd_left * 100:.1f} %.",
    )


@dataclass(frozen=True)
class _Compared:
    """A method against the first one under an attack: 1, -1 or, where it is not clear, 0; and what is left of both."""

    sign: int
    mean: float
    words: str
    left: tuple[float, float]


def _against(
    method: Measured[Robustness], baseline: Measured[Robustness], attack: Attack, eps: float
) -> _Compared | None:
    pick = _at(attack, eps)
    difference, interval = method.against(baseline, pick)
    ours, theirs = method.statistic(pick), baseline.statistic(pick)
    if difference is None or ours is None or theirs is None:
        return None
    mean, left = difference.mean, (ours.mean, theirs.mean)
    points = f"{_DIFFERENCE.number(mean)} points"
    if interval is None:
        return _Compared((mean > _POINTS) - (mean < -_POINTS), mean, f"{points} (one pair of runs)", left)
    low, high = interval
    ends = f"{_DIFFERENCE.number(low)} to {_DIFFERENCE.number(high)}"
    return _Compared((low > 0) - (high < 0), mean, f"{points} (95 % interval {ends})", left)
