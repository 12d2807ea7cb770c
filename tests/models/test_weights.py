"""Files of weights: what is read, what is left out, what is refused, and that nothing in them runs."""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill.models import build

SMALL = {"name": "resnet10_cifar", "width": 4}


def small(classes: int = 10, **arguments: object) -> nn.Module:
    return build(**{**SMALL, "classes": classes, **arguments})


def same(a: nn.Module, b: nn.Module, but: str = "nothing") -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items() if not key.startswith(but))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_every_format_gives_the_same_model(suffix: str, tmp_path: Path) -> None:
    trained, path = small(), tmp_path / f"net{suffix}"
    save_file(trained.state_dict(), path) if suffix == ".safetensors" else torch.save(trained.state_dict(), path)
    assert same(small(weights=str(path)), trained)
    assert not same(small(), trained)


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module.", "_orig_mod."])
@pytest.mark.parametrize("nest", ["state_dict", "model", None])
def test_nested_mappings_and_prefixes(prefix: str, nest: str | None, tmp_path: Path) -> None:
    trained, path = small(), tmp_path / "net.pt"
    state = {prefix + key: value for key, value in trained.state_dict().items()}
    torch.save({nest: state, "epoch": 3, "optimizer": {"lr": 0.1}} if nest else state, path)
    assert same(small(weights=str(path)), trained)


@pytest.mark.parametrize(("layers", "head"), [(1, "fc.weight, fc.bias"), (2, "fc.2.weight, fc.2.bias")])
def test_head_of_another_class_count_is_left_out_and_said(layers: int, head: str, tmp_path: Path) -> None:
    trained, path = small(10, head_layers=layers), tmp_path / "net.pt"
    torch.save(trained.state_dict(), path)
    with pytest.warns(UserWarning, match=f"are for 10 classes, not 7: {head} left out; the head is new"):
        model = small(7, head_layers=layers, weights=str(path))
    assert same(model, trained, but="fc" if layers == 1 else "fc.2")


@pytest.mark.parametrize("name", ["torchvision:mnasnet0_5", "timm:test_vit"])
def test_foreign_models_read_files_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    trained = build(name, 10)
    save_file(trained.state_dict(), path)
    assert same(build(name, 10, weights=str(path)), trained)


def test_file_without_batchnorm_counters(tmp_path: Path) -> None:
    trained, path = small(), tmp_path / "net.pt"
    torch.save({k: v for k, v in trained.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
    assert same(small(weights=str(path)), trained)


def test_weights_of_another_width(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(small().state_dict(), path)
    with pytest.raises(ValueError, match=r"do not fit this model; of another shape: conv1.weight") as caught:
        small(width=8, weights=str(path))
    message = str(caught.value)
    assert "conv1.weight (4, 3, 3, 3) where the model has (8, 3, 3, 3)" in message
    assert " more; build the model they were saved from" in message
    assert "\n" not in message


def test_width_that_happens_to_be_the_class_count(tmp_path: Path) -> None:
    # conv1 (4, ...) against (10, ...) looks like a head of another class count; the rest tells that it is none.
    path = tmp_path / "net.pt"
    torch.save(small().state_dict(), path)
    with pytest.raises(ValueError, match="do not fit this model"):
        small(width=10, weights=str(path))


def test_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    state = small().state_dict()
    state["head.weight"] = state.pop("fc.weight")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"missing: fc\.weight; unexpected: head\.weight; build the model"):
        small(weights=str(path))


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickle_that_would_run_code_runs_nothing(writer: str, tmp_path: Path) -> None:
    path, target = tmp_path / "net.pt", tmp_path / "ran"
    content = {"state_dict": small().state_dict(), "extra": Trap(target)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(
        ValueError, match=r"hold more than tensors, or are damaged \(nothing in them was run\)"
    ) as caught:
        small(weights=str(path))
    assert "\n" not in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert target.exists()  # the trap itself works


def test_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(small(), path)
    with pytest.raises(ValueError, match=r"save them again with torch.save\(model.state_dict\(\), FILE\)"):
        small(weights=str(path))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 20_000])
def test_damaged_file(suffix: str, keep: int, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    state = small().state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged") as caught:
        small(weights=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "hold entries that are no tensors: epoch, lr"),
        ({}, "hold nothing; needed is a state_dict"),
        ([torch.zeros(2)], "hold no state_dict but a list"),
    ],
)
def test_file_without_a_state_dict(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        small(weights=str(path))


def test_no_such_file_and_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'imagenet' are neither 'none' nor 'default' nor a file that exists"):
        small(weights="imagenet")
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"are neither a .safetensors file nor one of PyTorch \(.pt, "):
        small(weights=str(path))


def test_safetensors_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    save_file(small().state_dict(), path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(RuntimeError, match=r'a .safetensors file needs: pip install "selfdistill\[lab\]"'):
        small(weights=str(path))
