"""Which of the paper's findings the numbers show."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfdistill.paper import TABLES, TableCell
from tests.paper.conftest import full_scale_result

BASE = TableCell("A", "Base", "%", 2, {41: 70.0, 42: 71.0, 43: 72.0}, 3, 200, 100, None, None, "")


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "studies"))
    return importlib.import_module("findings")


def test_pairs_are_counted_by_their_paired_interval(findings: Any) -> None:
    """The intervals of differences over three seeds, 4.303 sd / sqrt(3) to either side of the mean."""
    count_pairs, Finding = findings.count_pairs, findings.Finding  # noqa: N806 - a class
    values = {
        "seen": {41: 72.0, 42: 73.1, 43: 74.0},  # differences 2, 2.1, 2: mean 2.03
        "opposite": {41: 69.0, 42: 69.9, 43: 71.0},  # -1, -1.1, -1
        "undecided": {41: 71.0, 42: 70.0, 43: 73.0},  # 1, -1, 1
        "one seed": {41: 75.0},
    }
    cells = [replace(BASE, row=row) for row in values]
    cells += [replace(BASE, row=row, column="Better", values=found) for row, found in values.items()]
    result = full_scale_result(cells=tuple(cells))
    assert count_pairs(Finding("", "table1", "Better", ("Base",)), result) == findings.FindingCounts(
        4, seen=1, opposite=1, undecided=2, differences="\u22121.0 to +5.0 points"
    )
    lower = count_pairs(Finding("", "table1", "Better", ("Base",), higher=False), result)
    assert lower is not None
    assert (lower.seen, lower.opposite, lower.undecided) == (1, 1, 2)
    of_one_row = count_pairs(Finding("", "table1", "Better", ("Base",), within="one"), result)
    assert of_one_row is not None
    assert of_one_row.pairs == 1
    rows = count_pairs(Finding("", "table1", "seen", ("opposite",), within="Bet", by="row"), result)
    assert rows is not None
    assert (rows.pairs, rows.seen) == (1, 1)
    assert count_pairs(Finding("", "table1", "Nowhere", ("Base",)), result) is None


def test_a_finding_names_cells_that_its_table_has(findings: Any) -> None:
    for finding in findings.FINDINGS:
        specs = TABLES[finding.table].cells
        cells = tuple(replace(BASE, row=spec.row, column=spec.column) for spec in specs)
        assert findings.count_pairs(finding, full_scale_result(cells=cells)) is not None, finding
