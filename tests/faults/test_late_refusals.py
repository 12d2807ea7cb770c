"""What cannot be trained is refused at the start, before anything is written or other methods have trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from selfdistill.errors import ArgumentError
from selfdistill.models.function import ModelFunction
from selfdistill.runs.compare import run_comparison
from selfdistill.runs.grid import ExecutorConfig
from selfdistill.runs.search import SearchConfig, tune
from selfdistill.training import train
from selfdistill.training.export import load_run
from tests.faults.tiny import RECIPE, images, run_tiny


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def frozen() -> nn.Module:
    return flat().requires_grad_(False)


def overflown() -> nn.Module:
    network = flat()
    nn.init.constant_(network[1].bias, float("nan"))
    return network


@pytest.mark.parametrize("model", [frozen, overflown])
def test_a_network_that_cannot_train_leaves_nothing(tmp_path: Path, model: Callable[[], nn.Module]) -> None:
    recipe = replace(RECIPE, model=ModelFunction(model), width=None)
    with pytest.raises(ArgumentError) as refused:
        train(recipe, tmp_path / "runs" / "run", data=images())
    assert refused.value.argument == "model"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "methods", "changed"),
    [
        ("methods", ("CrossEntropy()", "BYOT()"), {"model": ModelFunction(flat), "width": None}),
        ("methods", ("CrossEntropy()", "SDDropout(at='nope')"), {}),
        ("log", ("CrossEntropy()", "LabelSmoothing()"), {"log": "mlflow"}),
    ],
)
def test_a_search_is_refused_before_its_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, methods: tuple[str, ...], changed: dict[str, object]
) -> None:
    monkeypatch.setattr("selfdistill.training.trackers.find_spec", lambda _: None)
    config = SearchConfig(methods, trials=1, epochs=1, seeds=1)
    with pytest.raises(ArgumentError) as refused:
        tune(replace(RECIPE, **changed), config, out=tmp_path / "search", executor=ExecutorConfig(), data=images())
    assert refused.value.argument == argument
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_has_the_same_pretrained_weights_throughout(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    network = load_run(run_tiny(tmp_path / "run")).model
    torch.save(network.state_dict(), weights)

    def compare(*methods: str) -> None:
        recipe = replace(RECIPE, weights=str(weights))
        run_comparison(recipe, methods, seeds=1, epochs=1, jobs=1, out=tmp_path / "runs", data=images())

    compare("CrossEntropy()")
    compare("CrossEntropy()")
    torch.save(
        {name: value * 2 if value.is_floating_point() else value for name, value in network.state_dict().items()},
        weights,
    )
    with pytest.raises(ArgumentError) as refused:
        compare("CrossEntropy()", "LabelSmoothing()")
    assert refused.value.argument == "weights"
    assert not (tmp_path / "runs" / "labelsmoothing-seed0").exists()
