"""The paper's findings, and whether the numbers of a scale show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from selfdistill.paper.results import TableCell, TableResult
from selfdistill.paper.robustness_tables import SUBSTITUTES
from selfdistill.paper.tables import BASE, WITH_SD_DROPOUT
from selfdistill.records import paired
from selfdistill.report.tables import MINUS

_COLUMNS = (WITH_SD_DROPOUT, (BASE,))


@dataclass(frozen=True)
class Finding:
    """Something that the paper finds: some cells of a table are better than others.

    Attributes:
        statement: in words.
        table: where it is measured.
        better: heading of the column, or the row, that is to be better.
        others: headings of those that it is to be better than.
        within: only rows whose heading contains this; or columns, if rows are compared.
        higher: whether better is higher.
        by: whether a pair is of two columns in one row, or of two rows in one column.
    """

    statement: str
    table: str
    better: str
    others: tuple[str, ...]
    within: str = ""
    higher: bool = True
    by: Literal["column", "row"] = "column"

    def pairs(self, result: TableResult) -> Iterator[tuple[TableCell, TableCell]]:
        """Yield the pairs of cells that have numbers, the one that is to be better first."""
        by_place = {(cell.row, cell.column): cell for cell in result.cells if cell.values}
        for (row, column), cell in by_place.items():
            ours, within = (column, row) if self.by == "column" else (row, column)
            if ours == self.better and self.within in within:
                for other in self.others:
                    place = (row, other) if self.by == "column" else (other, column)
                    if place in by_place:
                        yield cell, by_place[place]


@dataclass(frozen=True)
class FindingCounts:
    """In how many pairs of cells a finding is seen, by the 95 % intervals of differences paired by seed.

    Attributes:
        pairs: pairs of cells.
        seen: pairs whose interval agrees with the finding.
        opposite: pairs whose interval contradicts it.
        undecided: pairs whose interval includes zero, or that have none.
        differences: the mean differences, smallest to largest, in words.
    """

    pairs: int
    seen: int
    opposite: int
    undecided: int
    differences: str


FINDINGS = (
    Finding("SD-Dropout raises accuracy, alone and in sums", "table1", *_COLUMNS),
    Finding("It does so for other networks", "table10", *_COLUMNS),
    Finding("It does so before two fully connected layers", "table13", "SD-Dropout", ("Cross-entropy",), by="row"),
    Finding("It does more than standard dropout", "table11", "SD-Dropout", ("Dropout", "Dropout, dagger")),
    Finding("Both directions do more than one", "table9", "Both", ("Forward", "Reverse")),
    Finding(
        "Dropout after the pooling does more than before",
        "table12",
        "After layer4 and the pooling",
        ("After layer1", "After layer2", "After layer3"),
        by="row",
    ),
    Finding("SD-Dropout lowers the calibration error", "table2", *_COLUMNS, higher=False),
    Finding(
        "It lowers confidence beside accuracy (the gap)", "table2", "+ SD-Dropout: gap", ("Base: gap",), higher=False
    ),
    Finding("It resists attacks better", "table5", *_COLUMNS, within="eps"),
    Finding("So do the sums", "figure3", *_COLUMNS),
    Finding("It resists corruptions better", "table6", *_COLUMNS),
    *(
        Finding(
            f"It detects images of {name} better (AUROC)",
            "table7",
            f"{name} (a substitute): SD-Dropout",
            (f"{name} (a substitute): Cross-entropy",),
            within="AUROC",
            by="row",
        )
        for name in SUBSTITUTES.values()
    ),
    Finding("r is below r_1 (Assumption 2)", "table8", "r", ("r_1",), within="the head's weights", higher=False),
    Finding("Reverse gradients are longer than forward ones", "figure4", "L1 norm, reverse", ("L1 norm, forward",)),
    Finding(
        "Their cosine falls during training",
        "figure4",
        "End, all weights",
        ("First epoch, all weights",),
        within="Cosine",
        higher=False,
        by="row",
    ),
)


def count_pairs(finding: Finding, result: TableResult) -> FindingCounts | None:
    """Return in how many pairs a finding is seen; None if no pair has numbers."""
    pairs = list(finding.pairs(result))
    if not pairs:
        return None
    compared = [paired(ours.values, theirs.values) for ours, theirs in pairs]
    sign = 1 if finding.higher else -1
    sides = [_side(interval) * sign for _, interval in compared]
    differences = _range([found.mean for found, _ in compared if found is not None], pairs[0][0])
    return FindingCounts(len(pairs), sides.count(1), sides.count(-1), sides.count(0), differences)


def other_findings(results: Sequence[TableResult]) -> str:
    """Say what of Proposition 1, Assumption 1 and the grid was found, as far as it was measured."""
    by_name = {result.table: result for result in results}
    holds = _cell(by_name["proposition1"], "D_i > 0 where both hold", "Share")
    images = _cell(by_name["proposition1"], "D > 0 (Eq. 21), of the images", "Share")
    assumed = _cell(by_name["table8"], "End, the head's weights", "P(Assumption 1)")
    grid = [cell for cell in by_name["table14"].cells if cell.values]
    sentences = []
    if holds.values and images.values:
        sentences.append(
            f"- Proposition 1 holds for {_mean(holds):.2f} % of the components for which both assumptions hold, and, "
            f"summed over the classes, for {_mean(images):.1f} % of the images ({len(holds.values)} networks)."
        )
    if assumed.values:
        sentences.append(
            f"- Assumption 1 holds for {100 * _mean(assumed):.1f} % of the components at the end of the training."
        )
    printed = [cell for cell in by_name["table8"].cells if cell.printed is not None]
    if all(cell.values for cell in printed):
        beside = "; ".join(
            f"{column} {', '.join(f'{_mean(cell):.3f} ({cell.printed})' for cell in printed if cell.column == column)}"
            for column in dict.fromkeys(cell.column for cell in printed)
        )
        sentences.append(
            "- Table 8 after the first epoch, halfway and at the end, and in brackets the numbers printed of the "
            f"network at full scale: {beside}."
        )
    if len(grid) > 1:
        best, worst = (choose(grid, key=_mean) for choose in (max, min))
        sentences.append(
            f"- Of the {len(grid)} cells of Table 14's grid the best is {_named(best)} and the worst {_named(worst)} "
            f"({_seeds(len(grid[0].values))})."
        )
    return "\n".join(sentences)


def _side(interval: tuple[float, float] | None) -> int:
    """On which side of zero a difference's interval is; 0: on both, or there is none."""
    if interval is None:
        return 0
    return 1 if interval[0] > 0 else -1 if interval[1] < 0 else 0


def _range(differences: Sequence[float], cell: TableCell) -> str:
    ends = [
        f"{end:+.{'1f' if cell.unit else '3g'}}".replace("-", MINUS) for end in (min(differences), max(differences))
    ]
    unit = " points" if cell.unit else ""
    return f"{ends[0]}{unit}" if len(differences) == 1 else f"{ends[0]} to {ends[1]}{unit}"


def _cell(result: TableResult, row: str, column: str) -> TableCell:
    (cell,) = [cell for cell in result.cells if (cell.row, cell.column) == (row, column)]
    return cell


def _mean(cell: TableCell) -> float:
    found = cell.statistic
    assert found is not None
    return found.mean


def _named(cell: TableCell) -> str:
    return f"{_mean(cell):.1f} % ({cell.row}, {cell.column})"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
