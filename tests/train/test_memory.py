import platform
import resource
from collections.abc import Callable

import pytest
import torch

from selfdistill.train.memory import freed_memory_kept

LARGE = 64 * 2**20  # bytes, more than glibc ever keeps by itself
PAGES = LARGE // resource.getpagesize()


def fetched(work: Callable[[], object]) -> int:
    """Pages that the system hands out meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def step() -> None:
    torch.ones(LARGE, dtype=torch.uint8)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_a_step_s_memory_is_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    few = PAGES // 100
    step()
    assert fetched(step) > few  # large pages may bring several at once
    with freed_memory_kept():
        step()
        assert fetched(step) <= few
    step()
    assert fetched(step) > few

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with freed_memory_kept():
        step()
        assert fetched(step) > few
