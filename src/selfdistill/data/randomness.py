"""Counter-based random numbers: a draw is a function of its key and its counter, never of what was drawn before.

That is what makes an augmentation independent of workers, of the batch size and of where a run stopped.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment, and the two multipliers of its finaliser
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def hash_key(*parts: int) -> int:
    """Hash integers, in order, to one unsigned 64-bit key (SplitMix64's finaliser after each part).

    Args:
        parts: any integers, such as ``seed, epoch, view, stream``; they count modulo 2**64.

    Example:
        >>> hash_key(0) == hash_key(0), hash_key(0, 1) == hash_key(1, 0)
        (True, False)
    """
    key = len(parts)
    for part in parts:
        z = (key + (part & _MASK) * _GOLDEN + _GOLDEN) & _MASK
        z = ((z ^ (z >> 30)) * _FIRST) & _MASK
        z = ((z ^ (z >> 27)) * _SECOND) & _MASK
        key = z ^ (z >> 31)
    return key


def draw(key: int, counter: Tensor, below: int | Tensor) -> Tensor:
    """Draw one integer, uniform in ``[0, below)``, for each counter; the same on every device.

    Args:
        key: from :func:`hash_key`; another key is another, independent stream.
        counter: int64 ``(B,)``, such as the images' indices.
        below: 1 to 2**31, one for all or one for each counter ``(B,)``.

    Returns:
        int64 ``(B,)``. Some values are likelier than others by at most ``below / 2**32``.

    Example:
        >>> draw(hash_key(0), torch.arange(6), 10).tolist()
        [8, 3, 9, 0, 7, 2]
    """
    high = (_mix(counter * _signed(_GOLDEN) + _signed(key)) >> 32) & 0xFFFFFFFF
    return (high * below) >> 32


def generator(key: int) -> torch.Generator:
    """Return a CPU generator seeded by a key, for draws that are not a function of one counter (a permutation)."""
    return torch.Generator().manual_seed(key >> 1)  # 63 bits: what manual_seed accepts


def _mix(z: Tensor) -> Tensor:
    # int64 multiplication wraps around; a right shift copies the sign, so the copies are masked off.
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _signed(_FIRST)
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _signed(_SECOND)
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
