"""The recipe and its YAML."""

from pathlib import Path
from typing import Any

import pytest

from selfdistill.detect.config import DetectConfig


def test_yaml_and_back(tmp_path: Path) -> None:
    recipe = DetectConfig(model="resnet50", weights="default", epochs=5, milestones=(0.4, 0.8), clip=10, seed=3)
    whole = recipe.resolve("resnet50", trained=True)
    for one in (recipe, whole):
        path = tmp_path / "recipe.yaml"
        path.write_text(one.to_yaml())
        assert DetectConfig.from_yaml(path) == one
        assert all("  # " in line for line in one.to_yaml().splitlines())
    path.write_text("bakbone: x\n")
    with pytest.raises(ValueError, match=r"unknown key 'bakbone'; did you mean 'backbone'\?"):
        DetectConfig.from_yaml(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "`image_size` must be from 1 "),
        ({"trainable_layers": 6}, "`trainable_layers` must be from 0 to 5, not 6"),
        ({"milestones": [8, 11]}, "`milestones` must be rising fractions of the epochs in"),
        ({"schedule": "2x"}, "`schedule` must be one of step, cosine, one_cycle, not '2x'"),
        ({"norm": "batch"}, "`norm` must be one of frozen, trained or null, not 'batch'"),
        ({"epochs": 2, "warmup_epochs": 2}, r"`warmup_epochs` must be below `epochs` \(2\), not 2"),
        ({"warmup_epochs": -1}, "`warmup_epochs` must be at least 0, not -1"),
        ({"momentum": 1.5}, "`momentum` must be from 0 "),
        ({"lr": 0}, "`lr` must be above 0, not 0"),
        ({"clip": 0.0}, "`clip` must be above 0, not 0.0"),
        ({"backbone": " "}, "`backbone` must not be empty"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectConfig(**values)


def test_what_is_left_open_depends_on_the_weights() -> None:
    open_ = DetectConfig(model="resnet18")
    scratch, tuned = (open_.resolve("resnet18", trained=trained) for trained in (False, True))
    assert (scratch.norm, scratch.trainable_layers) == ("trained", 5)
    assert (tuned.norm, tuned.trainable_layers) == ("frozen", 3)
    kept = DetectConfig(trainable_layers=0, norm="trained").resolve("resnet18", trained=True)
    assert (kept.norm, kept.trainable_layers, kept.model) == ("trained", 0, "resnet18")
    with pytest.raises(ValueError, match=r"^`norm` frozen needs trained weights"):
        DetectConfig(model="resnet18", norm="frozen").resolve("resnet18", trained=False)
    with pytest.raises(ValueError, match=r"^`model` must be resnet18, .* not 'resnet50'"):
        DetectConfig(model="resnet50").resolve("resnet18", trained=True)


@pytest.mark.parametrize(
    ("epochs", "rates"), [(12, [0.02] * 8 + [0.002] * 3 + [0.0002]), (7, [0.02] * 5 + [0.002] + [0.0002])]
)
def test_the_rate_of_every_epoch_of_the_usual_schedules(epochs: int, rates: list[float]) -> None:
    recipe = DetectConfig(model="resnet152", epochs=epochs).resolve("resnet152", trained=True)
    assert (recipe.batch_size, recipe.lr) == (16, 0.02)
    for epoch, rate in enumerate(rates):
        for step in (500, 7392):
            assert recipe.rate(epoch + step / 7393) == pytest.approx(rate)
    assert recipe.drop_epochs == tuple(epoch for epoch in range(1, epochs) if rates[epoch] < rates[epoch - 1])


def test_the_warm_up_on_coco_is_500_steps() -> None:
    recipe = DetectConfig().resolve("resnet50", trained=True)
    rates = [recipe.rate(k / 7393) for k in range(502)]
    assert rates[:500] == pytest.approx([0.02 * (0.001 + 0.999 * k / 500) for k in range(500)])
    assert rates[500:] == [0.02, 0.02]


@pytest.mark.parametrize("batch", [1, 2, 8, 16, 64])
def test_the_rate_is_in_proportion_to_the_batch(batch: int) -> None:
    recipe = DetectConfig(model="resnet50", batch_size=batch).resolve("resnet50", trained=False)
    assert recipe.lr == pytest.approx(0.02 * batch / 16)


def test_the_name_of_a_schedule() -> None:
    def name(**values: Any) -> str:
        return DetectConfig(**values).resolve("resnet18", trained=False).schedule_name

    assert name() == "1x (12 epochs)"
    assert name(epochs=7) == "0.5x (7 epochs)"
    assert name(epochs=1) == "1 epoch"
    assert name(epochs=24) == "24 epochs"
    assert name(milestones=(0.5,)) == name(schedule="cosine") == "12 epochs"


def test_where_it_runs_makes_no_other_run() -> None:
    assert DetectConfig(workers=2, threads=1).differences(DetectConfig()) == []
    assert DetectConfig(seed=1).differences(DetectConfig()) == ["seed (0 there, 1 here)"]
