"""The figures of the reproduced tables."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selfdistill.paper import TableCell
from selfdistill.paper.figures import result_figures
from selfdistill.paper.pages import write_page
from tests.paper.conftest import full_scale_result


@pytest.mark.parametrize(
    ("figure", "rows", "panels"),
    [
        ("heat", [("lambda 1.0", "beta 0.1"), ("lambda 1.0", "beta 0.3"), ("lambda 5.0", "beta 0.1")], 1),
        ("bars", [(f"DML: {attack}", way) for attack in ("FGSM", "PGD") for way in ("Base", "With")], 2),
        ("curves", [(f"{when}, all", column) for when in ("Start", "End") for column in ("Cosine", "L1")], 2),
    ],
)
def test_figures_have_their_panels_and_file(
    figure: str, rows: list[tuple[str, str]], panels: int, tmp_path: Path
) -> None:
    cells = tuple(TableCell(*row, "%", 2, {41: float(at)}, 1, 1, 1, None, None, "") for at, row in enumerate(rows))
    result = full_scale_result(figure=figure, cells=cells, table="table14")
    (found,) = result_figures(result)
    assert len(found.panels) == panels
    write_page(result, tmp_path)
    assert (tmp_path / "figures" / f"table14-{figure}.svg").is_file()
    assert result_figures(full_scale_result(figure=figure, cells=())) == []


def test_figures_show_the_spread_over_seeds() -> None:
    def axes_of(kind: str, cells: list[TableCell], panel: int) -> Axes:
        (found,) = result_figures(full_scale_result(figure=kind, cells=tuple(cells)))
        drawn = Figure()
        found.panels[panel].draw(drawn)
        return drawn.axes[0]

    cell = TableCell("DML: FGSM", "Base", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 1, 1, None, None, "")
    bars = axes_of("bars", [cell], 0)
    (whisker,) = bars.containers[-1].errorbar.lines[2]  # type: ignore[attr-defined]
    assert whisker.get_segments()[0].tolist() == [[0.0, 76.0], [0.0, 78.0]], "mean plus and minus the sd"
    norms = [
        replace(cell, row=f"{when}, all", column=column)
        for when in ("Start", "50 % of the epochs")
        for column in ("Cosine", "L1, forward", "L1, reverse")
    ]
    cosine, drawn = axes_of("curves", norms, 0), axes_of("curves", norms, 1)
    assert [len(axes.lines) for axes in (cosine, drawn)] == [3 + 1, 2 * (3 + 1)]
    assert [axes.get_yscale() for axes in (cosine, drawn)] == ["linear", "log"]
    assert [text.get_text() for text in drawn.get_xticklabels()] == ["Start", "50 %"]


def test_a_narrow_logarithmic_axis_has_plain_labels() -> None:
    cell = TableCell("Start, all", "L1, forward", "", 2, {41: 2.8}, 1, 1, 1, None, None, "")
    cells = (cell, replace(cell, column="L1, reverse", values={41: 3.9}))
    (found,) = result_figures(full_scale_result(figure="curves", cells=cells))
    drawn = Figure()
    found.panels[-1].draw(drawn)
    axis = drawn.axes[0].yaxis
    low, high = axis.get_view_interval()
    seen = [
        label.get_text()
        for at, label in zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
        if low <= at <= high
    ]
    assert seen
    assert all(float(text) > 0 for text in seen)
    assert {label.get_text() for label in axis.get_ticklabels(minor=True)} <= {""}
