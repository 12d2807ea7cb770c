"""A task with its optimiser on its devices, and one optimiser step of it."""

import ctypes
import logging
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from selfdistill.config.training import TrainingConfig
from selfdistill.data.decode import cpu_count
from selfdistill.errors import ArgumentError, check_range
from selfdistill.network import default_device
from selfdistill.training import random_state
from selfdistill.training.meters import Meters
from selfdistill.training.task import AnyTask

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule

T = TypeVar("T", bound=AnyTask)

_LOGGER = logging.getLogger(__name__)
_FEW_PROCESSES = 8  # on a CPU so many are allowed in any case, for tests
_BARRIER_TIMEOUT = timedelta(hours=6)  # the other ranks wait while rank 0 evaluates
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them in malloc.h
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 * 1024, 65_536
_NEVER = 2**31 - 1


@dataclass(frozen=True)
class Session(Generic[T]):
    """A training, ready for its first step.

    Attributes:
        fabric: devices, processes, precision.
        task: what is trained.
        module: the task's network as it is called: compiled, wrapped by DDP and by the precision.
        optimizer: over all trained parameters of the network.
    """

    fabric: "Fabric"
    task: T
    module: "_FabricModule"
    optimizer: torch.optim.Optimizer

    @property
    def recipe(self) -> TrainingConfig:
        """What is trained, and how; resolved."""
        return self.task.recipe

    @property
    def epochs(self) -> int:
        """Passes over the training set."""
        assert self.recipe.epochs is not None
        return self.recipe.epochs

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.fabric.device

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return self.task.loader.steps

    def rate(self, position: int) -> float:
        """Return the learning rate of the optimiser step that follows ``position`` steps of the whole run."""
        return self.recipe.rate(position / self.steps)

    def step(self, batches: tuple[Any, ...], position: int, meters: Meters) -> None:
        """Take one optimiser step; nothing is read back from the device.

        Args:
            batches: this process's micro-batches of the step, of equal size.
            position: optimiser steps of the whole run before this one.
            meters: count the losses.
        """
        rate, epoch = self.rate(position), position // self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_share", 1.0) if epoch >= group.get("first_epoch", 0) else 0.0
        for i, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self.module, enabled=i < len(batches) - 1):
                self._backward(batch, position, 1 / len(batches), meters)
        if self.recipe.clip is not None:
            # A norm that is not finite is found by the meters, without waiting for the device here.
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.task.after_step(position)

    def _backward(self, batch: Any, position: int, weight: float, meters: Meters) -> None:
        """Add a micro-batch's gradient; a method of its own, so that its memory is free before the next one."""
        output = self.task.loss(self.module, batch, position)
        self.fabric.backward(output.loss if weight == 1 else output.loss * weight)
        meters.add(output, position % self.steps)


def prepare(recipe: TrainingConfig, fabric: "Fabric", make_task: Callable[["Fabric"], T]) -> Session[T]:
    """Build a task and its optimiser; afterwards the random state is that of the run's first step.

    Args:
        make_task: builds the task; what it draws at first depends on the recipe's seed alone.
    """
    random_state.seed_all(recipe.seed)
    task = make_task(fabric)
    module, wrapped = fabric.setup(task.callable_network(), task.make_optimizer())
    random_state.seed_all(random_state.rank_seed(recipe.seed, fabric.global_rank))
    return Session(fabric, task, module, wrapped)


def check_devices(devices: int, nodes: int, accelerator: str) -> str:
    """Return the kind of device, ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        ArgumentError: a number out of range, or more devices than there are.
    """
    check_range("nodes", nodes, 1, 1024)
    kind = default_device().type if accelerator == "auto" else accelerator
    most = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    most["cpu"] = max(cpu_count(), _FEW_PROCESSES)
    if not most[kind]:
        raise ArgumentError("accelerator", f"is {kind}, but this machine has no {kind.upper()} device")
    check_range("devices", devices, 1, most[kind])
    return kind


def make_fabric(recipe: TrainingConfig, *, devices: int = 1, nodes: int = 1, accelerator: str = "auto") -> "Fabric":
    """Return Fabric for so many devices; ``"auto"`` is a GPU (CUDA or MPS) if there is one.

    Raises:
        ValueError: a number out of range, more devices than there are, or machines that are not known.
    """
    # Here, because Fabric takes a second to import: reading a finished run should not wait for it.
    with _without("torchmetrics"):
        from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    accelerator = check_devices(devices, nodes, accelerator)
    recipe.check_machine(accelerator, devices * nodes)
    if accelerator == "cpu" and recipe.precision == "bf16-mixed":
        _warn_of_slow_bfloat16()
    _LOGGER.debug("devices: %s %s on each of %s nodes, %s", devices, accelerator, nodes, recipe.fabric_precision)
    strategy: Any = "auto"
    if devices * nodes > 1:
        # Rank 0's BatchNorm statistics are the model's, whether they are sent round before each pass or not.
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True, timeout=_BARRIER_TIMEOUT)
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=recipe.fabric_precision,
    )
    alone = isinstance(getattr(fabric.strategy, "cluster_environment", None), LightningEnvironment)
    if nodes > 1 and alone and "MASTER_ADDR" not in os.environ:
        raise ArgumentError(
            "nodes", f"is {nodes}, but nothing says where the others are: start with torchrun or Slurm on each machine"
        )
    return fabric


def _warn_of_slow_bfloat16() -> None:
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        warnings.warn(
            "bfloat16 is several times slower than float32 on this CPU, which has no AVX-512: use precision 32-true",
            stacklevel=3,
        )


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Let an import find that a package is not installed, if it was not imported before.

    Fabric imports torchmetrics whole to ask for its version, and with it torchvision's and transformers' models: three
    seconds of every training process.
    """
    hidden = package not in sys.modules
    if hidden:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[package]


@contextmanager
def keep_malloc_pools() -> Iterator[None]:
    """Keep freed memory in this process meanwhile, and give it back at the end; nothing happens without glibc's malloc.

    The maps of a batch of 128 small images are larger than glibc's malloc keeps: it has the system map each one afresh,
    and the first touch of every page then costs more than reading it. Environment variables that set the same
    (``MALLOC_MMAP_MAX_``, ``GLIBC_TUNABLES``) are left to have their way.

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
