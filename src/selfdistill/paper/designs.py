"""Fig. 1: the designs of the methods, which are drawn from the methods themselves: no network is trained."""

from selfdistill.paper.names import METHODS, SD_DROPOUT
from selfdistill.paper.tables import PaperTable

DESIGNS = {
    "Cross-entropy": "CrossEntropy()",
    "SD-Dropout": SD_DROPOUT,
    **{name: alone for name, alone, _ in METHODS.values()},
    "Dropout": "Dropout()",
}
"""What is drawn, by the paper's names."""

FIGURE1 = PaperTable(
    "figure1",
    "Design of the self-knowledge distillation methods",
    (),
    (
        "Each method took a step on a small synthetic network, with its defaults, and was watched: what changes a term "
        "is read by it, and what gets no gradient there is a constant. Nothing is trained, and no image is needed.",
        "The paper's figure shows DML, DDGSD, BYOT, CS-KD and SD-Dropout; the others are what it compares them with.",
        "Weights are those of the paper's runs, with the square of the temperature.",
    ),
    figure="diagrams",
)

TABLES = (FIGURE1,)
