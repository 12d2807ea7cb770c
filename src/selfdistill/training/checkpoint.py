"""Checkpoints: atomic, checksummed, the last two, loaded without ever running code; and what is in them."""

import hashlib
import io
import logging
import re
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from selfdistill.config.duration import SaveEvery
from selfdistill.files import make_folder, refuse_link, remove_leftovers, write_atomically
from selfdistill.training import random_state
from selfdistill.training.meters import Meters
from selfdistill.training.record import recipe_values
from selfdistill.training.session import Session
from selfdistill.training.task import State

KEEP = 2
_LOGGER = logging.getLogger(__name__)
_PROGRESS = ("epoch", "step", "seconds", "total_seconds", "rows")
_NAME = re.compile(r"epoch-\d{5}-step-\d{7}\.pt")


class Checkpoints:
    """The checkpoints of one run: ``epoch-00012-step-0000000.pt`` and a ``.sha256`` beside each.

    Args:
        folder: where they are; made when the first is saved.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._saved: str | None = None

    def save(self, epoch: int, step: int, payload: dict[str, Any]) -> Path:
        """Write the state after ``epoch`` whole epochs and ``step`` steps, and drop all but the last two.

        Args:
            epoch: epochs done.
            step: optimiser steps done of the next epoch.
            payload: numbers, texts, lists, dictionaries and tensors only.

        Raises:
            OSError: it cannot be written; the ones before are untouched.
        """
        path = self.folder / f"epoch-{epoch:05}-step-{step:07}.pt"
        if path.name == self._saved:  # the same state, already on the disk
            return path
        buffer = io.BytesIO()
        torch.save(payload, buffer)
        data = buffer.getvalue()
        make_folder(self.folder)
        # The checksum comes first: a checkpoint without one cannot appear, a checksum without one is harmless.
        try:
            write_atomically(_checksum_of(path), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode())
            write_atomically(path, data)
        except OSError as error:
            if not path.exists():
                _checksum_of(path).unlink(missing_ok=True)
            kept = "the checkpoints before it are kept" if self.paths() else "no checkpoint was written yet"
            raise OSError(f"{error}; {kept}: make room and run the same command again") from None
        self._saved = path.name
        self._prune()
        return path

    def paths(self) -> list[Path]:
        """Return the checkpoints that are there, newest first."""
        if not refuse_link(self.folder).is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest checkpoint that is whole, or None; each damaged one is named in a warning."""
        remove_leftovers(self.folder)
        for path in self.paths():
            try:
                payload = _load(path)
            except ValueError as error:
                warnings.warn(f"checkpoint {path} is not used: {error}", stacklevel=2)
            else:
                self._saved = path.name
                return path, payload
        return None

    def _prune(self) -> None:
        for path in self.paths()[KEEP:]:
            path.unlink()
            _checksum_of(path).unlink(missing_ok=True)
        for checksum in self.folder.glob("*.pt.sha256"):
            if not checksum.with_suffix("").exists():
                checksum.unlink()


def _checksum_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _load(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        wanted = _checksum_of(path).read_text(encoding="ascii").split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        raise ValueError("its checksum file is missing or damaged") from None
    if hashlib.sha256(data).hexdigest() != wanted:
        raise ValueError("it is damaged (its checksum differs)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own on odd pickles: the line below says it
            payload = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # whatever a file from elsewhere raises
        raise ValueError(
            "it holds more than numbers and tensors, or is not a checkpoint; nothing in it was run"
        ) from None
    if not isinstance(payload, dict):
        raise ValueError("it is not the checkpoint of a run")
    return payload


def load_into(module: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Load a ``state_dict`` whose names and shapes must be the module's own.

    Raises:
        ValueError: the checkpoint is of another model; one line names the first difference.
    """
    own = module.state_dict()
    remedy = "it belongs to another model; choose another `out`"
    for name in sorted(own.keys() ^ state.keys()):
        raise ValueError(f"checkpoint {path}: {name!r} is only {'there' if name in state else 'here'}; {remedy}")
    for name, here in own.items():
        there = state[name]
        if isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor) and here.shape != there.shape:
            shapes = f"{tuple(there.shape)} there and {tuple(here.shape)} here"
            raise ValueError(f"checkpoint {path}: {name!r} is {shapes}; {remedy}")
    module.load_state_dict(state)


def save(session: Session[Any], state: State, checkpoints: Checkpoints) -> None:
    """Write a checkpoint; every process takes part, rank 0 writes."""
    mine = {
        "random": random_state.snapshot(session.device),
        "meters": state.meters.state_dict(),
        # A method's own memory (as of the images that this rank saw) is no parameter that DDP keeps equal.
        "extra": _extra_states(session),
    }
    ranks: list[Any] = [mine]
    if session.fabric.world_size > 1:
        ranks = [None] * session.fabric.world_size
        torch.distributed.all_gather_object(ranks, mine)
    if session.fabric.is_global_zero:
        payload = {
            session.task.network_name: session.task.network.state_dict(),
            "optimizer": _plain(session.optimizer).state_dict(),
            "ranks": ranks,
            "scaler": session.fabric.strategy.precision.state_dict(),  # of float16; otherwise empty
            "recipe": recipe_values(session.recipe),
            "data": session.task.fingerprint,
        }
        checkpoints.save(state.epoch, state.step, payload | {name: getattr(state, name) for name in _PROGRESS})
    session.fabric.barrier()  # a process that ended now would have the launcher end rank 0 while it writes


class Saver:
    """Writes the checkpoints of a run, and knows when the next is due: by the clock of rank 0.

    Args:
        session: what is trained.
        state: where the run is.
        checkpoints: where they go.
        every: how often inside an epoch.
        seconds: after an epoch, a checkpoint that is younger will do.
    """

    def __init__(self, session: Session[Any], state: State, checkpoints: Checkpoints, every: SaveEvery, seconds: float):
        self.session, self.state, self.checkpoints = session, state, checkpoints
        self.every, self.seconds = every, seconds
        self._saved_at = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint; every process takes part."""
        save(self.session, self.state, self.checkpoints)
        self._saved_at = time.monotonic()

    def is_due_after_an_epoch(self) -> bool:
        """Whether to save; every process asks."""
        return self._is_older(self.seconds)

    def is_due_inside_an_epoch(self, position: int, agreed: bool) -> bool:
        """Whether to save after ``position`` steps of the whole run; ``agreed``: every process asks just now."""
        if self.every.steps is not None:
            return position % self.every.steps == 0
        return agreed and self._is_older(self.every.seconds)

    def _is_older(self, seconds: float) -> bool:
        return bool(self.session.fabric.broadcast(time.monotonic() - self._saved_at >= seconds))


def resume(session: Session[Any], checkpoints: Checkpoints) -> State:
    """Return the state of the newest whole checkpoint, loaded into the session; a fresh state where there is none.

    Raises:
        ValueError: the checkpoint is of another model or of another number of processes.
    """
    state = State(Meters(session.device, session.task.counts))
    found = checkpoints.newest()
    if found is None:
        return state
    path, payload = found
    _LOGGER.debug("resuming from %s", path)
    task = session.task
    _check(payload, path, task.network_name, session.fabric.world_size)
    mine = payload["ranks"][session.fabric.global_rank]
    load_into(task.network, payload[task.network_name] | mine["extra"], path)
    _plain(session.optimizer).load_state_dict(payload["optimizer"])
    if scaler := payload.get("scaler"):
        session.fabric.strategy.precision.load_state_dict(scaler)
    state.meters.load_state_dict(mine["meters"])
    for name in _PROGRESS:
        setattr(state, name, payload[name])
    random_state.restore(mine["random"], session.device)
    return state


def _check(payload: dict[str, Any], path: Path, network_name: str, world_size: int) -> None:
    if payload.keys() - {"recipe", "data", "scaler"} != {network_name, "optimizer", "ranks", *_PROGRESS}:
        raise ValueError(
            f"checkpoint {path} is not a {network_name}'s, or of another version of selfdistill; choose another `out`"
        )
    if len(payload["ranks"]) != world_size:
        raise ValueError(
            f"checkpoint {path} is of {len(payload['ranks'])} process(es), not {world_size}; use the same `devices` "
            "and `nodes`, or choose another `out`"
        )


def _extra_states(session: Session[Any]) -> dict[str, Any]:
    state = session.task.network.state_dict()
    return {name: value for name, value in state.items() if name.endswith("_extra_state")}


def _plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    # Fabric's wrapper keeps the optimiser it wraps in this attribute.
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
