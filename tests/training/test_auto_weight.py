"""``SDDropout(weight="auto")``: the rule, the two trainings, and that nothing but held-out training images decides."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selfdistill import LabelSmoothing, SDDropout, SelfDistiller, load
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.methods.sd_dropout import AutoWeight
from selfdistill.training import Interrupted, train
from selfdistill.training.run import load as load_data

AUTO = "SDDropout(weight='auto')"
RECIPE = TrainConfig(
    data="digits", per_class=5, test_per_class=2, model="resnet10_cifar", width=4, threads=1, batch_size=16, epochs=3,
    lr=0.05, method=AUTO, milestones=(), schedule="step",
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data(RECIPE)


def test_the_rule() -> None:
    auto, weight, average = AutoWeight(), 0.1, 0.0
    for t, (gap, share) in enumerate([(0.3, 0.02), (-0.2, 0.02), (0.5, 0.1), (-0.9, 0.3), (0.9, 0.3), (0.9, 0.3)], 1):
        auto.follow(gap, share)
        weight = min(max(weight * math.exp(30 * share * gap), 1e-3), 1)
        average += 5 / (t + 4) * (math.log(weight) - average)
        assert float(auto.weight) == pytest.approx(weight, rel=1e-5)
        assert auto.found == pytest.approx(math.exp(average), rel=1e-5)
    auto.fix(0.25)
    auto.follow(0.5, 0.1)
    assert float(auto.weight) == auto.found == 0.25


def test_the_term_has_the_weight_that_was_found() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    x, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    distiller = SelfDistiller(model, LabelSmoothing() + SDDropout(weight="auto"))
    for gap, weight in ((None, 0.1), (0.5, 0.1 * math.exp(1.5))):
        if gap is not None:
            distiller.set_gap(gap, share=0.1)
        loss, _, terms = distiller(x, y)
        torch.testing.assert_close(loss, terms["ce"] + weight * 9 * terms["sdd"])
    assert repr(distiller.method) == "LabelSmoothing() + SDDropout(weight='auto')"


def test_a_network_is_trained_on_all_images_with_the_weight_that_was_found(data: ImageData, tmp_path: Path) -> None:
    record = train(RECIPE, tmp_path / "auto", data=data)
    weight = record.recipe.auto_weight
    assert weight is not None
    assert weight != 0.1
    assert json.loads((tmp_path / "auto" / "auto_weight.json").read_text()) == {"auto_weight": weight}
    assert not (tmp_path / "auto" / "pilot").exists()
    assert (record.method, record.data.train_n) == (AUTO, 50)
    given = replace(RECIPE, method=f"SDDropout(weight={weight!r})")
    train(given, tmp_path / "given", data=data)
    for name, value in load(tmp_path / "given").state_dict().items():
        torch.testing.assert_close(load(tmp_path / "auto").state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert train(RECIPE, tmp_path / "auto", data=data) == record  # finished


def test_test_images_have_no_say(data: ImageData, tmp_path: Path) -> None:
    other = replace(data, test=data.test.select(torch.arange(3)))
    weights = [train(RECIPE, tmp_path / name, data=of).recipe.auto_weight for name, of in (("a", data), ("b", other))]
    assert weights[0] == weights[1]


def test_validation_images_that_are_there_are_used(data: ImageData, tmp_path: Path) -> None:
    record = train(replace(RECIPE, val_fraction=0.3), tmp_path / "run", data=data)
    assert 0 < record.data.val_n < 25
    assert record.data.train_n + record.data.val_n == 50


def test_a_stop_in_the_first_training_changes_nothing(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    whole = train(RECIPE, tmp_path / "whole", data=data)
    follow, looks = AutoWeight.follow, 0

    def stop_at_the_second_look(auto: AutoWeight, gap: float, share: float) -> None:
        nonlocal looks
        follow(auto, gap, share)
        looks += 1
        if looks == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(AutoWeight, "follow", stop_at_the_second_look)
    with pytest.raises(Interrupted):
        train(RECIPE, tmp_path / "stopped", data=data)
    assert (tmp_path / "stopped" / "pilot").is_dir()
    assert train(RECIPE, tmp_path / "stopped", data=data).recipe.auto_weight == whole.recipe.auto_weight
    for name, value in load(tmp_path / "whole").state_dict().items():
        assert torch.equal(load(tmp_path / "stopped").state_dict()[name], value), name


def test_mistakes(data: ImageData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weight"):
        SDDropout(weight="most")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError) as refused:
        train(RECIPE, tmp_path / "run", data=data, devices=2)
    assert refused.value.argument == "devices"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "auto_weight.json").write_text("{}")
    with pytest.raises(ValueError, match=r"auto_weight\.json"):
        train(RECIPE, tmp_path / "damaged", data=data)
