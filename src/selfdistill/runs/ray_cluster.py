"""The executor of a Ray cluster: a task runs where there is room, and resumes elsewhere if its machine is lost.

What runs reads and writes the folders that are named to it, under the directory of the first process: a file system
that all machines see.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import cuda

from selfdistill.progress import Progress
from selfdistill.runs.executor import Listener, Task
from selfdistill.runs.failures import Failure
from selfdistill.training.folder import BusyError
from selfdistill.training.run import load
from selfdistill.training.signals import Interruptions

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_RETRIES = 5
"""Machines that a run may lose before it counts as failed."""

_RELEASED = 60.0
"""Seconds in which a run's former process must have let go of its folder."""

_EVERY = 0.5
"""Seconds between two looks at the runs, and at least between two events of one."""


@dataclass(frozen=True)
class RayCluster:
    """Does tasks on a Ray cluster, each on one GPU where the cluster has GPUs, otherwise on some CPUs.

    A task whose machine was lost resumes elsewhere from its checkpoint.

    Attributes:
        address: of the cluster, as Ray takes it; ``"auto"``: the one that this machine belongs to, or else one is
            started on this machine alone, which no other machine reaches.
        cpus: CPUs of each task where there are no GPUs.
    """

    address: str
    cpus: int = 1

    def execute(self, tasks: Sequence[Task], listener: Listener, resume_hint: str) -> None:
        """Do all tasks."""
        if not tasks:
            return
        with _connected(self.address) as ray, Interruptions(resume_hint) as interruptions:
            # Only noted, and looked for between two waits: of what a handler raises Ray makes a bare KeyboardInterrupt.
            interruptions.at_once = False
            news = _news_here(ray)
            on_gpus = ray.cluster_resources().get("GPU", 0) >= 1
            room = {"num_gpus": 1} if on_gpus else {"num_cpus": self.cpus}
            do = ray.remote(_do).options(max_retries=_RETRIES, **room)
            at_work = {do.remote(task, self.cpus, str(Path.cwd()), news): task.folder for task in tasks}
            try:
                while at_work and not interruptions.received:
                    done, _ = ray.wait(list(at_work), timeout=_EVERY)
                    _tell(ray.get(news.take.remote()), listener)
                    for one in done:
                        folder = at_work.pop(one)
                        try:
                            returned = ray.get(one)
                        except ray.exceptions.RayError as error:
                            listener.on_failure(folder, _failure(ray, error, folder))
                        else:
                            listener.on_result(folder, returned)
                _stop(ray, at_work)
            except KeyboardInterrupt:  # a second signal
                raise interruptions.interrupted("before all had saved", interruptions.received) from None
            if interruptions.received:
                raise interruptions.interrupted("and saved", interruptions.received)


def _stop(ray: Any, at_work: Iterable[Any]) -> None:
    """Have the works save and stop, and wait until they have."""
    for one in at_work:
        ray.cancel(one)  # SIGINT to the process that does it
    for one in at_work:
        with suppress(ray.exceptions.RayError):
            ray.get(one)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Join the cluster, and leave it at the end.

    Ray must not start its processes by ``uv run``, which would make the environment anew on each machine, and not
    to report that it is used.
    """
    for name in ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_USAGE_STATS_ENABLED"):  # read at its import
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise RuntimeError('`ray` needs Ray: pip install "selfdistill[ray]"') from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "auto":
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:
                with _private():
                    ray.init(include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
        else:
            _require_answer(address)
            ray.init(address=address, **quiet)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise RuntimeError(f"`ray={address}`: no Ray cluster answers there ({said})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _private() -> Iterator[None]:
    """Have a cluster that is started inside listen on the loopback alone, with a token that nobody else can read.

    Ray's own would listen on all interfaces, and would write its token for all users of the machine to read.
    """
    from ray._private import ray_constants

    os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(_token_file()))
    # What Ray does on Windows and macOS; the variable is for the processes that it starts.
    ray_constants.ENABLE_RAY_CLUSTER, former = False, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = former
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]


@cache
def _token_file() -> Path:
    """Write a token into a file of mode 0600; one for this process, which ends with it, because Ray reads it once."""
    folder = tempfile.mkdtemp(prefix="selfdistill-")  # of mode 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder) / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return file


def _require_answer(address: str) -> None:
    """Knock at once: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is auto, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host, int(port)), timeout=10).close()


class _News:
    """The newest event of each run that was not read yet, and warnings (in a process of its own)."""

    def __init__(self) -> None:
        self.events: dict[str, Progress] = {}
        self.warnings: list[str] = []

    def tell(self, folder: str, event: Progress) -> None:
        self.events[folder] = event

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def take(self) -> tuple[dict[str, Progress], list[str]]:
        taken = self.events, self.warnings
        self.events, self.warnings = {}, []
        return taken


def _news_here(ray: Any) -> ActorHandle[_News]:
    """Start the news on the machine of the first process: no other may be lost without ending all."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    handle: ActorHandle[_News] = ray.remote(_News).options(num_cpus=0, scheduling_strategy=here).remote()
    return handle


def _tell(taken: tuple[dict[str, Progress], list[str]], listener: Listener) -> None:
    events, messages = taken
    for folder, event in events.items():
        listener.on_progress(Path(folder), event)
    for message in messages:
        warnings.warn(message, stacklevel=2)


def _do(task: Task, cpus: int, directory: str, news: ActorHandle[_News]) -> Any:
    """Do a task in the directory of the first process, and tell how it goes (in a process of the cluster)."""
    machine = socket.gethostname()
    try:
        os.chdir(directory)
    except OSError as error:
        raise RuntimeError(
            f"the machine {machine} cannot see {directory} ({error.strerror}): `ray` needs a file system that all "
            "machines see"
        ) from None
    warnings.showwarning = lambda message, *_, **__: news.warn.remote(str(message))
    last_report = -_EVERY

    def tell(event: Progress) -> None:
        nonlocal last_report
        if time.monotonic() - last_report >= _EVERY or event.epoch_done:
            last_report = time.monotonic()
            news.tell.remote(str(task.folder), event)

    until = time.monotonic() + _RELEASED
    while True:
        try:
            return task.run(data=load(task.recipe), cpus=None if cuda.is_available() else cpus, progress=tell)
        except BusyError:  # its machine was lost, but not all of its processes have seen it yet
            if time.monotonic() > until:
                raise
            time.sleep(_EVERY)


def _failure(ray: Any, error: Exception, folder: Path) -> Failure:
    """Return what a failed run said; of a lost one how often it was tried."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return Failure.of(error.cause, folder)
    return Failure(f"its process was lost {_RETRIES + 1} times")
