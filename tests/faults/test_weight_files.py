"""Files of weights as people have them are read, and no file runs anything."""

import argparse
import copy
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill import DLB, DML, CrossEntropy, SelfDistiller
from selfdistill.integrations.lightning import DistillerModule
from selfdistill.models import build, external


def small(**arguments: Any) -> nn.Module:
    return build("resnet10_cifar", 3, width=4, **arguments)


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def distilled(model: nn.Module, method: Any) -> dict[str, Any]:
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    distiller = SelfDistiller(model, copy.deepcopy(method), example_input=x)
    if isinstance(method, DLB):
        distiller(x, y)
    return DistillerModule(distiller, lambda p: torch.optim.SGD(p, lr=0.1)).state_dict()


ARGUMENTS = argparse.Namespace(lr=0.1, aa=None, mean=(0.5, 0.5))
FILES = {
    "model_best.pth.tar": lambda s: {"state_dict": s, "epoch": 3, "best_acc1": torch.tensor(70.0), "optimizer": {}},
    "numpy.pth.tar": lambda s: {"state_dict": prefixed(s, "module."), "best": np.float64(70.1), "n": np.int64(3)},
    "timm.pth": lambda s: {"state_dict": s, "state_dict_ema": s, "arch": "resnet18", "args": ARGUMENTS},
    "torchvision.pth": lambda s: {"model": s, "optimizer": {}, "lr_scheduler": {}, "epoch": 3, "args": ARGUMENTS},
    "loop.pt": lambda s: {"model_state_dict": prefixed(s, "module."), "optimizer_state_dict": {}, "loss": 0.1},
    "pytorch_model.bin": lambda s: s,
    "last.ckpt": lambda s: {"state_dict": prefixed(s, "model."), "pytorch-lightning_version": "2.0", "loops": {}},
    "metrics.ckpt": lambda s: {"state_dict": prefixed(s, "net.") | {"criterion.weight": torch.ones(3)}},
    "ema.ckpt": lambda s: {"state_dict": prefixed({k: v + 1 for k, v in s.items()}, "ema.") | prefixed(s, "model.")},
    "compiled.ckpt": lambda s: {"state_dict": prefixed(s, "model._orig_mod.")},
    "nested.pt": lambda s: {"model": {"state_dict": prefixed(s, "module.backbone.")}},
    "cifar.pth": lambda s: {"net": prefixed(s, "module."), "acc": 95.1, "epoch": 3},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_checkpoints_of_common_loops_are_read(name: str, legacy: bool, tmp_path: Path) -> None:
    trained, path = small(), tmp_path / name
    torch.save(FILES[name](trained.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    assert same(small(weights=path), trained)


@pytest.mark.parametrize("method", [DML(), DLB(), CrossEntropy()], ids=repr)
@pytest.mark.parametrize("name", ["module.ckpt", "0003-00000.pt"])
def test_our_own_checkpoints_are_read(method: Any, name: str, tmp_path: Path) -> None:
    trained, path = small(), tmp_path / name
    state = distilled(trained, method)
    of_run = {key.removeprefix("distiller."): value for key, value in state.items()}
    torch.save({"state_dict": state} if "module" in name else {"distiller": of_run, "epoch": 3, "ranks": [{}]}, path)
    assert same(small(weights=path), trained)


def test_the_folder_of_a_run_is_read(tmp_path: Path) -> None:
    trained = small()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    assert same(small(weights=str(tmp_path)), trained)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="nor a file that exists"):
        small(weights=str(tmp_path))


def test_a_pipe_is_no_file_of_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="nor a file that exists"):
        small(weights=tmp_path / "net.pt")


def test_of_several_networks_none_is_guessed(tmp_path: Path) -> None:
    state, path = small().state_dict(), tmp_path / "two.ckpt"
    torch.save({"state_dict": prefixed(state, "generator.") | prefixed(state, "other.")}, path)
    with pytest.raises(ValueError, match=r"hold several such networks: generator\., other\.; save one alone"):
        small(weights=path)


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["a.pth.tar", "a.ckpt", "a.bin", "a.pt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_checkpoint_is_run(name: str, legacy: bool, tmp_path: Path) -> None:
    path, target = tmp_path / name, tmp_path / "ran"
    content = {"state_dict": small().state_dict(), "args": argparse.Namespace(trap=Trap(target))}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="nothing in them was run"):
        small(weights=path)
    assert not target.exists()


# What torchvision has downloaded before


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an own cache."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("hashed", [True, False], ids=["another checksum", "the right checksum"])
def test_a_cached_download_runs_nothing(hashed: bool, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    target, weights = hub / "ran", models.get_model_weights("resnet18").DEFAULT
    path = hub / weights.url.rpartition("/")[2]
    torch.save({"x": Trap(target)}, path)
    if not hashed:  # as if the file had been made to fit the first digits of its checksum
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(external.hashlib, "file_digest", lambda *_: hashlib.sha256(path.read_bytes()))
        monkeypatch.setattr(external.re, "search", lambda *_: (None, digest[:8]))
    with pytest.raises(OSError, match="another checksum" if hashed else "Weights only load failed"):
        build("torchvision:resnet18", 10, weights="default")
    assert not target.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_cached_download_that_is_whole_is_read(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    trained = models.mnasnet0_5()
    weights = models.get_model_weights("mnasnet0_5").DEFAULT
    path = hub / weights.url.rpartition("/")[2]
    torch.save(trained.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(external.re, "search", lambda *_: (None, digest[:8]))
    assert same(build("torchvision:mnasnet0_5", 1000, weights="default"), trained)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(OSError, match="another checksum"):
        build("torchvision:mnasnet0_5", 1000, weights="default")


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())
