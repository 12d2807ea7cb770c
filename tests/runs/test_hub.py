"""Push a run to the hub and load it again, with a server that is a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml

from selfdistill import load
from selfdistill.config import TrainConfig
from selfdistill.errors import ArgumentError
from selfdistill.runs.sharing.hub import push_run
from selfdistill.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "run"
    recipe = TrainConfig(
        data="digits", per_class=2, test_per_class=2, model="resnet10_cifar", width=4, epochs=1, threads=1
    )
    train(recipe, folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Answers the three calls of the hub's library from a folder."""
    server = tmp_path / "server"

    def create_repo(_: Any, name: str, *, private: bool, exist_ok: bool) -> str:
        (server / name).mkdir(parents=True, exist_ok=exist_ok)
        return f"hub/{name}{' (private)' * private}"

    def upload_folder(_: Any, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert commit_message
        shutil.copytree(folder_path, server / repo_id, dirs_exist_ok=True)

    def snapshot_download(name: str, *, allow_patterns: list[str], local_dir: Path) -> str:
        local_dir.mkdir(parents=True, exist_ok=True)
        for file in allow_patterns:
            shutil.copy(server / name / file, local_dir)
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return server


def test_what_is_pushed_can_be_loaded(run: Path, hub: Path) -> None:
    assert push_run(run, "user/digits", private=True) == "hub/user/digits (private)"
    assert sorted(file.name for file in (hub / "user/digits").iterdir()) == [
        "README.md", "model.json", "model.safetensors",
    ]  # fmt: skip
    for name, value in load("hf-hub:user/digits").state_dict().items():
        assert torch.equal(load(run).state_dict()[name], value)


def test_the_card_holds_the_numbers_and_no_path(run: Path, hub: Path) -> None:
    push_run(run, "user/digits")
    card = (hub / "user/digits/README.md").read_text()
    evaluation = json.loads((run / "result.json").read_text())["evaluation"]
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "selfdistill"
    for metric in ("top1", "nll", "ece", "gap"):
        assert f"| {evaluation[metric]:.4f} |" in card
    assert "20 test images" in card
    assert "seed 0" in card
    assert str(run.parent) not in card + (hub / "user/digits/model.json").read_text()


def test_a_function_that_a_stranger_names_is_not_called(run: Path, hub: Path) -> None:
    push_run(run, "user/digits")
    description = hub / "user/digits/model.json"
    description.write_text(description.read_text().replace('"resnet10_cifar"', '"package.module:function"'))
    with pytest.raises(ValueError, match=r"package\.module:function"):
        load("hf-hub:user/digits")


@pytest.mark.parametrize("name", ["a b", "user/a/b", "-x", ""])
def test_names_that_the_hub_cannot_have(run: Path, hub: Path, name: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        push_run(run, name)
    assert refused.value.argument == "hub"
    assert not hub.exists()


def test_a_hub_that_is_not_reached_is_one_line(run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    for call in (lambda: push_run(run, "user/digits"), lambda: load("hf-hub:user/digits")):
        with pytest.raises(OSError, match="user/digits") as refused:
            call()
        assert "\n" not in str(refused.value)
