"""What a finished run leaves to be used: the bare student, and enough about it to build it again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from safetensors import safe_open
from torch import nn

from selfdistill import __version__
from selfdistill.config.train_config import MAX_IMAGE_SIZE, TrainConfig
from selfdistill.data import ImageData
from selfdistill.data.sets import BILINEAR, Resizing
from selfdistill.errors import ArgumentError, NonFiniteError
from selfdistill.files import parse_json, read_file, write_atomically
from selfdistill.models import build
from selfdistill.models.function import ModelFunction, is_function
from selfdistill.models.sealed import read_weights, seal_weights
from selfdistill.network import DIVERGED, nonfinite_weights
from selfdistill.records.record import to_struct
from selfdistill.text import first_line, quote

HUB = "hf-hub:"
HUB_FILES = ("model.json", "model.safetensors")
"""What a repository of the hub holds of a run, beside its card."""

AGAIN = "run the training again, which makes it again from the last checkpoint"

_Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_IMAGE_SIZE)]
_Finite = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e30)]


class _Description(msgspec.Struct):
    """What ``model.json`` must hold."""

    model: str
    width: int | None
    features: int | None
    head_layers: int
    classes: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    image_size: _Size
    mean: Annotated[tuple[_Finite, ...], msgspec.Meta(min_length=1)]
    std: Annotated[tuple[_Positive, ...], msgspec.Meta(min_length=1)]
    temperature: _Positive = 1.0
    # What earlier versions leave out.
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_pct: Annotated[float, msgspec.Meta(ge=0.1, le=1)] = 0.875
    crop_mode: Literal["center", "squash"] = "center"


@dataclass(frozen=True)
class LoadedModel:
    """A trained model and how to feed it.

    Attributes:
        model: in evaluation mode, on the CPU; images ``(B, K, S, S)`` of K channels to logits ``(B, C)``.
        classes: the classes' names, in the order of the logits.
        image_size: S, the side of an image in pixels.
        mean: per channel; an input is ``(pixels / 255 - mean) / std``.
        std: per channel.
        temperature: T, fitted on validation images; probabilities are softmax(logits / T). 1 where none was fitted.
        resizing: how files are brought to the size.
    """

    model: nn.Module
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float = 1.0
    resizing: Resizing = BILINEAR

    @property
    def channels(self) -> int:
        """K, how many channels an image has."""
        return len(self.mean)


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write a model's ``state_dict`` as safetensors, atomically, under the model's own names; return its SHA-256."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    content = seal_weights(tensors, metadata)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def save_model(
    model: nn.Module, recipe: TrainConfig, data: ImageData, run: Path, temperature: float | None = None
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a run folder, with the temperature where one was fitted."""
    sha256 = save_weights(model, run / "model.safetensors")
    description = {
        "model": recipe.model,
        "width": recipe.width,
        "features": recipe.features,
        "head_layers": recipe.head_layers,
        "classes": list(data.classes),
        "image_size": data.image_size,
        "mean": list(data.mean),
        "std": list(data.std),
        **vars(data.resizing),
        "epochs": recipe.epochs,
        "sha256": sha256,
        "selfdistill": __version__,
    }
    save_description(run, description if temperature is None else description | {"temperature": temperature})


def save_description(run: Path, known: Mapping[str, Any]) -> None:
    """Write ``model.json`` into a run's folder, whole or not at all."""
    text = json.dumps(known, indent=1, ensure_ascii=False) + "\n"
    write_atomically(run / "model.json", text.encode())


def load(run: str | Path, model: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a run's trained model, in evaluation mode on the CPU.

    Args:
        run: the run's folder, a file that ``selfdistill export --format safetensors`` wrote, or ``"hf-hub:NAME"``.
        model: builds the model; needed where the run was made with a function that cannot be imported.

    Raises:
        ValueError: there is no finished run, or its files are damaged or do not fit each other.
        OSError: the hub does not have it, or is not reached.
    """
    return load_run(run, None if model is None else ModelFunction(model)).model


def load_run(run: str | Path, model: str | None = None) -> LoadedModel:
    """Load a run's trained model with its classes and its normalisation.

    Args:
        run: the run's folder, a file that ``selfdistill export --format safetensors`` wrote, or ``"hf-hub:NAME"``.
        model: the name of the model, which may hold the function that builds it; None: that in the run.

    Raises:
        ValueError: there is no finished run, or its files are damaged, do not fit each other, or hold weights that
            are not finite.
        OSError: the hub does not have it, or is not reached.
    """
    from_hub = str(run).startswith(HUB)
    run = _from_hub(str(run).removeprefix(HUB)) if from_hub else Path(run)
    known = description(run)
    if from_hub and model is None and is_function(known["model"]):
        raise ValueError(f"{run} names the function {quote(known['model'])}, which a stranger chose: give `model`")
    tensors = load_weights(run)
    try:
        network = build(
            known["model"] if model is None else model,
            len(known["classes"]),
            width=known["width"],
            features=known["features"],
            head_layers=known["head_layers"],
        )
    except ArgumentError as error:
        raise ValueError(f"{run} describes no model that can be built: {error.argument} {error.problem}") from None
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        source = "its own metadata" if run.is_file() else run / "model.json"
        raise ValueError(f"the weights of {run} do not fit {source}: {' '.join(str(error).split())}") from None
    if (name := nonfinite_weights(network)) is not None:
        epochs = f" after epoch {known['epochs']}" if "epochs" in known else ""
        raise NonFiniteError(f"{run}: the weights {name!r} are not finite numbers{epochs}; {DIVERGED}")
    return LoadedModel(
        network.eval(),
        tuple(known["classes"]),
        known["image_size"],
        tuple(known["mean"]),
        tuple(known["std"]),
        known.get("temperature", 1.0),
        Resizing(**{name: known[name] for name in vars(BILINEAR) if name in known}),
    )


def _from_hub(name: str) -> Path:
    """Return the folder of a run that was pushed to the hub; downloaded if need be.

    Not into the hub's own cache, which holds links: none is followed in a run's folder.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HOME

    try:
        folder = Path(HF_HOME) / "selfdistill" / name
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES), local_dir=folder))
    except Exception as error:  # each of the hub's transports has errors of its own
        raise OSError(f"{HUB}{name} cannot be found ({first_line(error)})") from error


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's folder or of an exported file, if their checksum agrees.

    Runs of earlier versions have none.

    Raises:
        ValueError: they are missing or damaged, or so is what describes them.
    """
    if run.is_file():
        return read_run_weights(run.resolve(), "export it again")
    return read_run_weights(run / "model.safetensors", sha256=description(run).get("sha256"))


def read_run_weights(path: Path, remedy: str = AGAIN, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Return what a file of weights of ours holds.

    Raises:
        ValueError: it is missing or damaged; one line with the remedy.
        OSError: it cannot be read, or is a link.
    """
    try:
        return read_weights(path, sha256)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}: {remedy}") from None


def description(run: Path) -> dict[str, Any]:
    """Return what ``model.json`` of a run's folder, or an exported file's metadata, says of the model."""
    if run.is_file():
        return _metadata(run)
    path = run / "model.json"
    try:
        known = parse_json(read_file(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{run} is not a finished run: {path.name} is missing; {AGAIN}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: {AGAIN}") from None
    return _checked(known, path)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            known = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
    except Exception:  # safetensors raises a bare Exception subclass for any other file
        raise ValueError(f"{path} is neither a run's folder nor an exported .safetensors file") from None
    return _checked(known, path)


def _checked(known: Any, path: Path) -> dict[str, Any]:
    to_struct(known, _Description, f"{path} does not describe a model of selfdistill", "give the folder of a run")
    assert isinstance(known, dict)
    return known
