"""How long, and how often, as one writes it."""

import re
from typing import NamedTuple

from selfdistill.errors import ArgumentError
from selfdistill.text import quote

_LONGEST = 10 * 365 * 86400.0
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class SaveEvery(NamedTuple):
    """How often a checkpoint is written inside an epoch: when the last one is so old, or after so many steps."""

    seconds: float = 1800.0
    steps: int | None = None


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``90s``, ``60m``, ``1h30m`` or ``1.5h``.

    Example:
        >>> parse_duration("1h30m"), parse_duration("90s")
        (5400.0, 90.0)
    """
    seconds = _seconds(text)
    if seconds is None:
        raise ArgumentError("budget", f"must be a duration such as 90s, 60m or 1h30m, not {quote(text)}")
    return seconds


def parse_save_every(text: str) -> SaveEvery:
    """Return how often ``10m``, ``1h30m`` or ``500 steps`` is.

    Raises:
        ValueError: it is neither a duration nor a number of steps, or zero.

    Example:
        >>> parse_save_every("10m").seconds, parse_save_every("500 steps").steps
        (600.0, 500)
    """
    if steps := re.fullmatch(r"\s*0*([1-9]\d{0,17})\s*steps?\s*", text.lower()):
        return SaveEvery(steps=int(steps[1]))
    seconds = _seconds(text)
    if seconds is None:
        raise ArgumentError("save_every", f"must be a duration such as 10m, or such as '500 steps', not {quote(text)}")
    return SaveEvery(seconds=seconds)


def _seconds(text: str) -> float | None:
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([hms])", text.lower())
    spelled = re.fullmatch(r"\s*(\d+(\.\d+)?\s*h)?\s*(\d+(\.\d+)?\s*m)?\s*(\d+(\.\d+)?\s*s)?\s*", text.lower())
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return seconds if spelled and 0 < seconds <= _LONGEST else None
