"""Read a file of weights into a model, without running what the file says or guessing what it means."""

import argparse
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfdistill.errors import ArgumentError
from selfdistill.models.external import start_small
from selfdistill.models.sealed import read_weights
from selfdistill.text import first_line

_SHOWN = 3  # keys that an error names: enough to see what is wrong on one line
_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin")
_NESTS = ("state_dict", "model_state_dict", "model", "net", "distiller")  # the last: a run's own checkpoints
_PREFIXES = ("", "model.", "module.", "distiller.model.")  # a file of several networks: this one is it
_SCALAR: Any = np.float64(0).__reduce__()[0]
_PLAIN: list[Any] = [
    # What checkpoints hold beside tensors: arguments and numpy's numbers. Reading these runs nothing.
    *(argparse.Namespace, np.dtype, _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")),
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64, np.bool_)),
]


def load_weights(model: nn.Module, path: Path, classes: int) -> bool:
    """Fill ``model`` with the weights of a file; a head of another class count keeps its random start.

    Args:
        model: the model, built for ``classes``.
        path: a ``.safetensors`` file; a file of PyTorch (``.pt``, ``.pth``, ``.pth.tar``, ``.ckpt``, ``.bin``) with a
            ``state_dict``, alone or as ``"state_dict"``, ``"model_state_dict"``, ``"model"`` or ``"net"`` in a mapping,
            as timm, Lightning and most loops write them; a run's checkpoint; or a run's folder, or another one with
            ``model.safetensors``. The model may be a part of what is in it: ``"module."``, ``"model."`` or any other
            prefix under which all its names stand is taken off.

    Returns:
        Whether the head keeps its random start.

    Raises:
        ValueError: if the file is of another kind, damaged, holds more than tensors or does not fit.
        OSError: if it cannot be read.
        RuntimeError: if a ``.safetensors`` file is met without the package that reads it.

    Warns:
        UserWarning: if the head's tensors were left out because their class count is another.

    Example:
        >>> import tempfile
        >>> net = nn.Linear(3, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "net.pt"
        ...     torch.save({"state_dict": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}}, file)
        ...     load_weights(net, file, classes=2)
        False
        >>> net(torch.ones(1, 3)).tolist()
        [[3.0, 3.0]]
    """
    own, path = model.state_dict(), weights_file(path)
    state = _part_of(_state_dict(_read(path), path), own, path)
    # Files older than this counter lack it; it is no weight.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in state if key in own and state[key].shape != own[key].shape]
    # A head of another class count differs in its first dimension alone, everywhere by the same count.
    heads = [key for key in reshaped if _differs_in_classes(state[key], own[key], classes)]
    counts = {state[key].shape[0] for key in heads}
    if len(counts) > 1:
        heads = []
    wrong = [
        f"{key} {tuple(state[key].shape)} where the model has {tuple(own[key].shape)}"
        for key in reshaped
        if key not in heads
    ]
    troubles = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
    if any(keys for _, keys in troubles):
        told = "; ".join(f"{name}: {_few(keys)}" for name, keys in troubles if keys)
        raise ArgumentError(
            "weights", f"{str(path)!r} do not fit this model; {told}; build the model they were saved from"
        )
    own.update({key: value for key, value in state.items() if key not in heads})
    model.load_state_dict(own)
    if heads:
        for key in heads:
            start_small(model.get_submodule(key.rpartition(".")[0]))
        warnings.warn(
            f"weights {str(path)!r} are for {counts.pop()} classes, not {classes}: {_few(heads)} left out; "
            "the head is new",
            stacklevel=3,
        )
    return bool(heads)


def weights_file(path: str | Path) -> Path:
    """Return the file itself, or of a folder, such as a run's, the ``model.safetensors`` in it."""
    path = Path(path).expanduser()
    return path / "model.safetensors" if path.is_dir() else path


def _read(path: Path) -> object:
    """Return what the file holds, tensors and plain containers only."""
    if path.suffix == ".safetensors":
        try:
            return read_weights(path.resolve())
        except ModuleNotFoundError as error:
            raise RuntimeError('a .safetensors file needs: pip install "selfdistill[lab]"') from error
        except ValueError as error:
            raise ArgumentError("weights", f"{str(path)!r} are damaged ({error}): copy them again") from error
    if path.suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise ArgumentError("weights", f"{str(path)!r} are neither a .safetensors file nor one of PyTorch ({known})")
    with path.open("rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(_PLAIN):
        warnings.simplefilter("ignore")  # its advice is for who wrote the file; what matters is an error below
        try:
            return _plain(torch.load(file, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError as error:
            raise ArgumentError(
                "weights",
                f"{str(path)!r} hold more than tensors, or are damaged (nothing in them was run): "
                "save them again with torch.save(model.state_dict(), FILE)",
            ) from error
        except Exception as error:  # a damaged file may fail anywhere in the reader
            told = f"weights {str(path)!r} are damaged ({first_line(error)}): copy them again"
            raise ValueError(told) from error


def _plain(content: object) -> object:
    """Return what a file holds without the attributes that it gave to its mappings: they would hide our methods."""
    return {key: _plain(value) for key, value in dict.items(content)} if isinstance(content, dict) else content


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Find the ``state_dict`` in what a file holds."""
    for name in _NESTS * 2:  # in a mapping in a mapping too
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ArgumentError("weights", f"{str(path)!r} hold no state_dict but a {type(content).__name__}")
    state = {str(key): value for key, value in content.items() if not str(key).endswith("_extra_state")}
    strays = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strays or not state:
        found = f"entries that are no tensors: {_few(strays)}" if strays else "nothing"
        names = ", ".join(map(repr, _NESTS[:-1]))
        raise ArgumentError("weights", f"{str(path)!r} hold {found}; needed is a state_dict, or one under {names}")
    return {key.replace("_orig_mod.", ""): value for key, value in state.items()}  # of torch.compile


def _part_of(state: dict[str, Tensor], own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take off the prefix under which the model's own names stand; of several, the one that is known."""
    first = next(iter(own))
    prefixes = [key.removesuffix(first) for key in state if key == first or key.endswith(f".{first}")]
    found = {prefix: sum(prefix + name in state for name in own) for prefix in prefixes}
    best = [prefix for prefix, names in found.items() if names == max(found.values())] or [""]
    chosen = next((prefix for prefix in _PREFIXES if prefix in best), best[0])
    if len(best) > 1 and chosen not in _PREFIXES:
        if 2 * found[chosen] < len(own):  # parts of another network
            return state
        raise ArgumentError("weights", f"{str(path)!r} hold several such networks: {_few(best)}; save one alone")
    return {key.removeprefix(chosen): value for key, value in state.items() if key.startswith(chosen)}


def _differs_in_classes(loaded: Tensor, own: Tensor, classes: int) -> bool:
    """Whether two tensors of different shapes differ only by the class count, their first dimension."""
    return own.ndim > 0 and loaded.ndim > 0 and own.shape[0] == classes and own.shape[1:] == loaded.shape[1:]


def _few(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
