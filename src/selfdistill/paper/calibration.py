"""Table 2 and Fig. 2: expected calibration error and reliability diagrams."""

from dataclasses import replace

from selfdistill.paper.names import BASE, METHODS, SUMS, WITH
from selfdistill.paper.tables import Entry, Measure, PaperTable, Training

ECE = Measure(("ece",), unit="", digits=3)
GAP = Measure(("gap",), unit="", digits=3)

_ROWS = ("cross_entropy", "ddgsd", "cs_kd", "byot", "dml")  # the table's order


def _entries() -> tuple[Entry, ...]:
    return tuple(
        Entry(METHODS[key][0], column, Training(METHODS[key][at]), (ECE,), f"table2_ece_fraction/rows/{key}/{target}")
        for key in _ROWS
        for at, column, target in ((1, BASE, "base"), (2, WITH, "sd_dropout"))
    )


_PROTOCOL = (
    "CIFAR-100, ResNet-18, last epoch: Eq. 12 with ten equal-width bins on the largest softmax probability at "
    "temperature 1, a fraction; mean over seeds. ± is the sd over seeds.",
    SUMS,
)


def _gaps() -> tuple[Entry, ...]:
    """The sign that the ECE has not."""
    return tuple(
        Entry(METHODS[key][0], f"{column}: gap", Training(METHODS[key][at]), (GAP,))
        for key in _ROWS
        for at, column in ((1, BASE), (2, WITH))
    )


_GAP_NOTE = "Gap: mean confidence minus accuracy, above 0 over-confident."

TABLES = (
    PaperTable("table2", "Expected calibration error", _entries() + _gaps(), (*_PROTOCOL, _GAP_NOTE)),
    PaperTable(
        "figure2",
        "Reliability diagrams",
        tuple(replace(entry, target=None) for entry in _entries()),  # Table 2 holds the printed numbers
        (*_PROTOCOL, "The numbers are the calibration errors; the diagrams sum the counts of the seeds."),
        figure="reliability",
    ),
)
