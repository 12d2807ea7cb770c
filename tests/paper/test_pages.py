"""What the pages and the terminal make of numbers."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from selfdistill.paper import (
    TABLES,
    PaperConfig,
    TableCell,
    collect_result,
)
from selfdistill.paper.pages import (
    describe_regime,
    describe_result,
    missing_notes,
    narrow_table,
    regime_table,
    wide_table,
    write_page,
)
from selfdistill.paper.scales import (
    Training,
)
from selfdistill.report.tables import DASH, MINUS
from tests.paper.conftest import Make, full_scale_result
from tests.report.conftest import record


def test_the_full_scale_shows_difference_and_sd() -> None:
    table = narrow_table(full_scale_result())
    assert table.headings == ("Row", "Column", "Ours", "Seeds", "Printed", "Difference")
    assert table.rows[0] == ("A", "Top-1", "77.00 ± 1.00 %", "3 of 3", "76.5 %", "+0.50")
    assert table.rows[1] == ("B", "Top-1", "no data", "0 of 3", "50.0 %", DASH)
    assert table.notes == ("B: no data: get it there",)


def test_smaller_scales_show_no_difference() -> None:
    assert "Difference" not in narrow_table(full_scale_result(scale="small")).headings


@pytest.mark.parametrize(("scale", "difference"), [("full", 0.5), ("small", None)])
def test_json_has_a_difference_at_the_full_scale_only(scale: str, difference: float | None, tmp_path: Path) -> None:
    write_page(full_scale_result(scale=scale), tmp_path)
    cell = json.loads((tmp_path / "table1.json").read_text())["cells"][0]
    assert (cell["mean"], cell["sd"], cell["n"], cell["difference"]) == (77.0, 1.0, 3, difference)


def test_page_and_json_hold_the_numbers(make: Make, tmp_path: Path) -> None:
    result = make("table12")
    write_page(result, tmp_path)
    text, page = ((tmp_path / f"table12.{suffix}").read_text() for suffix in ("md", "html"))
    for written in (text, page):
        assert "synthetic images" in written
        assert "75.7]" in written.replace("\\", "")
        assert "no difference is taken" in written
    plain = json.loads((tmp_path / "table12.json").read_text())
    assert [cell["printed"] for cell in plain["cells"]] == [74.8, 74.8, 75.1, 75.7, 77.0, None, None, None]
    assert {cell["difference"] for cell in plain["cells"]} == {None}
    assert plain["runs"][0]["seed"] == 41


def write_regime_runs(config: PaperConfig, *, train_top1: float, gap: float, train_ce: float) -> None:
    """Write two methods' records on CIFAR-100: cross-entropy's training accuracy and gap, SD-Dropout's training CE."""
    for method, ce in (("CrossEntropy()", 0.01), ("SDDropout()", train_ce)):
        for seed in (41, 42, 43):
            run = config.runs / config.plan_run(Training(method), seed).name
            made = record(method, seed, recipe={"batch_size": 32}, epochs=200)
            evaluation = msgspec.structs.replace(made.evaluation, train_top1=train_top1, gap=gap)
            data = msgspec.structs.replace(made.data, train_n=1500)
            run.mkdir(parents=True)
            rows = ({"epoch": 199, "ce": 9.0}, {"epoch": 200, "ce": ce})
            msgspec.structs.replace(made, evaluation=evaluation, data=data, rows=rows).save(run / "result.json")


@pytest.mark.parametrize(
    ("train_top1", "gap", "train_ce", "is_papers"),
    [(1.0, 0.12, 0.13, True), (0.98, 0.12, 0.13, False), (1.0, 0.09, 0.13, False), (1.0, 0.12, 0.6, False)],
)
def test_regime_is_the_papers_only_if_networks_fit(
    tmp_path: Path, train_top1: float, gap: float, train_ce: float, is_papers: bool
) -> None:
    config = PaperConfig("small", tmp_path)
    write_regime_runs(config, train_top1=train_top1, gap=gap, train_ce=train_ce)
    result = collect_result(TABLES["table14"], config)
    (regime,) = result.regimes
    assert (regime.networks, regime.steps) == ("CIFAR-100, ResNet-18", 200 * 47)
    assert regime.cross_entropy == pytest.approx((train_top1, 0.01, gap))
    assert regime.sd_dropout.train_ce == pytest.approx(train_ce)
    assert result.in_papers_regime is is_papers
    assert describe_regime(result).startswith("In the paper's regime" if is_papers else "Cannot be tested here")
    assert len(regime_table(result).rows[0]) == len(regime_table(result).headings)


def test_regime_is_unknown_without_both_methods(tmp_path: Path) -> None:
    result = collect_result(TABLES["table9"], PaperConfig("small", tmp_path))
    assert (result.regimes, result.in_papers_regime) == ((), False)
    assert "not known" in describe_regime(result)
    assert describe_regime(collect_result(TABLES["lemma2"], PaperConfig("small", tmp_path))) == ""


def test_wide_table_has_the_papers_own_shape() -> None:
    a = TableCell("A", "Top-1", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 200, 10_000, "path", 76.5, "")
    b = replace(a, row="B", values={41: 50.0}, images=1000, missing_reason="not measured")
    norm = replace(b, column="Norm", unit="", digits=3, printed=None)
    missing = replace(b, row="C", values={}, images=None, missing_reason="no data: get it there")
    full = wide_table(full_scale_result(cells=(a, b, norm, missing)))
    assert full.headings == ("", "Top-1 (%)", "Norm", "Images")
    assert full.rows == (
        ("A", "77.00 ± 1.00 [76.5; +0.50]", "", "10,000"),
        ("B", f"50.00, n = 1 [76.5; {MINUS}26.50]", "50.000, n = 1", "1,000"),
        ("C", "no data [76.5]", "", DASH),
    )
    small = wide_table(full_scale_result(cells=(a, b, norm, missing), scale="small"))
    assert [row[:2] for row in small.rows] == [("A", "77.00 ± 1.00 [76.5]"), ("B", "50.00, n = 1 [76.5]")]
    assert small.notes == full.notes == ("B: not measured", "C: no data: get it there")
    drawn = replace(b, row="Drawn", values={0: 5.0}, epochs=None, printed=None)
    assert wide_table(full_scale_result(cells=(a, drawn))).rows[1][1] == "5.00", (
        "without a network there are no seeds to miss"
    )
    assert narrow_table(full_scale_result(cells=(drawn,))).rows[0][3] == DASH
    alike = wide_table(full_scale_result(cells=(a, replace(a, column="Other", unit=""))))
    assert alike.headings == ("", "Top-1 (%)", "Other")


def test_each_missing_reason_is_given_once() -> None:
    cells = [TableCell(row, "c", "%", 2, {}, 1, 1, None, None, None, "why") for row in "ABABCD"]
    assert missing_notes(cells) == ["A, B and 2 more: why"]


def test_the_description_names_the_seeds() -> None:
    cell = TableCell("A", "Top-1", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 200, 10_000, None, None, "")
    fewer, none = replace(cell, values={42: 1.0}), replace(cell, values={}, images=None, missing_reason="not measured")
    for cells, said in (
        ((cell, none), "Mean ± sd of the seeds 41, 42 and 43."),
        ((cell, fewer), "Mean ± sd of the seeds 41, 42 and 43 as far as they were run."),
        ((fewer,), "Seed 42."),
    ):
        assert describe_result(full_scale_result(cells=cells)).endswith(said)
    assert describe_result(full_scale_result(cells=(replace(cell, epochs=None),))) == "No network is needed."
