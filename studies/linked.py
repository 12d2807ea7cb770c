"""A Markdown table whose cells may hold links, which the report escapes; and a cell of several lines."""

from collections.abc import Mapping, Sequence

from selfdistill.records import paired


def linked_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Return the table; its first columns, so many, are words, and the others numbers."""
    rule = [":--"] * words + ["--:"] * (len(headings) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))


def points_cell(ours: Mapping[int, float], theirs: Mapping[int, float], n: int | None = None) -> str:
    """Return a mean paired difference in points and, below it, its 95 % interval, and of how many pairs it is.

    Args:
        ours: shares in [0, 1] by seed or draw.
        theirs: those that they are compared with.
        n: pairs that are not worth saying; None: they always are.
    """
    found, interval = paired(ours, theirs)
    if found is None:
        return ""
    between = [f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"] if interval else []
    pairs = [f"n = {found.n}"] if found.n != n else []
    return "<br>".join([f"{100 * found.mean:+.1f}", *between, *pairs])
