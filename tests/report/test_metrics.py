"""A metric is one entry of METRICS: every table, figure and sentence reads it from there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from selfdistill.records import METRICS, Metric, RunRecord, summarise
from selfdistill.report import difference_table, digest, metric_table, verdict, write_report
from selfdistill.report.measured import measured
from selfdistill.report.measures.calibration import calibration_sheet
from tests.changing import changed

Make = Callable[..., RunRecord]

SHARPNESS = Metric(
    "sharpness",
    "Sharpness",
    lambda evaluation: evaluation.brier,
    better="higher",
    unit="%",
    digits=1,
    note="how sharp it is",
    how=lambda evaluation: f"of {evaluation.n:,} images",
    protocol=lambda evaluation: evaluation.omitted,
    places=("quality", "calibration", "differences", "figure"),
    verdict="in sharpness",
)


@pytest.fixture
def runs(make_record: Make, monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """Two methods with three seeds each, of which a new entry reads a number, here that of another metric."""
    monkeypatch.setitem(METRICS, "sharpness", SHARPNESS)
    return [
        changed(make_record(method, seed), 0.5 + 0.01 * seed + 0.1 * (method == "B()"), "evaluation", "brier")
        for method in ("A()", "B()")
        for seed in range(3)
    ]


def test_a_new_entry_is_in_every_table(runs: list[RunRecord]) -> None:
    summary = summarise(runs)
    assert summary.statistics["A()", "sharpness"].mean == pytest.approx(0.51)
    assert summary.differences["B()", "sharpness"].effect == "better"
    table = metric_table(summary)
    assert table.rows[1][table.headings.index("Sharpness (%)")] == "61.0 ± 1.0"
    assert "Sharpness: how sharp it is" in table.notes
    (row,) = [row for row in difference_table(summary).rows if row[1] == "Sharpness (points)"]
    assert row == ("B()", "Sharpness (points)", "+10.0", "+10.0 to +10.0", "3", "higher: better")
    sheet = calibration_sheet(measured(runs))
    assert sheet is not None
    assert sheet.table.rows[0][sheet.table.headings.index("Sharpness")] == "51.0 ± 1.0"
    assert ("Sharpness (%)", "50.0", "of 1,500 images") in digest(runs[0].evaluation).rows


def test_a_new_entry_is_in_the_verdict_and_the_page(runs: list[RunRecord], tmp_path: Path) -> None:
    robustness = verdict(summarise(runs)).findings[1].lines[-1]
    assert (robustness.title, robustness.judged) == ("Robustness", "better")
    assert robustness.text == "In sharpness 61.0 %, +10.0 points against A() (95 % interval +10.0 to +10.0)."
    page = write_report(runs, tmp_path, title="Two methods").with_suffix(".md").read_text()
    assert "| Method | Top-1 (%) | Top-5 (%) | NLL | Brier | ECE | Gap | Sharpness (%) | Seeds |" in page
    assert robustness.text in page
    assert "Sharpness (points): right is better" in (tmp_path / "figures" / "differences.svg").read_text()


def test_a_new_entry_is_not_compared_across_protocols(runs: list[RunRecord]) -> None:
    runs[-1] = changed(runs[-1], ("sharpened by machine",), "evaluation", "omitted")
    assert ("B()", "sharpness") not in summarise(runs).differences


def test_every_entry_finds_its_number_in_a_whole_record(make_record: Make) -> None:
    record = make_record(suite=True)
    missing = [name for name in METRICS if record.metric(name) is None]
    assert missing == ["peer_top1", "peak_memory_bytes"]  # no peer, no accelerator
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
