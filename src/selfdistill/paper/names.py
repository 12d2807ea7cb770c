"""The paper's methods by the names that its tables print, alone and with SD-Dropout."""

SD_DROPOUT = "SDDropout()"
"""lambda_SDD = 1 alone (Appendix A.1), and by our guess with label smoothing."""

_WITH = "SDDropout(weight=0.1)"  # in the sums with other methods

METHODS = {
    "cross_entropy": ("Cross-entropy", "CrossEntropy()", SD_DROPOUT),
    "cs_kd": ("CS-KD", "CSKD()", f"CSKD() + {_WITH}"),
    "ddgsd": ("DDGSD", "DDGSD()", f"DDGSD() + {_WITH}"),
    "byot": ("BYOT", "BYOT()", f"BYOT() + {_WITH}"),
    "dml": ("DML", "DML()", f"DML() + {_WITH}"),
    "label_smoothing": ("Label smoothing", "LabelSmoothing()", f"LabelSmoothing() + {SD_DROPOUT}"),
}
"""By its key in ``targets.json``: its name, the method, and its sum with SD-Dropout."""

BASE, WITH = "Base", "+ SD-Dropout"
"""Headings of the two columns."""

SCORED = "Top-1 accuracy on the test images after the last epoch, mean over seeds; ± is the sd over seeds."
SUMS = (
    "lambda of SD-Dropout is 1 alone and 0.1 with CS-KD, DDGSD, BYOT and DML, as run; with label smoothing it is 1, a "
    "guess: neither the paper nor the authors' logs say. lambda of the other methods is 1 (CS-KD, DDGSD, DML) and 0.1 "
    "(BYOT)."
)
PHOTOGRAPHS = (
    "Stanford Dogs is cut to the annotated box, as run; CUB-200-2011 is whole. On these two BYOT ran on a ResNet-18 "
    "with a stem of stride 1 (maps of twice the sides): that row stands beside the printed number, and BYOT on the "
    "other rows' network is a row of its own."
)
