"""The paper's tables and figures: what each is made of, at each scale, and the printed numbers beside."""

import difflib

from selfdistill.paper import anchors, classification_tables, detection_table, gradient_tables, robustness_tables
from selfdistill.paper.figures import FIGURE1
from selfdistill.paper.results import Line, Result, gather
from selfdistill.paper.run import reproduce
from selfdistill.paper.scales import Scale, Setting
from selfdistill.paper.tables import PaperTable

__all__ = [
    "TABLES",
    "Line",
    "PaperTable",
    "Result",
    "Scale",
    "Setting",
    "gather",
    "reproduce",
    "tables_named",
]

_KINDS = ("table", "figure", "lemma", "proposition", "anchors", "caltech101")
_ALL = (
    FIGURE1,
    *classification_tables.TABLES,
    *detection_table.TABLES,
    *robustness_tables.TABLES,
    *gradient_tables.TABLES,
    *anchors.TABLES,
)

TABLES = {
    table.name: table
    for kind in _KINDS
    for table in sorted(_ALL, key=lambda table: (len(table.name), table.name))
    if table.name.startswith(kind)
}
"""By what they are called on the command line, in the paper's order."""


def tables_named(name: str) -> tuple[PaperTable, ...]:
    """Return a table, or all of them where it says ``"all"``; ``"Table 1"`` will do.

    Raises:
        ValueError: there is no such table; the nearest is named.

    Example:
        >>> [table.name for table in tables_named("table9")], tables_named("all")[0].name
        (['table9'], 'table1')
        >>> tables_named("tabel9")
        Traceback (most recent call last):
        ...
        ValueError: no table 'tabel9'; did you mean 'table9'?
    """
    plain = name.lower().replace(" ", "")
    if plain == "all":
        return tuple(TABLES.values())
    if plain not in TABLES:
        near = [] if plain.strip("0123456789") in _KINDS else difflib.get_close_matches(plain, TABLES, n=1, cutoff=0.6)
        remedy = f"; did you mean {near[0]!r}?" if near else f": there are {', '.join(TABLES)} and all"
        raise ValueError(f"no table {name!r}{remedy}")
    return (TABLES[plain],)
