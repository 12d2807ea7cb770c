"""Which executor does the work: this process, several processes or a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass

from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.runs.executor import Executor, InThisProcess
from selfdistill.runs.processes import Processes
from selfdistill.runs.ray_cluster import RayCluster


@dataclass(frozen=True)
class ExecutorConfig:
    """Which executor does the work.

    Attributes:
        jobs: parallel processes on this machine; 1 works in this process.
        ray: address of a Ray cluster that does it instead, as for `RayCluster`.
        cpus: CPUs of each task on a cluster without GPUs.

    Raises:
        ArgumentError: a number below 1, or ``jobs`` beside ``ray``.
    """

    jobs: int = 1
    ray: str | None = None
    cpus: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("jobs", "cpus"):
            if getattr(self, name) < 1:
                raise ArgumentError(name, f"must be at least 1, not {getattr(self, name)}")
        if self.jobs > 1 and self.ray is not None:
            raise ArgumentError("jobs", "and `ray` exclude each other: the cluster says how many run at a time")

    def make(self, data: ImageData) -> Executor:
        """Return the executor; ``data`` are the images of all tasks."""
        if self.ray is not None:
            return RayCluster(self.ray, self.cpus)
        if self.jobs > 1:
            return Processes(self.jobs)
        return InThisProcess(data)
