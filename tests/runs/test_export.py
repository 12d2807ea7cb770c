"""What leaves a run: files that other programs read, and that say what PyTorch says."""

import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import selfdistill
from selfdistill.config import TrainConfig
from selfdistill.errors import ArgumentError, NonFiniteError
from selfdistill.models import build
from selfdistill.runs import export as exporting
from selfdistill.runs.export import Format, check_images, compare, export_run, in_words
from selfdistill.training import LoadedModel, load_run
from selfdistill.training.export import save_description, save_model
from selfdistill.training.run import load

CLASSES = ("one", "two", "zero")


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Path:
    return finished("resnet10_cifar", pictures, tmp_path / "run")


def finished(name: str, pictures: Path, folder: Path) -> Path:
    """A folder as a finished run leaves it, with a model whose BatchNorms have statistics."""
    ours = name.endswith("_cifar")
    recipe = TrainConfig(data=str(pictures), model=name, width=4 if ours else None, image_size=32 if ours else 160)
    model = build(name, 3, width=recipe.width)
    for _ in range(3):
        model(torch.randn(4, 3, recipe.image_size or 0, recipe.image_size or 0))
    folder.mkdir()
    save_model(model, recipe, load(recipe), folder)
    return folder


def description(run: Path) -> dict[str, Any]:
    known = json.loads((run / "model.json").read_text())
    assert tuple(known["classes"]) == CLASSES
    return dict(known)


def images(loaded: LoadedModel, count: int) -> Tensor:
    return torch.randn(count, 3, loaded.image_size, loaded.image_size)


def names_a_folder(file: Path) -> bool:
    """Whether it says where this package or PyTorch is on this machine."""
    places = [Path(module.__file__ or "").parents[1] for module in (exporting, torch)]
    return any(str(place).encode() in file.read_bytes() for place in places)


def test_onnx_runs_without_torch_and_says_what_it_is(run: Path) -> None:
    import onnxruntime

    exported = export_run(run, "onnx")
    assert exported.path == run / "exported.onnx"
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("images", ["batch", 3, 32, 32])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["batch", 3])]
    metadata = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(value) for name, value in metadata.items()} == description(run)
    assert not names_a_folder(exported.path)
    loaded = load_run(run)
    for count in (1, 2, 5):
        x = images(loaded, count)
        (logits,) = session.run(None, {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), loaded.model(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_program_is_loaded_without_this_package(run: Path) -> None:
    exported = export_run(run, "pt2", run / "deep" / "er.pt2")
    assert [path.name for path in (run / "deep").iterdir()] == ["er.pt2"]
    extra = {"model.json": ""}
    program = torch.export.load(exported.path, extra_files=extra).module()
    assert json.loads(extra["model.json"]) == description(run)
    assert not names_a_folder(exported.path)
    loaded = load_run(run)
    for count in (1, 2, 5):
        x = images(loaded, count)
        torch.testing.assert_close(program(x), loaded.model(x))


def test_weights_are_enough_alone(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "alone" / "weights.safetensors"
    exported = export_run(run, "safetensors", file)
    assert exported.difference == 0
    loaded, again = load_run(run), load_run(file)
    assert again.model.state_dict().keys() == loaded.model.state_dict().keys()
    x = images(loaded, 2)
    assert torch.equal(selfdistill.load(file)(x), loaded.model(x))
    assert (again.classes, again.mean, again.std) == (loaded.classes, loaded.mean, loaded.std)
    with safe_open(file, framework="pt") as opened:
        metadata = {name: json.loads(value) for name, value in opened.metadata().items()}
        assert set(opened.keys()) == set(loaded.model.state_dict())
    assert len(metadata.pop("checksum")) == 64
    assert metadata == description(run)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_probabilities_at_the_temperature(run: Path, kind: Format) -> None:
    import onnxruntime

    save_description(run, description(run) | {"temperature": 2.5})
    exported = export_run(run, kind, probabilities=True)
    assert "probabilities differ" in in_words(exported)
    known, loaded = description(run) | {"output": "probabilities"}, load_run(run)
    x = images(loaded, 5)
    if kind == "pt2":
        extra = {"model.json": ""}
        got = torch.export.load(exported.path, extra_files=extra).module()(x)
        assert json.loads(extra["model.json"]) == known
    else:
        session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
        assert [o.name for o in session.get_outputs()] == ["probabilities"]
        metadata = session.get_modelmeta().custom_metadata_map
        assert {name: json.loads(value) for name, value in metadata.items()} == known
        got = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
    torch.testing.assert_close(got.detach(), (loaded.model(x).detach() / 2.5).softmax(dim=1), rtol=1e-4, atol=1e-6)


def test_bare_weights_have_no_probabilities(run: Path) -> None:
    with pytest.raises(ArgumentError) as refused:
        export_run(run, "safetensors", probabilities=True)
    assert refused.value.argument == "probabilities"
    assert not (run / "exported.safetensors").exists()


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:test_vit"])
def test_foreign_models(name: str, pictures: Path, tmp_path: Path) -> None:
    run = finished(name, pictures, tmp_path / "run")
    for kind in get_args(Format):
        exported = export_run(run, kind)
        assert exported.size == exported.path.stat().st_size
        assert exported.difference < 1e-4


def test_what_is_printed(run: Path) -> None:
    exported = export_run(run, "safetensors")
    lines = in_words(exported).splitlines()
    size = exported.path.stat().st_size / 2**20
    assert lines[0] == f"{exported.path}: {size:.2f} MiB; logits differ from PyTorch's by at most 0"
    assert lines[1] == "input: (B, 3, 32, 32), float32, RGB, (pixels / 255 - mean) / std"
    assert re.fullmatch(r" +mean (0\.\d+, ){2}0\.\d+; std (0\.\d+, ){2}0\.\d+", lines[2])
    assert lines[3].startswith("output: logits (B, 3)")


class Shifted(nn.Module):
    """Says something else than the model it is made of."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + self.by * logits.abs().max()


def test_a_difference_is_measured(run: Path) -> None:
    loaded = load_run(run)
    with torch.no_grad():
        largest = max(loaded.model(x).abs().max().item() for x in check_images(loaded))
    assert compare(loaded.model, loaded, "pt2") == 0
    assert compare(Shifted(loaded.model, 5e-5), loaded, "pt2") == pytest.approx(5e-5 * largest, rel=0.05)
    with pytest.raises(RuntimeError, match=r"^the pt2 model differs from PyTorch's by .* \(batch of 1\): nothing was"):
        compare(Shifted(loaded.model, 2e-4), loaded, "pt2")
    with pytest.raises(RuntimeError, match="differs from PyTorch's by nan"):
        compare(Shifted(loaded.model, float("nan")), loaded, "pt2")
    with pytest.raises(RuntimeError, match=r"returns \(1, 2\), not \(1, 3\)"):
        compare(lambda x: loaded.model(x)[:, :2], loaded, "pt2")


def test_the_check_sees_batches_and_images_of_two_kinds(run: Path) -> None:
    loaded = load_run(run)
    batches = check_images(loaded)
    assert [len(batch) for batch in batches] == [1, 1, 3, 3]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (loaded.mean, loaded.std))
    for pictures in batches[1::2]:
        pixels = pictures * std + mean
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert (pixels[..., 1:] - pixels[..., :-1]).abs().max() < 0.2


@pytest.mark.parametrize(("kind", "there"), [("onnx", False), ("pt2", True), ("safetensors", True)])
def test_nothing_is_left_of_an_export_that_differs(
    run: Path, kind: Format, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        (run / f"exported.{kind}").write_text("an older one")
    before = {path: path.read_bytes() for path in run.iterdir()}
    write = getattr(exporting, f"as_{kind}")
    # as_... returns what runs the file; here it runs another one
    monkeypatch.setattr(exporting, f"as_{kind}", lambda *given: Shifted(Called(write(*given)), 0.01))
    with pytest.raises(RuntimeError, match=f"the {kind} model differs from PyTorch's by"):
        export_run(run, kind)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


class Called(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.function(x)
        return logits


class Untraceable(nn.Module):
    """Decides by a value, which no exporter can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3))
        logits: Tensor = self.fc(pooled) if pooled.sum() > 0 else self.fc(-pooled)
        return logits


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_model_that_cannot_be_traced(run: Path, kind: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = LoadedModel(Untraceable().eval(), CLASSES, 32, (0.5,) * 3, (0.5,) * 3)
    monkeypatch.setattr(exporting, "load_run", lambda run: loaded)
    with pytest.raises(RuntimeError, match=f"^resnet10_cifar cannot be exported as {kind}: .*data-dependent") as error:
        export_run(run, kind)
    assert "\n" not in str(error.value)
    assert not (run / f"exported.{kind}").exists()


def test_weights_that_are_no_numbers(run: Path) -> None:
    loaded = load_run(run)
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the logits of the model itself are not finite numbers"):
        compare(loaded.model, loaded, "pt2")


def test_names_that_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^`out` is net\.pt2"):
        export_run(run, "onnx", Path("net.pt2"))
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ValueError, match=r"^`out` is .*folder\.pt2, a folder"):
        export_run(run, "pt2", tmp_path / "folder.pt2")
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"^`out` is .*model\.safetensors, the run's own"):
        export_run(run, "safetensors", run / ".." / "run" / "model.safetensors")
    assert (run / "model.safetensors").read_bytes() == before


def test_a_missing_package_is_named_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    told = r'^`format="onnx"` needs onnxscript: pip install "selfdistill\[onnx\]"$'
    with pytest.raises(RuntimeError, match=told):
        export_run(run, "onnx")
    assert export_run(run, "safetensors").path.exists(), "only ONNX needs it"


def test_files_that_hold_no_model(tmp_path: Path, run: Path) -> None:
    (tmp_path / "note.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match=r"note\.safetensors is neither a run's folder nor an exported .safetensors"):
        load_run(tmp_path / "note.safetensors")
    with pytest.raises(ValueError, match="does not describe a model of selfdistill"):
        load_run(run / "model.safetensors")
