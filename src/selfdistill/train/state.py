"""Where a run is, and everything that a resumed run goes on from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from selfdistill.train import random_state
from selfdistill.train.checkpoint import Checkpoints, load_into
from selfdistill.train.meters import Meters
from selfdistill.train.session import Session

Row = dict[str, float | int | None]
"""One row of ``log.csv``."""


@dataclass
class State:
    """Where a run is.

    Attributes:
        meters: what the current epoch has added up, in this process.
        epoch: epochs done.
        step: optimiser steps done of the current epoch.
        seconds: training time of the current epoch.
        total_seconds: training and evaluation time of the epochs before.
        rows: the log, a row a finished epoch.
    """

    meters: Meters
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


def save(session: Session, state: State, checkpoints: Checkpoints) -> None:
    """Write a checkpoint; every process takes part, rank 0 writes.

    Raises:
        OSError: it cannot be written.
    """
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
            "distiller": session.distiller.state_dict(),
            "optimizer": _plain(session.optimizer).state_dict(),
            "ranks": ranks,
            "epoch": state.epoch,
            "step": state.step,
            "seconds": state.seconds,
            "total_seconds": state.total_seconds,
            "rows": state.rows,
        }
        checkpoints.save(state.epoch, state.step, payload)
    session.fabric.barrier()  # a process that ended now would have the launcher end rank 0 while it writes


def resume(session: Session, checkpoints: Checkpoints) -> State:
    """Return the state of the newest whole checkpoint, loaded into the session; a fresh state where there is none.

    Raises:
        ValueError: the checkpoint is of another model or of another number of processes.
    """
    state = State(Meters(session.device))
    found = checkpoints.newest()
    if found is None:
        return state
    path, payload = found
    _check(payload, path, session.fabric.world_size)
    mine = payload["ranks"][session.fabric.global_rank]
    load_into(session.distiller, payload["distiller"] | mine["extra"], path)
    _plain(session.optimizer).load_state_dict(payload["optimizer"])
    state.meters.load_state_dict(mine["meters"])
    for name in ("epoch", "step", "seconds", "total_seconds", "rows"):
        setattr(state, name, payload[name])
    random_state.restore(mine["random"], session.device)
    return state


def _check(payload: dict[str, Any], path: Path, world_size: int) -> None:
    keys = {"distiller", "optimizer", "ranks", "epoch", "step", "seconds", "total_seconds", "rows"}
    if payload.keys() != keys:
        raise ValueError(f"checkpoint {path} was written by another version of selfdistill; choose another `out`")
    if len(payload["ranks"]) != world_size:
        raise ValueError(
            f"checkpoint {path} is of {len(payload['ranks'])} process(es), not {world_size}; use the same `devices` "
            "and `nodes`, or choose another `out`"
        )


def _extra_states(session: Session) -> dict[str, Any]:
    state = session.distiller.state_dict()
    return {name: value for name, value in state.items() if name.endswith("_extra_state")}


def _plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    # Fabric's wrapper keeps the optimiser it wraps in this attribute.
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
