"""The command line's `train`, `compare`, `evaluate` and `predict` as functions, for any module and any images."""

from selfdistill.api.evaluation import evaluate, evaluate_logits, predict
from selfdistill.api.results import Comparison, EvaluationResult, PredictionResult, TrainedRun
from selfdistill.api.training import compare, train

__all__ = [
    "Comparison",
    "EvaluationResult",
    "PredictionResult",
    "TrainedRun",
    "compare",
    "evaluate",
    "evaluate_logits",
    "predict",
    "train",
]
