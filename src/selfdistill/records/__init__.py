"""The record of a run, and what several records say together. Needs no torch."""

from selfdistill.files import write_atomically
from selfdistill.records.evaluation import EvaluationRecord, load_all, load_run_record
from selfdistill.records.metrics import METRICS, Metric
from selfdistill.records.record import (
    LOG_COLUMNS,
    NOT_COMPARED,
    SCHEMA,
    BestEpoch,
    Data,
    RunRecord,
    recipe_hash,
)
from selfdistill.records.summary import Difference, Statistic, Summary, paired, statistic_of, summarise

__all__ = [
    "LOG_COLUMNS",
    "METRICS",
    "NOT_COMPARED",
    "SCHEMA",
    "BestEpoch",
    "Data",
    "Difference",
    "EvaluationRecord",
    "Metric",
    "RunRecord",
    "Statistic",
    "Summary",
    "load_all",
    "load_run_record",
    "paired",
    "recipe_hash",
    "statistic_of",
    "summarise",
    "write_atomically",
]
