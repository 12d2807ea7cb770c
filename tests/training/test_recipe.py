import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError


def test_yaml_both_ways(tmp_path: Path) -> None:
    recipe = TrainConfig(data="a, b: c # d", milestones=(0.25,), keep_epochs=(3, 9), lr=1e-5, clip=1.0, classes=None)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert TrainConfig.from_yaml(path) == recipe


def test_every_line_has_its_comment() -> None:
    lines = TrainConfig().to_yaml().splitlines()
    assert len(lines) == len(fields(TrainConfig))
    for line, field in zip(lines, fields(TrainConfig), strict=True):
        assert re.fullmatch(rf"{field.name}: .*  # \S.*", line), line


def test_needs_no_torch() -> None:
    code = "import sys, selfdistill.config; selfdistill.config.TrainConfig().to_yaml(); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("batch-size: 3", "unknown key 'batch-size'; did you mean 'batch_size'?"),
        ("zzz: 3", "unknown key 'zzz'; choose from data, "),
        ("epochs: '3'", "epochs must be a whole number or null, not '3'"),
        ("epochs: true", "epochs must be a whole number or null, not True"),
        ("epochs: 2.5", "epochs must be a whole number or null, not 2.5"),
        ("nesterov: 1", "nesterov must be true or false, not 1"),
        ("lr: fast", "lr must be a number or null, not 'fast'"),
        ("lr: .nan", "lr must be a number or null, not nan"),
        ("milestones: 0.5", "milestones must be a list of numbers, not 0.5"),
        ("schedule: cosin", "schedule must be one of step, cosine, one_cycle or null, not 'cosin'"),
        ("method: 3", "method must be a text, not 3"),
        ("[1, 2]", "a recipe is lines of 'name: value', such as 'epochs: 200'"),
        ("a: b: c", "not a YAML file (line 1: mapping values are not allowed here"),
        ("epochs: !!python/object/apply:os.getcwd []", "not a YAML file (line 1: could not determine a constructor"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        TrainConfig.from_yaml(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_number_without_a_dot_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("weight_decay: 1e-4\nlr: 1\n")  # YAML 1.1 reads 1e-4 as a text
    assert TrainConfig.from_yaml(path) == TrainConfig(weight_decay=1e-4, lr=1.0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"classes": 1}, "classes"),
        ({"lr": 0.0}, "lr"),
        ({"clip": -1}, "clip"),
        ({"momentum": 1.5}, "momentum"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"milestones": (0.7, 0.5)}, "milestones"),
        ({"milestones": (100, 150)}, "milestones"),
        ({"epochs": 200, "keep_epochs": (201,)}, "keep_epochs"),
        ({"epochs": 200, "warmup_epochs": 200}, "warmup_epochs"),
        ({"head_layers": 3}, "head_layers"),
        ({"nesterov": True, "momentum": 0}, "nesterov"),
        ({"workers": -1}, "workers"),
        ({"method": " "}, "method"),
        ({"resize": 0}, "resize"),
        ({"resize": 223, "image_size": 224}, "resize"),
        ({"epochs": 10**400}, "epochs"),
        ({"lr": 10**400}, "lr"),
        ({"model": ""}, "model"),
        ({"threads": 10**8}, "threads"),
    ],
)
def test_ranges_name_the_argument(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ArgumentError) as error:
        TrainConfig(**arguments)  # type: ignore[arg-type]
    assert error.value.argument == name


def test_resolve_fills_in_what_depends_on_the_data(data: ImageData) -> None:
    resolved = TrainConfig(method="SDDropout( p = 0.5, weight=0.1 )").resolve(data)
    assert (resolved.image_size, resolved.classes, resolved.augment) == (16, 3, "crop_flip")
    assert (resolved.model, resolved.batch_size, resolved.lr) == ("resnet18_cifar", 128, 0.1)
    assert resolved.method == "SDDropout(weight=0.1)"
    assert resolved.resolve(data) == resolved
    large = TrainConfig().resolve(replace(data, image_size=224))
    assert (large.model, large.batch_size, large.lr) == ("torchvision:resnet18", 32, 0.1)
    assert TrainConfig(weights="default", lr=0.3, batch_size=7).resolve(data).lr == 0.3


def test_a_cache_keeps_files_at_the_margin_of_the_evaluation(data: ImageData, photos: ImageData) -> None:
    large = replace(photos, image_size=224)
    assert TrainConfig().resolve(large).resize is None
    assert TrainConfig(cache=True).resolve(large).resize == 256
    assert (
        TrainConfig(cache=True, resize=224).resolve(large).resize
        == TrainConfig(resize=224).resolve(large).resize
        == 224
    )
    assert TrainConfig(cache=True).resolve(photos).resize == 18  # 16 * 256/224 is 18.3
    in_memory = TrainConfig(cache=True).resolve(data)
    assert (in_memory.cache, in_memory.resize) == (True, None)


def test_resize_is_for_files_at_least_as_large_as_the_images(data: ImageData, photos: ImageData) -> None:
    with pytest.raises(ValueError, match="in memory"):
        TrainConfig(resize=64).resolve(data)
    with pytest.raises(ValueError, match="16 pixels"):
        TrainConfig(resize=15).resolve(photos)


def test_resolve_refuses_other_data(data: ImageData) -> None:
    with pytest.raises(ValueError, match=r"^`image_size` must be 16, as the data that were passed have, not 32"):
        TrainConfig(image_size=32).resolve(data)


def test_differences_leave_out_where_it_runs() -> None:
    assert TrainConfig(workers=2, threads=1, data_root="x", cache=True).differences(TrainConfig()) == []
    assert TrainConfig(seed=1).differences(TrainConfig(epochs=3)) == [
        "epochs (3 there, None here)",
        "seed (0 there, 1 here)",
    ]
    assert TrainConfig(resize=256).differences(TrainConfig()) == ["resize (None there, 256 here)"]
