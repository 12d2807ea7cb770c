"""`train`, `compare`, `tune`, `evaluate` and `predict` as functions, for any module and any images."""

from selfdistill.api.evaluation import evaluate, evaluate_logits, predict
from selfdistill.api.results import Comparison, EvaluationResult, PredictionResult, TrainedRun, TunedRuns
from selfdistill.api.training import compare, train, tune

__all__ = [
    "Comparison",
    "EvaluationResult",
    "PredictionResult",
    "TrainedRun",
    "TunedRuns",
    "compare",
    "evaluate",
    "evaluate_logits",
    "predict",
    "train",
    "tune",
]
