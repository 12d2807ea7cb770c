"""The record of a run, and what several records say together. Needs no torch."""

from selfdistill.records.record import (
    LOG_COLUMNS,
    NOT_COMPARED,
    SCHEMA,
    RunRecord,
    load_all,
    recipe_hash,
    write_atomically,
)
from selfdistill.records.summary import DIRECTION, Difference, Statistic, Summary, summarise

__all__ = [
    "DIRECTION",
    "LOG_COLUMNS",
    "NOT_COMPARED",
    "SCHEMA",
    "Difference",
    "RunRecord",
    "Statistic",
    "Summary",
    "load_all",
    "recipe_hash",
    "summarise",
    "write_atomically",
]
