"""Which of the paper's findings are seen in the records of a scale, and which are not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from linked import linked_table

from selfdistill.paper import Line, Result
from selfdistill.paper.pages import title_of
from selfdistill.paper.robustness_tables import SUBSTITUTES
from selfdistill.records import paired
from selfdistill.report.tables import MINUS

UNTESTED = "cannot be tested here"

_SUM = ("Base", "+ SD-Dropout")

Pair = tuple[Line, Line]
"""What is to be the better one, and the other."""


@dataclass(frozen=True)
class Finding:
    """Something that the paper finds.

    Attributes:
        says: in words.
        table: where it is measured.
        better: the column, or the row, that is to be better.
        others: those that it is to be better than.
        within: what the column in which rows are compared, or the row in which columns are, has in its name.
        higher: whether better is higher.
        by: whether a pair is of two columns of a row, or of two rows of a column.
    """

    says: str
    table: str
    better: str
    others: tuple[str, ...]
    within: str = ""
    higher: bool = True
    by: Literal["column", "row"] = "column"

    def pairs(self, result: Result) -> Iterator[Pair]:
        """Yield the pairs of cells that have numbers."""
        there = {(line.row, line.column): line for line in result.lines if line.values}
        for (row, column), line in there.items():
            ours, within = (column, row) if self.by == "column" else (row, column)
            if ours == self.better and self.within in within:
                for other in self.others:
                    place = (row, other) if self.by == "column" else (other, column)
                    if place in there:
                        yield line, there[place]


FINDINGS = (
    Finding("SD-Dropout raises accuracy, alone and in sums", "table1", _SUM[1], _SUM[:1]),
    Finding("It does so for other networks", "table10", _SUM[1], _SUM[:1]),
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
    Finding("SD-Dropout lowers the calibration error", "table2", _SUM[1], _SUM[:1], higher=False),
    Finding(
        "It lowers confidence beside accuracy (the gap)", "table2", "+ SD-Dropout: gap", ("Base: gap",), higher=False
    ),
    Finding("It resists attacks better", "table5", _SUM[1], _SUM[:1], within="eps"),
    Finding("So do the sums", "figure3", _SUM[1], _SUM[:1]),
    Finding("It resists corruptions better", "table6", _SUM[1], _SUM[:1]),
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


def findings_table(results: Sequence[Result]) -> str:
    """One row a finding: in how many pairs of cells it is seen, by the 95 % intervals of differences paired by seed.

    Where the networks are not in the paper's regime there is no verdict: the row says that it cannot be tested here.
    """
    by_name = {result.table: result for result in results}
    rows = []
    for finding in FINDINGS:
        result = by_name[finding.table]
        pairs = list(finding.pairs(result))
        if not pairs:
            continue
        compared = [paired(ours.values, theirs.values) for ours, theirs in pairs]
        sign = 1 if finding.higher else -1
        seen = [_side(interval) * sign for _, interval in compared]
        verdict = [str(seen.count(side)) for side in (1, -1, 0)] if result.in_papers_regime else [UNTESTED, "", ""]
        rows.append(
            (
                finding.says,
                f"[{title_of(result).partition(':')[0]}]({result.scale}/{finding.table}.md)",
                str(len(pairs)),
                *verdict,
                _range([found.mean for found, _ in compared if found is not None], pairs[0][0]),
            )
        )
    headings = ("The paper finds", "Measured in", "Pairs", "Seen", "The opposite", "Undecided", "Mean differences")
    return linked_table(headings, rows, words=2)


def other_findings(results: Sequence[Result]) -> str:
    """Say what of Proposition 1, Assumption 1 and the grid was found, as far as it was measured."""
    by_name = {result.table: result for result in results}
    holds = _cell(by_name["proposition1"], "D_i > 0 where both hold", "Share")
    images = _cell(by_name["proposition1"], "D > 0 (Eq. 21), of the images", "Share")
    assumed = _cell(by_name["table8"], "End, the head's weights", "P(Assumption 1)")
    grid = [line for line in by_name["table14"].lines if line.values]
    lines = []
    if holds.values and images.values:
        lines.append(
            f"- Proposition 1 holds for {_mean(holds):.2f} % of the components for which both assumptions hold, and, "
            f"summed over the classes, for {_mean(images):.1f} % of the images ({len(holds.values)} networks)."
        )
    if assumed.values:
        lines.append(
            f"- Assumption 1 holds for {100 * _mean(assumed):.1f} % of the components at the end of the training."
        )
    printed = [line for line in by_name["table8"].lines if line.printed is not None]
    if all(line.values for line in printed):
        beside = "; ".join(
            f"{column} {', '.join(f'{_mean(line):.3f} ({line.printed})' for line in printed if line.column == column)}"
            for column in dict.fromkeys(line.column for line in printed)
        )
        lines.append(
            "- Table 8 after the first epoch, halfway and at the end, and in brackets the numbers printed of the "
            f"network at full scale: {beside}."
        )
    if len(grid) > 1:
        best, worst = (choose(grid, key=_mean) for choose in (max, min))
        lines.append(
            f"- Of the {len(grid)} cells of Table 14's grid the best is {_named(best)} and the worst {_named(worst)} "
            f"({_seeds(len(grid[0].values))})."
        )
    return "\n".join(lines)


def _side(interval: tuple[float, float] | None) -> int:
    """On which side of zero a difference's interval is; 0: on both, or there is none."""
    if interval is None:
        return 0
    return 1 if interval[0] > 0 else -1 if interval[1] < 0 else 0


def _range(differences: Sequence[float], line: Line) -> str:
    ends = [
        f"{end:+.{'1f' if line.unit else '3g'}}".replace("-", MINUS) for end in (min(differences), max(differences))
    ]
    unit = " points" if line.unit else ""
    return f"{ends[0]}{unit}" if len(differences) == 1 else f"{ends[0]} to {ends[1]}{unit}"


def _cell(result: Result, row: str, column: str) -> Line:
    (line,) = [line for line in result.lines if (line.row, line.column) == (row, column)]
    return line


def _mean(line: Line) -> float:
    found = line.statistic
    assert found is not None
    return found.mean


def _named(line: Line) -> str:
    return f"{_mean(line):.1f} % ({line.row}, {line.column})"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
