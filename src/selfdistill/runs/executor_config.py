"""Which executor does the work: this process, several processes or a Ray cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError, check_range
from selfdistill.runs.executor import Executor, InThisProcess
from selfdistill.runs.processes import Processes
from selfdistill.runs.ray_cluster import RayCluster
from selfdistill.text import quote


@dataclass(frozen=True)
class ExecutorConfig:
    """Which executor does the work.

    Attributes:
        jobs: parallel processes on this machine; 1 works in this process.
        ray: address of a Ray cluster that does it instead, as for `RayCluster`.
        cpus: CPUs of each task on a cluster without GPUs.

    Raises:
        ArgumentError: a number out of range, ``jobs`` beside ``ray``, ``cpus`` without it, or not an address.
    """

    jobs: int = 1
    ray: str | None = None
    cpus: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_range("jobs", self.jobs, 1, 1024)
        check_range("cpus", self.cpus, 1, 1024)
        if self.ray is None and self.cpus > 1:
            raise ArgumentError("cpus", "belongs to `ray`, which is not given")
        if self.ray is not None and not re.fullmatch(r"auto|[^\s:]+:[0-9]{1,5}", self.ray):
            raise ArgumentError("ray", f"must be HOST:PORT or auto, not {quote(self.ray)}")
        if self.jobs > 1 and self.ray is not None:
            raise ArgumentError("jobs", "and `ray` exclude each other: the cluster says how many run at a time")

    def make(self, data: ImageData) -> Executor:
        """Return the executor; ``data`` are the images of all tasks."""
        if self.ray is not None:
            return RayCluster(self.ray, self.cpus)
        if self.jobs > 1:
            return Processes(self.jobs)
        return InThisProcess(data)
