"""The recipe and its YAML."""

from pathlib import Path
from typing import Any

import pytest

from selfdistill.detect import DetectRecipe


def test_yaml_and_back(tmp_path: Path) -> None:
    recipe = DetectRecipe(model="resnet50", weights="default", epochs=5, drops=(2, 4), clip=10, seed=3)
    whole = recipe.resolve("resnet50", trained=True)
    for one in (recipe, whole):
        path = tmp_path / "recipe.yaml"
        path.write_text(one.to_yaml())
        assert DetectRecipe.from_yaml(path) == one
        assert all("  # " in line for line in one.to_yaml().splitlines())
    path.write_text("bakbone: x\n")
    with pytest.raises(ValueError, match=r"unknown key 'bakbone'; did you mean 'backbone'\?"):
        DetectRecipe.from_yaml(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "`image_size` must be at least 1, not 0"),
        ({"trainable_layers": 6}, "`trainable_layers` must be from 0 to 5, not 6"),
        ({"drops": [8, 12]}, r"`drops` must be rising epochs from 1 to 11, not \(8, 12\)"),
        ({"drops": [5, 5]}, "`drops` must be rising epochs"),
        ({"epochs": 3, "drops": [3]}, "`drops` must be rising epochs from 1 to 2"),
        ({"schedule": "2x"}, "`schedule` must be one of 1x, 0.5x, not '2x'"),
        ({"norm": "batch"}, "`norm` must be one of frozen, trained or null, not 'batch'"),
        ({"warmup_steps": -1}, "`warmup_steps` must be at least 0, not -1"),
        ({"momentum": 1.5}, r"`momentum` must be in \[0, 1\], not 1.5"),
        ({"lr": 0}, "`lr` must be above 0, not 0"),
        ({"clip": 0.0}, "`clip` must be above 0, not 0.0"),
        ({"backbone": " "}, "`backbone` must be a text that is not empty"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectRecipe(**values)


def test_what_is_left_open_depends_on_the_weights() -> None:
    open_ = DetectRecipe(model="resnet18")
    scratch, tuned = (open_.resolve("resnet18", trained=trained) for trained in (False, True))
    assert (scratch.norm, scratch.trainable_layers) == ("trained", 5)
    assert (tuned.norm, tuned.trainable_layers) == ("frozen", 3)
    kept = DetectRecipe(trainable_layers=0, norm="trained").resolve("resnet18", trained=True)
    assert (kept.norm, kept.trainable_layers, kept.model) == ("trained", 0, "resnet18")
    with pytest.raises(ValueError, match=r"^`norm` frozen needs trained weights"):
        DetectRecipe(model="resnet18", norm="frozen").resolve("resnet18", trained=False)
    with pytest.raises(ValueError, match=r"^`model` must be resnet18, .* not 'resnet50'"):
        DetectRecipe(model="resnet50").resolve("resnet18", trained=True)


def test_the_name_of_a_schedule() -> None:
    def name(**values: Any) -> str:
        return DetectRecipe(**values).resolve("resnet18", trained=False).name_of_schedule

    assert name() == "1x (12 epochs)"
    assert name(schedule="0.5x") == "0.5x (7 epochs)"
    assert name(epochs=1) == "1 epoch"
    assert name(epochs=24) == "24 epochs"
    assert name(drops=(4, 6)) == "12 epochs"


def test_where_it_runs_makes_no_other_run() -> None:
    assert DetectRecipe(workers=2, threads=1).differences(DetectRecipe()) == []
    assert DetectRecipe(seed=1).differences(DetectRecipe()) == ["seed (0 there, 1 here)"]
