"""The paper's tables and figures: what each is made of, at each scale, and the published numbers beside."""

from selfdistill.paper import classification_tables, detection_table, gradient_tables, robustness_tables
from selfdistill.paper.figures import FIGURE1
from selfdistill.paper.reproduce import reproduce_table, reproduce_tables
from selfdistill.paper.results import TableCell, TableResult, collect_result
from selfdistill.paper.scales import PaperConfig, Scale
from selfdistill.paper.tables import PaperTable, table_texts
from selfdistill.text import join_names, nearest

__all__ = [
    "TABLES",
    "PaperConfig",
    "PaperTable",
    "Scale",
    "TableCell",
    "TableResult",
    "collect_result",
    "find_tables",
    "reproduce_table",
    "reproduce_tables",
]

_MODULES = (classification_tables, detection_table, robustness_tables, gradient_tables)
_ORDER = list(table_texts())
_ALL = (FIGURE1, *(table for module in _MODULES for table in module.TABLES))

TABLES = {table.name: table for table in sorted(_ALL, key=lambda table: _ORDER.index(table.name))}
"""By their name on the command line, in the order of ``tables.yaml``, the paper's."""


def find_tables(name: str) -> tuple[PaperTable, ...]:
    """Return a table by its name, or all of them for ``"all"``; ``"Table 1"`` will do.

    Raises:
        ValueError: the name is unknown; the nearest is named.

    Example:
        >>> [table.name for table in find_tables("table9")], find_tables("all")[0].name
        (['table9'], 'table1')
        >>> find_tables("tabel9")
        Traceback (most recent call last):
        ...
        ValueError: unknown table 'tabel9'; did you mean 'table9'?
    """
    plain = name.lower().replace(" ", "")
    if plain == "all":
        return tuple(TABLES.values())
    if plain not in TABLES:
        is_number_wrong = plain.strip("0123456789") in {known.strip("0123456789") for known in TABLES}
        near = None if is_number_wrong else nearest(plain, TABLES, cutoff=0.6)
        remedy = f"choose from {join_names([*TABLES, 'all'])}" if near is None else f"did you mean {near!r}?"
        raise ValueError(f"unknown table {name!r}; {remedy}")
    return (TABLES[plain],)
