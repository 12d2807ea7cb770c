"""The moving average of the weights: what it is, and that it is what a run measures, keeps and resumes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.training import load, train
from selfdistill.training.classification import assemble
from selfdistill.training.meters import Meters
from selfdistill.training.session import make_fabric
from tests.training.conftest import assert_same_weights, train_with_a_stop


@pytest.fixture
def averaged(recipe: TrainConfig) -> TrainConfig:
    return replace(recipe, ema=0.8, method="SDDropout()")


def test_it_is_the_average_of_the_weights_after_each_step(data: ImageData, averaged: TrainConfig) -> None:
    session = assemble(averaged.resolve(data), data, make_fabric(averaged, accelerator="cpu"))
    task, meters, position = session.task, Meters(session.device, session.task.counts), 0
    task.set_training_mode()
    mean = {name: value.clone() for name, value in task.distiller.model.state_dict().items()}
    for epoch in range(2):
        for batches in task.loader.epoch(epoch):
            session.step(batches, position, meters)
            beta = min(0.8, 1 - (1 + position) ** -0.75)
            for name, value in task.distiller.model.state_dict().items():
                mean[name] = beta * mean[name] + (1 - beta) * value if value.is_floating_point() else value.clone()
            position += 1
    assert position > 4
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-6)


def test_the_average_is_measured_and_saved(tmp_path: Path, data: ImageData, averaged: TrainConfig) -> None:
    record = train(averaged, tmp_path / "run", data=data)
    plain = train(replace(averaged, ema=None), tmp_path / "plain", data=data)
    kept, other = load(tmp_path / "run").state_dict(), load(tmp_path / "plain").state_dict()
    assert not torch.equal(kept["fc.weight"], other["fc.weight"])
    assert record.rows[-1]["loss"] == plain.rows[-1]["loss"]  # the training itself is the same
    assert record.rows[-1]["test_top1"] == record.evaluation.top1
    assert record.parameters == plain.parameters
    assert record.extra_parameters == 0


@pytest.mark.parametrize("changed", [{}, {"weights": "file", "freeze": "backbone"}])
def test_a_resumed_run_has_the_same_average(
    tmp_path: Path, data: ImageData, averaged: TrainConfig, changed: dict[str, str]
) -> None:
    if changed:
        train(replace(averaged, epochs=1), tmp_path / "start", data=data)
        changed = changed | {"weights": str(tmp_path / "start"), "data_root": str(tmp_path)}
    recipe = replace(averaged, **changed)
    train(recipe, tmp_path / "whole", data=data)
    train_with_a_stop(recipe, tmp_path / "stopped", data)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_decays_that_average_nothing_are_refused(decay: float) -> None:
    with pytest.raises(ArgumentError) as refused:
        TrainConfig(ema=decay)
    assert refused.value.argument == "ema"
