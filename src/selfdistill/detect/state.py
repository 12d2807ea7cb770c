"""Where the training of a detector is, and everything that a resumed run goes on from."""

from dataclasses import dataclass, field
from typing import Any

import torch

from selfdistill.detect.session import TERMS, Session
from selfdistill.train import random_state
from selfdistill.train.checkpoint import Checkpoints, load_into
from selfdistill.train.state import Row

_NUMBERS = ("epoch", "step", "images", "sums", "seconds", "total_seconds", "rows")


@dataclass
class State:
    """Where a run is.

    Attributes:
        epoch: epochs done.
        step: optimiser steps done of the current epoch.
        images: of them.
        sums: of each term, times the images.
        seconds: training time of the current epoch.
        total_seconds: that of the epochs before.
        rows: the log, a row a finished epoch.
    """

    epoch: int = 0
    step: int = 0
    images: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(TERMS))
    seconds: float = 0.0
    total_seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)

    def add(self, values: list[float], images: int) -> None:
        """Count a step: the mean of each term over so many images."""
        self.sums = [total + value * images for total, value in zip(self.sums, values, strict=True)]
        self.images += images
        self.step += 1

    def means(self) -> dict[str, float]:
        """Return each term's mean over the images of the epoch so far."""
        return {name: total / max(self.images, 1) for name, total in zip(TERMS, self.sums, strict=True)}

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.total_seconds += self.seconds
        self.epoch, self.step, self.images, self.seconds = self.epoch + 1, 0, 0, 0.0
        self.sums = [0.0] * len(TERMS)


def save(session: Session, state: State, checkpoints: Checkpoints) -> None:
    """Write a checkpoint; every process takes part, rank 0 writes.

    Raises:
        OSError: it cannot be written.
    """
    mine = random_state.snapshot(session.device)
    ranks: list[Any] = [mine]
    if session.fabric.world_size > 1:
        ranks = [None] * session.fabric.world_size
        torch.distributed.all_gather_object(ranks, mine)
    if session.fabric.is_global_zero:
        payload = {
            "detector": session.detector.state_dict(),
            "optimizer": _plain(session.optimizer).state_dict(),
            "ranks": ranks,
        }
        checkpoints.save(state.epoch, state.step, payload | {name: getattr(state, name) for name in _NUMBERS})
    session.fabric.barrier()  # a process that ended now would have the launcher end rank 0 while it writes


def resume(session: Session, checkpoints: Checkpoints) -> State:
    """Return the state of the newest whole checkpoint, loaded into the session; a fresh state where there is none.

    Raises:
        ValueError: the checkpoint is of another model or of another number of processes.
    """
    state = State()
    found = checkpoints.newest()
    if found is None:
        return state
    path, payload = found
    if payload.keys() != {"detector", "optimizer", "ranks", *_NUMBERS}:
        raise ValueError(f"checkpoint {path} is no detector's of this version of selfdistill; choose another `out`")
    if len(payload["ranks"]) != session.fabric.world_size:
        raise ValueError(
            f"checkpoint {path} is of {len(payload['ranks'])} process(es), not {session.fabric.world_size}; use the "
            "same `devices` and `nodes`, or choose another `out`"
        )
    load_into(session.detector, payload["detector"], path)
    _plain(session.optimizer).load_state_dict(payload["optimizer"])
    for name in _NUMBERS:
        setattr(state, name, payload[name])
    random_state.restore(payload["ranks"][session.fabric.global_rank], session.device)
    return state


def _plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    # Fabric's wrapper keeps the optimiser it wraps in this attribute.
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
