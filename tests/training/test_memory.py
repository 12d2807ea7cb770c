import json
import os
import platform
import resource
import subprocess
import sys

import pytest

LARGE = 64 * 2**20  # bytes, more than glibc ever keeps by itself
FEW = LARGE // resource.getpagesize() // 100

STEPS = f"""
import json, resource, torch
from selfdistill.training.session import keep_malloc_pools

def step():  # returns the pages that the system hands out for it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({LARGE}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def later_step():  # once the heap has found its size
    return [step() for _ in range(5)][-1]

before = later_step()
with keep_malloc_pools():
    meanwhile = later_step()
print(json.dumps([before, meanwhile, step()]))
"""


def pages(**environment: str) -> list[int]:
    """Before, meanwhile and after, in a process whose heap no other test has shaped."""
    run = subprocess.run(
        [sys.executable, "-c", STEPS], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    counts: list[int] = json.loads(run.stdout)
    return counts


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_a_step_s_memory_is_there_for_the_next() -> None:
    before, meanwhile, after = pages()
    assert before > FEW >= meanwhile
    assert after > FEW


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_what_the_user_has_set_stays() -> None:
    assert min(pages(MALLOC_TRIM_THRESHOLD_="131072")) > FEW
