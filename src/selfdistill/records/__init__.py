"""The record of a run, and what several records say together. Needs no torch."""

from selfdistill.files import write_atomically
from selfdistill.records.comparison import LINEAR_PROBE, EnsembleRecord, LinearProbeRecord
from selfdistill.records.evaluation import Evaluation
from selfdistill.records.metrics import FEW_IMAGES, METRICS, Metric
from selfdistill.records.predictions import VALIDATION, Predictions
from selfdistill.records.record import (
    NOT_COMPARED,
    SCHEMA,
    BestEpoch,
    Data,
    EvaluationRecord,
    LogRow,
    RunRecord,
    SuiteRecord,
    load_all,
    load_run_record,
    recipe_hash,
)
from selfdistill.records.summary import TOO_FEW_IMAGES, Difference, Statistic, Summary, paired, statistic_of, summarise

__all__ = [
    "FEW_IMAGES",
    "LINEAR_PROBE",
    "METRICS",
    "NOT_COMPARED",
    "SCHEMA",
    "TOO_FEW_IMAGES",
    "VALIDATION",
    "BestEpoch",
    "Data",
    "Difference",
    "EnsembleRecord",
    "Evaluation",
    "EvaluationRecord",
    "LinearProbeRecord",
    "LogRow",
    "Metric",
    "Predictions",
    "RunRecord",
    "Statistic",
    "SuiteRecord",
    "Summary",
    "load_all",
    "load_run_record",
    "paired",
    "recipe_hash",
    "statistic_of",
    "summarise",
    "write_atomically",
]
