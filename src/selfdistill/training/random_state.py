"""Every random state of this process: set it, take it, put it back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from selfdistill.data.randomness import hash_key
from selfdistill.network import default_device, random_state, set_random_state


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (what other people's code draws from)
    torch.manual_seed(seed)


def rank_seed(seed: int, rank: int) -> int:
    """Return the seed of one rank's dropout masks: another stream than the initial weights', on every rank another."""
    return hash_key(seed, rank) >> 1  # manual_seed takes 63 bits


def snapshot(device: torch.device) -> dict[str, Any]:
    """Return the random states of this process as numbers, lists and tensors (safe to load again)."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    keys = numpy["state"]["key"]
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": numpy | {"state": {"key": keys.tolist(), "pos": numpy["state"]["pos"]}},
        "torch": torch.get_rng_state(),
        "cuda": None,
    } | ({} if device.type == "cpu" else {device.type: random_state(device)})


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`snapshot` took."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy = state["numpy"]
    keys = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy | {"state": numpy["state"] | {"key": keys}})  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and state.get(device.type) is not None:
        set_random_state(device, state[device.type])


@contextmanager
def preserved() -> Iterator[None]:
    """Leave the caller's random states as they were.

    Example:
        >>> before = torch.get_rng_state()
        >>> with preserved():
        ...     seed_all(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    device = default_device()
    state = snapshot(device)
    try:
        yield
    finally:
        restore(state, device)
