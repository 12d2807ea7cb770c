"""The report: tables, figures and a page that says honestly whether a method helped."""

from selfdistill.report.decision import next_step
from selfdistill.report.detector import detector_headline, precision_table, write_detector_report
from selfdistill.report.html import write_evaluation_report, write_report
from selfdistill.report.tables import (
    column_of,
    columns_in,
    difference_table,
    digest,
    markdown,
    metric_table,
    terminal,
    terminal_table,
)
from selfdistill.report.verdict import verdict

__all__ = [
    "column_of",
    "columns_in",
    "detector_headline",
    "difference_table",
    "digest",
    "markdown",
    "metric_table",
    "next_step",
    "precision_table",
    "terminal",
    "terminal_table",
    "verdict",
    "write_detector_report",
    "write_evaluation_report",
    "write_report",
]
