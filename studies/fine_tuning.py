"""What fine-tuning on few photographs gives, beside a linear probe, fastai and timm: as a table, and in words.

The lines of ``results/fine_tuning.jsonl`` are those of ``benchmarks/baselines.py --json``.
"""

import json
from statistics import fmean

from archive import RESULTS
from linked import points_cell

from selfdistill.records import paired
from selfdistill.report.tables import Table, markdown
from selfdistill.text import join_names

FILE = RESULTS / "fine_tuning.jsonl"
BASELINE = "CrossEntropy()"
OTHERS = ("linear probe", "fastai", "timm")
FROZEN = ", frozen"

Row = dict[str, float]
Rows = dict[tuple[int, str], dict[int, Row]]
"""By images per class and what was trained: a row of each draw of the images."""


def load() -> Rows:
    """Return the committed rows."""
    found: Rows = {}
    for line in FILE.read_text().splitlines():
        row = json.loads(line)["row"]
        found.setdefault((row["per_class"], row["what"]), {})[row["draw"]] = row
    return dict(sorted(found.items(), key=lambda one: (one[0][0], FROZEN in one[0][1])))


def table(rows: Rows) -> str:
    """One row for each network and number of images, with its difference to cross-entropy on the same images."""
    cells = []
    for (per_class, what), draws in rows.items():
        baseline = _baseline_of(what)
        beside = rows.get((per_class, baseline), {})
        of = {name: [row[name] for row in draws.values()] for name in ("steps", "top1", "nll", "ece", "train_top1")}
        cells.append(
            (
                str(per_class),
                what,
                f"{fmean(of['steps']):,.0f}",
                f"{100 * fmean(of['train_top1']):.1f}",
                f"{100 * fmean(of['top1']):.2f}",
                "" if what == baseline else _difference(draws, beside),
                f"{fmean(of['nll']):.3f}",
                f"{fmean(of['ece']):.3f}",
                str(len(draws)),
            )
        )
    headings = (
        "Images per class",
        "What",
        "Optimiser steps",
        "Training top-1 (%)",
        "Top-1 (%)",
        "to cross-entropy (points)",
        "NLL",
        "ECE",
        "Draws",
    )
    return markdown(Table(headings, tuple(cells)))


def front_page(rows: Rows) -> str:
    """Return cross-entropy's accuracy and what the others change, one row for each number of images."""
    shown = (*OTHERS, "SDDropout(weight=0.1)", "SDDropout()")
    headings = ["Photographs per class", f"`{BASELINE}`", *(name if name in OTHERS else f"`{name}`" for name in shown)]
    cells, trained = [], []
    for per_class in dict.fromkeys(per_class for per_class, _ in rows):
        beside = rows.get((per_class, BASELINE), {})
        if not beside:
            continue
        found = [rows.get((per_class, what), {}) for what in shown]
        trained += [row for draws in (beside, *found[1:]) for row in draws.values()]
        mean = f"{100 * fmean(row['top1'] for row in beside.values()):.1f}<br>n = {len(beside)}"
        cells.append([str(per_class), mean, *(points_cell(_top1(draws), _top1(beside)) or "-" for draws in found)])
    steps = join_names([f"{count:,}" for count in sorted({row["steps"] for row in trained})])
    fitted = min(row["train_top1"] for row in trained)
    body = [" | ".join(row) for row in (headings, [":--", *["--:"] * (len(headings) - 1)], *cells)]
    return (
        "\n".join(f"| {line} |" for line in body) + "\n\n"
        "Cross-entropy's top-1 accuracy in percent, then how many points the others have more or less, paired by draw "
        "of the photographs; n draws, from two on with the 95 % interval. Caltech-101, 101 classes, EfficientNet-Lite0 "
        f"at 96 pixels; {steps} optimiser steps but for the probe; training accuracy {100 * fitted:.1f} % or more. "
        "[Calibration, and what each is](docs/guide/photographs.md)."
    )


def findings(rows: Rows) -> str:
    """How our fine-tuning stands to the others, and the methods to cross-entropy, as far as was measured."""
    lines = []
    for other in OTHERS:
        if gains := _gains(rows, BASELINE, other):
            spread = f"{min(gains):+.1f} to {max(gains):+.1f}" if len(gains) > 1 else f"{gains[0]:+.1f}"
            pairs = f"{len(gains)} pair{'s' * (len(gains) > 1)}"
            lines.append(
                f"- Cross-entropy with our defaults, beside {other}: {spread} points of top-1 accuracy ({pairs})."
            )
    for method in dict.fromkeys(what for _, what in rows if what not in OTHERS):
        if method == _baseline_of(method):
            continue
        gains = _gains(rows, method, _baseline_of(method))
        ahead = f"{sum(gain > 0 for gain in gains)} of {len(gains)} pairs"
        points = fmean(gains)
        lines.append(f"- `{method}`: ahead of cross-entropy in {ahead}, {points:+.1f} points on average.")
    return "\n".join(lines)


def _gains(rows: Rows, what: str, other: str) -> list[float]:
    """Points of accuracy that one has more than another on the same images, for each draw that both have."""
    return [
        100 * (row["top1"] - theirs[draw]["top1"])
        for (per_class, name), draws in rows.items()
        if name == what and (theirs := rows.get((per_class, other)))
        for draw, row in draws.items()
        if draw in theirs
    ]


def _baseline_of(method: str) -> str:
    return BASELINE + FROZEN if method.endswith(FROZEN) else BASELINE


def _difference(ours: dict[int, Row], theirs: dict[int, Row]) -> str:
    of_ours, of_theirs = ({draw: 100 * row["top1"] for draw, row in rows.items()} for rows in (ours, theirs))
    found, interval = paired(of_ours, of_theirs)
    if found is None:
        return ""
    return f"{found.mean:+.2f}" + (f" ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else "")


def _top1(rows: dict[int, Row]) -> dict[int, float]:
    return {draw: row["top1"] for draw, row in rows.items()}
