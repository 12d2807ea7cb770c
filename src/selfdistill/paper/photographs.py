"""Caltech-101 from scratch: few photographs of many classes, as CUB-200-2011; a table of our own."""

from selfdistill.paper.names import SCORED, SD_DROPOUT
from selfdistill.paper.tables import Entry, Measure, PaperTable, Training

_METHODS = {
    "Cross-entropy": "CrossEntropy()",
    "SD-Dropout": SD_DROPOUT,
    "Label smoothing": "LabelSmoothing()",
    "Dropout": "Dropout()",
}
_COLUMNS = {
    "Top-1": Measure(("top1",)),
    "NLL": Measure(("nll",), unit="", digits=3),
    "ECE": Measure(("ece",), unit="", digits=3),
    "Gap": Measure(("gap",), unit="", digits=3),
}

TABLES = (
    PaperTable(
        "caltech101",
        "Few photographs of many classes: Caltech-101 from scratch",
        tuple(
            Entry(name, column, Training(method, "caltech101"), (measure,))
            for name, method in _METHODS.items()
            for column, measure in _COLUMNS.items()
        ),
        (
            SCORED,
            "Caltech-101 without its background class, 30 training photographs of each class, at 64 px: torchvision's "
            "ResNet-18 from scratch, batches of 32, 100 epochs, the rate of 0.1 divided by 10 after 50 and 75. The "
            "paper has no such table: no number of it stands here.",
            "Gap: mean confidence minus accuracy, above 0 over-confident.",
        ),
    ),
)
