"""The search by which the settings were chosen: every trial, the best ones, and which settings mattered."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from selfdistill.records.search import SearchRecord, Trial
from selfdistill.report.pages import Figure, Section, Sheet
from selfdistill.report.style import MUTED, Panel, colour, heading, marker, plain
from selfdistill.report.tables import DASH, Table
from selfdistill.text import count_of

_MOST_ROWS = 10
_NAMES = {"nll": "NLL", "accuracy": "error rate"}


def search_section(search: SearchRecord) -> Section:
    """The history of a search, its best trials, and the importance of the settings."""
    of = list(dict.fromkeys(trial.of for trial in search.trials))
    name = _NAMES[search.metric]
    alt = f"Validation {name} of every trial in the order in which they ended, and the best so far, by method."
    panels = [Panel("search-history", alt, partial(_draw_history, search=search, of=of), 5.0, 2.9)]
    for method, shares in search.importance.items():
        if shares:
            about = f"How much of the differences between the trials of {method} each setting explains."
            draw = partial(_draw_importance, method=method, shares=shares)
            panels.append(Panel(f"search-importance-{of.index(method)}", about, draw, 5.0, 0.8 + 0.36 * len(shares)))
    stopped = sum(trial.state == "stopped" for trial in search.trials)
    failed = [trial for trial in search.trials if trial.state == "failed"]
    return Section(
        title="The search",
        about="Which settings were tried, and which mattered",
        explain=f"{count_of(len(search.trials), 'trial')}, of which {stopped} were stopped early and {len(failed)} "
        f"failed. Settings were chosen by the {name} on {search.val_n:,} validation images ({search.val_split}), never "
        "by the test images; the networks above were trained afresh on training and validation images.",
        findings=tuple(f"{trial.method} failed: {trial.reason}." for trial in failed),
        parts=(
            Sheet(_best_trials(search), "The best trials"),
            *(Figure(panel.name, panel.alt, [panel], 1, "full") for panel in panels),
        ),
        notes=(
            "Trial: one network; trials with the same number have the same seed",
            "Stopped: not among the better half after a quarter or half of the epochs (successive halving)",
            "Importance: the share of the variance between a method's finished trials that a setting explains "
            "(fANOVA); of few trials it is a rough guess",
        ),
    )


def _best_trials(search: SearchRecord) -> Table:
    finished = [trial for trial in search.trials if trial.state == "finished"]
    best = sorted(finished, key=lambda trial: trial.loss(search.metric))[:_MOST_ROWS]
    with_rates = any(trial.rates for trial in best)
    rows = tuple(
        (
            trial.method,
            *([", ".join(f"{name} {value:g}" for name, value in trial.rates.items())] if with_rates else []),
            DASH if trial.top1 is None else f"{100 * trial.top1:.1f}",
            DASH if trial.nll is None else f"{trial.nll:.3f}",
            f"{trial.number}",
        )
        for trial in best
    )
    rates = ["Rates"] if with_rates else []
    return Table(("Method", *rates, "Validation top-1 (%)", "Validation NLL", "Trial"), rows)


def _value(search: SearchRecord, trial: Trial) -> float:
    return trial.loss(search.metric) * (1 if search.metric == "nll" else 100)


def _draw_history(figure: FigureBase, *, search: SearchRecord, of: list[str]) -> None:
    axes = figure.subplots()
    ended = [(at, trial) for at, trial in enumerate(search.trials, 1) if trial.state != "failed"]
    for index, method in enumerate(of):
        own = [(at, trial) for at, trial in ended if trial.of == method]
        for state, face in (("finished", colour(index)), ("stopped", "none")):
            points = [(at, _value(search, trial)) for at, trial in own if trial.state == state]
            axes.plot(
                *zip(*points, strict=True) if points else ([], []), linestyle="none", marker=marker(index),
                markersize=6, color=colour(index), markerfacecolor=face, label=method if face != "none" else None,
            )  # fmt: skip
        finished = [(at, _value(search, trial)) for at, trial in own if trial.state == "finished"]
        lowest = [min(value for _, value in finished[: n + 1]) for n in range(len(finished))]
        if finished:
            axes.step([at for at, _ in finished], lowest, where="post", color=colour(index), linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Trial; hollow: stopped early", color=MUTED)
    axes.legend(frameon=False, fontsize=8)
    heading(axes, "Validation NLL" if search.metric == "nll" else "Validation error rate (%)")
    plain(axes)


def _draw_importance(figure: FigureBase, *, method: str, shares: dict[str, float]) -> None:
    axes = figure.subplots()
    names = sorted(shares, key=lambda name: shares[name])
    axes.barh(names, [100 * shares[name] for name in names], color=colour(0), height=0.55)
    axes.set(xlim=(0, 100))
    heading(axes, f"Importance of the settings of {method} (%)")
    plain(axes, grid="x")
