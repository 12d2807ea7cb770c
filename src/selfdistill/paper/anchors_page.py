"""Our numbers beside those of the published runs' logs: the band of each, which side ours is on, and what deviates."""

from __future__ import annotations

from selfdistill.paper.anchors import OTHER_RUNS
from selfdistill.paper.cells import absences, ours
from selfdistill.paper.results import Line, Result
from selfdistill.report.tables import DASH, Table


def anchors_table(result: Result, *, published: bool = True) -> Table:
    """One row a number: ours, and at the full scale the logs' number, the band and the verdict beside it.

    Args:
        result: of the anchors.
        published: whether the logs' number has a column; a terminal is too narrow for it.
    """
    rows = []
    for line in result.lines:
        if line.column == OTHER_RUNS and not result.compared:
            continue
        fewer = f", n = {len(line.values)}" if 0 < len(line.values) < line.wanted else ""
        beside = {"Published": _published(line), "Band": _band(line), "Verdict": line.side or DASH}
        rows.append({"": _name(line), "Ours": f"{ours(line)}{fewer}"} | (beside if result.compared else {}))
    headings = [heading for heading in rows[0] if published or heading != "Published"]
    cells = tuple(tuple(row[heading] for heading in headings) for row in rows)
    return Table(tuple(headings), cells, tuple(absences(result.lines)))


def deviations(result: Result) -> list[str]:
    """Return how many of the numbers are outside their bands, and each of these; nothing below the full scale."""
    found = [line for line in result.lines if line.side is not None] if result.compared else []
    if not found:
        return []
    outside = [line for line in found if line.side != "inside"]
    measured = "the one number" if len(found) == 1 else f"the {len(found)} numbers"
    head = (
        f"{len(outside) or 'None'} of {measured} measured here deviate{'s' if len(outside) < 2 else ''} from the logs."
    )
    return [head, *(f"{_name(line)}: {ours(line)}, {line.side} {_band(line)}" for line in outside)]


def _name(line: Line) -> str:
    return f"{line.row}: {line.column}"


def _published(line: Line) -> str:
    if line.logged is None:
        return DASH
    between = " ± " if line.logged.kind == "sd" else " to "
    return between.join(f"{number:g}" for number in line.logged.numbers) + _unit(line)


def _band(line: Line) -> str:
    if line.band is None:
        return DASH
    return " to ".join(f"{end:.{line.digits}f}" for end in line.band) + _unit(line)


def _unit(line: Line) -> str:
    return f" {line.unit}" if line.unit else ""
