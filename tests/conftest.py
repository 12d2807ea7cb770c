"""What every test gets: a seed, the global state put back, and two gloo processes that live as long as the session."""

import atexit
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

# Tests run in several processes at once: threads of theirs would only wait for each other. Before torch is imported,
# and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where Python shall keep no compiled modules and finds none, compiling is more than half of each process's start: let
# the processes of a test run share them.
if sys.dont_write_bytecode and not any(Path(sys.prefix).glob("lib/python*/site-packages/torch/__pycache__/*.pyc")):
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = tempfile.mkdtemp(prefix="selfdistill-bytecode-")
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "", False
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)

import numpy as np
import pytest
import torch
import torch.distributed as dist

# Tests import their helpers as `tests.nets`, `tests.reference`; the spawned processes inherit this path.
ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

Run = Callable[..., list[Any]]
"""``pool(function, *args)``: ``[function(*args) in rank 0, function(*args) in rank 1]``."""


LONGEST = (
    "tests/cli/test_commands.py",
    "tests/test_docs.py",
    "tests/runs/test_ray_cluster.py",
    "tests/methods/test_contract.py",
    "tests/test_examples.py",
    "tests/paper/test_full_recipes.py",
    "tests/training/test_resume.py",
    "tests/detect/test_run.py",
    "tests/runs/test_export.py",
    "tests/report/test_write_report.py",
    "tests/integrations/test_huggingface.py",
    "tests/zoo/test_torchvision.py",
    "tests/zoo/test_timm.py",
    "tests/training/test_ddp.py",
    "tests/test_benchmarks.py",
    "tests/test_compile.py",
    "tests/paper/test_reproduce.py",
    "tests/evaluation/test_ood_measure.py",
)
"""Half of the time of all tests. They come first: of the last one all other processes would wait for the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Have xdist begin with the first files, not with those of the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST` first."""
    order = {str(Path(ROOT, name)): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(str(item.path), len(order)))


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """Seed each test alike and undo what it did to the process: a test must not depend on those before it."""
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - code under test may draw from the global state
    random.seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(gradients)
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    random.setstate(python_state)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of reports empty: drawing takes most of a report's time, and few tests look at them."""
    monkeypatch.setattr("selfdistill.report.pages.panel_svg", lambda *_, **__: "<svg/>")


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two processes in one gloo group, started once: ``pool(function, *args)`` runs a module-level function in both.

    Returns the two results in the order of the ranks. Pass arrays or numbers in and out, not tensors (those would
    travel through shared memory); the function finds its rank with ``torch.distributed.get_rank()``.
    """
    context = multiprocessing.get_context("spawn")
    ranks = context.SimpleQueue()
    for rank in range(2):
        ranks.put(rank)
    store = tmp_path_factory.mktemp("gloo") / "store"
    with context.Pool(2, initializer=_join_group, initargs=(ranks, store)) as processes:

        def run(function: Callable[..., Any], *args: Any) -> list[Any]:
            pending = processes.map_async(_in_group, [(function, args)] * 2, chunksize=1)
            return [result for _, result in sorted(pending.get(timeout=240), key=lambda ranked: ranked[0])]

        yield run


def _join_group(ranks: Any, store: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=ranks.get(), world_size=2, timeout=timedelta(seconds=120)
    )


def _in_group(work: tuple[Callable[..., Any], tuple[Any, ...]]) -> tuple[int, Any]:
    function, args = work
    dist.barrier()  # neither process can take both shares: the first would wait here for the other
    return dist.get_rank(), function(*args)
