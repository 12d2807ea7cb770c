"""Models of a user's own: which functions build one, and how they are found by name."""

import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from selfdistill.errors import ArgumentError
from selfdistill.models import build
from selfdistill.models.function import ModelFunction
from selfdistill.network import check_classifier

WRONG = [
    *("my_nets:Nett", "no_such_module:f", "my_nets:size", "my_nets:number", "my_nets:layer", "needy:f", "broken:f"),
    *("os:abort", "my_nets:a b", "__main__:small", "my_nets:<lambda>#0123abcd"),
]


SAME = nn.Linear(2, 3)


def small() -> nn.Module:
    return nn.Linear(2, 3)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, which is not on the path."""
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n    def __init__(self): super().__init__(2, 3)\n"
        "def size(n): return nn.Linear(n, n)\ndef number(): return 5\nlayer = nn.Linear(2, 2)\n"
    )
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    (tmp_path / "broken.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return "my_nets"


def test_a_module_of_the_current_folder_builds_a_model(module: str) -> None:
    model = build(f"{module}:Net", 3)
    assert type(model).__name__ == "Net"
    assert model.has_new_head


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_one_line(module: str, name: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        build(name, 3)
    assert raised.value.argument == "model"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("argument", [{"width": 8}, {"features": 8}, {"head_layers": 2}])
def test_arguments_of_our_networks_are_refused(argument: dict[str, int]) -> None:
    with pytest.raises(ArgumentError) as raised:
        build(ModelFunction(small), 3, **argument)  # type: ignore[arg-type]
    assert [raised.value.argument] == list(argument)


def test_a_function_has_its_name_and_travels_by_it() -> None:
    name = ModelFunction(small)
    assert name == f"{__name__}:small"
    assert name.is_importable
    copy = pickle.loads(pickle.dumps(name))
    assert (copy, copy.function) == (name, small)


@pytest.mark.parametrize("function", [lambda: nn.Linear(2, 3), partial(nn.Linear, 2, 3)])
def test_a_function_without_a_name_is_told_by_its_layers(function: Callable[[], nn.Module]) -> None:
    name = ModelFunction(function)
    assert not name.is_importable
    state = torch.get_rng_state()
    assert name == ModelFunction(function)
    assert torch.equal(state, torch.get_rng_state())
    assert name.partition("#")[2] != ModelFunction(lambda: nn.Linear(2, 4)).partition("#")[2]
    assert isinstance(build(name, 3), nn.Linear)


@pytest.mark.parametrize("wrong", [nn.Linear(2, 3), 5, lambda x: x, lambda: None, lambda: SAME])
def test_what_builds_no_model_is_refused(wrong: object) -> None:
    with pytest.raises(ArgumentError):
        ModelFunction(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "classes"), [((1, 4, 4), 3), ((3, 4, 4), 3), ((1, 4, 4), 2)])
def test_one_image_says_whether_the_model_fits(shape: tuple[int, ...], classes: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 4), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    if (shape, classes) == ((1, 4, 4), 3):
        check_classifier(model, "mine", shape, classes)
        assert model.training
        return
    with pytest.raises(ArgumentError) as raised:
        check_classifier(model, "mine", shape, classes)
    assert raised.value.argument == "model"
