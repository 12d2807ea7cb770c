"""A Markdown table whose cells may hold links: the report's own escapes what it is given."""

from collections.abc import Sequence


def linked_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Return the table; its first columns, so many, are words, and the others numbers."""
    rule = [":--"] * words + ["--:"] * (len(headings) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))
