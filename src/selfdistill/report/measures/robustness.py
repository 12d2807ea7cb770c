"""Robustness to attack: accuracy under FGSM and PGD by eps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from selfdistill.records.metrics import accuracy_at
from selfdistill.report.measured import Measured, Pick, every, over_seeds, parts, table
from selfdistill.report.measures.attacks import at_eps, disagreements, flattery, hidden_gradients
from selfdistill.report.section import Figure, Section, Sheet
from selfdistill.report.style import MUTED, Panel, colour, heading, marker, plain
from selfdistill.report.tables import Column

_ACCURACY = Column("accuracy", "Accuracy", "%", 100, 1)
_DASHED = (0, (3.5, 1.6))

Attack = Literal["fgsm", "pgd", "pgd_fgsm"]


def robustness_section(methods: Sequence[Measured]) -> Section | None:
    """Tables and curves of both attacks; None where none was measured."""
    shown = parts(methods, "robustness")
    if not shown:
        return None
    n, few = every(shown, lambda values: values["n"]), every(shown, lambda values: values["pgd_n"])
    steps = every(shown, lambda values: values["pgd_steps"])
    paper = every(shown, lambda values: values["paper_eps"])
    eps = shown[0].values[0]["eps"]
    fgsm = [
        ("Clean", _ACCURACY, lambda values: values["clean"]),
        *((at_eps(e), _ACCURACY, _at("fgsm", e)) for e in eps),
        ("Paper", _ACCURACY, lambda values: values["paper"]),
        ("No gradient", _ACCURACY, lambda values: values["vanished"]),
    ]
    pgd = [
        ("Clean", _ACCURACY, lambda values: values["pgd_clean"]),
        *((at_eps(e), _ACCURACY, _at("pgd", e)) for e in eps),
    ]
    return Section(
        title="Robustness to attack",
        explain="Each image is changed by at most eps in every pixel, in the direction that raises the loss. FGSM "
        f"takes one step and PGD {steps}: PGD is the harder test, and the one to believe where the two disagree."
        f"{over_seeds(shown)}",
        findings=(*disagreements(shown), *hidden_gradients(shown), *flattery(shown)),
        parts=(
            Sheet(table(shown, fgsm), f"Accuracy (%) under FGSM, {n} test images"),
            Sheet(table(shown, pgd), f"Accuracy (%) under PGD-{steps}, {few} of them, evenly spaced"),
            Figure(
                "attacks",
                "Accuracy by eps under FGSM and under PGD",
                _panels(shown, few, steps),
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


def _at(attack: Attack, eps: float) -> Pick:
    return lambda values: accuracy_at(values, attack, eps)


def _panels(methods: Sequence[Measured], few: str, steps: str) -> list[Panel]:
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


def _draw(figure: FigureBase, *, methods: Sequence[Measured], attacks: Sequence[Attack], title: str) -> None:
    axes = figure.subplots()
    eps = methods[0].values[0]["eps"]
    for attack in attacks:
        for method in methods:
            _curve(axes, method, attack, eps)
    axes.set_xticks(range(len(eps) + 1), ["0", *(at_eps(e).removesuffix("/255") for e in eps)])
    axes.set_ylim(bottom=0, top=100 * max(values["pgd_clean"] for m in methods for values in m.values) * 1.06 + 1)
    axes.set_xlabel("eps (1/255 of the pixel range)", color=MUTED)
    heading(axes, f"Accuracy (%): {title}")
    plain(axes)


def _curve(axes: Axes, method: Measured, attack: Attack, eps: Sequence[float]) -> None:
    picks: list[Pick] = [lambda values: values["pgd_clean"], *(_at(attack, e) for e in eps)]
    runs = np.array(
        [[np.nan if (v := pick(values)) is None else 100 * v for pick in picks] for values in method.values]
    )
    at, shade = np.arange(len(picks)), colour(method.index)
    axes.fill_between(at, runs.min(axis=0), runs.max(axis=0), color=shade, alpha=0.16, linewidth=0)
    dashed = attack == "pgd"
    axes.plot(
        at, runs.mean(axis=0), color=shade, linewidth=1.7, linestyle=_DASHED if dashed else "-",
        marker=marker(method.index), markersize=4, markerfacecolor="none" if dashed else shade,
        clip_on=False,
    )  # fmt: skip
