"""What mypy knows of the public names: it checks this file, and `assert_type` fails there."""

from typing import TYPE_CHECKING, Any, assert_type

import torch
from torch import Tensor, nn

import selfdistill
from selfdistill import SDDropout, SelfDistiller, StepOutput

if TYPE_CHECKING:
    from selfdistill.api import Comparison, EvaluationResult, PredictionResult, TrainedRun, TunedRuns


def test_a_call_with_labels_returns_a_step_output() -> None:
    distiller = SelfDistiller(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), SDDropout())
    output = distiller(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert_type(output, StepOutput)
    assert_type(output.terms, dict[str, Tensor])
    assert isinstance(output, StepOutput)
    assert_type(distiller(torch.zeros(2, 2)), Any)


def types_of_results(images: Tensor, labels: Tensor) -> None:
    """Check the functions' types; not run."""

    def model() -> nn.Module:
        return nn.Linear(2, 2)

    run = selfdistill.train(model, (images, labels), SDDropout(), epochs=2)
    assert_type(run, TrainedRun)
    assert_type(selfdistill.compare(model, "digits"), Comparison)
    assert_type(selfdistill.tune(model, "digits"), TunedRuns)
    assert_type(selfdistill.evaluate(run), EvaluationResult)
    assert_type(selfdistill.predict(run, images), PredictionResult)
