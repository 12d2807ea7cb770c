"""The command line's `train`, `compare`, `evaluate` and `predict` as functions, for any module and any images."""

from selfdistill.api.evaluating import evaluate, evaluate_logits, predict
from selfdistill.api.results import Comparison, Evaluated, Predicted, TrainedRun
from selfdistill.api.training import compare, train

__all__ = [
    "Comparison",
    "Evaluated",
    "Predicted",
    "TrainedRun",
    "compare",
    "evaluate",
    "evaluate_logits",
    "predict",
    "train",
]
