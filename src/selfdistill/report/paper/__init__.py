"""A table of the paper as it was reproduced: for the terminal, as Markdown, HTML and JSON, with its figure."""

from selfdistill.report.paper.anchors import anchors_table, deviations
from selfdistill.report.paper.cells import absences, facts, reproduced_table, title_of, wide_table
from selfdistill.report.paper.figure1 import write_figure1
from selfdistill.report.paper.figures import figures_of
from selfdistill.report.paper.needs import duration, needs_table
from selfdistill.report.paper.page import write_reproduced

__all__ = [
    "absences",
    "anchors_table",
    "deviations",
    "duration",
    "facts",
    "figures_of",
    "needs_table",
    "reproduced_table",
    "title_of",
    "wide_table",
    "write_figure1",
    "write_reproduced",
]
