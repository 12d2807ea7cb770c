"""Tables reproduced at the smallest scale, whose runs the tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from selfdistill.paper import TABLES, PaperConfig, TableCell, TableResult, reproduce_table

Make = Callable[[str], TableResult]


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tables, because they share their runs."""
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="session")
def make(out: Path) -> Make:
    return lambda name: reproduce_table(TABLES[name], PaperConfig("smoke", out))


def find_cell(result: TableResult, row: str, column: str) -> TableCell:
    (found,) = [cell for cell in result.cells if (cell.row, cell.column) == (row, column)]
    return found


def full_scale_result(**changed: object) -> TableResult:
    """Return a made-up result at the full scale: a row with a number of three seeds, and one without data."""
    cell = TableCell("A", "Top-1", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 200, 10_000, "path", 76.5, "")
    cells = (cell, TableCell("B", "Top-1", "%", 2, {}, 3, 200, None, "path", 50.0, "no data: get it there"))
    values = {"table": "table1", "title": "Title", "scale": "full", "description": "full", "protocol": ("How.",)}
    return TableResult(**{**values, "figure": "", "cells": cells, "runs": (), "reliability": {}, **changed})  # type: ignore[arg-type]
