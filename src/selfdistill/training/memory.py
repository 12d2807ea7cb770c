"""Reuse the memory that a step frees for the next step, instead of returning it to the system.

The maps of a batch of 128 small images are larger than glibc's malloc keeps: it has the system map each one afresh, and
the first touch of every page then costs more than reading it.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them in malloc.h
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65_536
_NEVER = 2**31 - 1


@contextmanager
def keep_malloc_pools() -> Iterator[None]:
    """Keep freed memory in this process meanwhile, and give it back at the end; nothing happens without glibc's malloc.

    Environment variables that set the same (``MALLOC_MMAP_MAX_``, ``GLIBC_TUNABLES``) are left to have their way.

    Example:
        >>> with keep_malloc_pools():
        ...     pass  # train on a CPU
    """
    set_by_user = {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if platform.libc_ver()[0] != "glibc" or set_by_user:
        yield
        return
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_MMAP_MAX, 0)
    glibc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        glibc.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
        glibc.mallopt(_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        glibc.malloc_trim(0)
