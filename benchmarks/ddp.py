"""Two processes: bytes that are all-reduced per step by each method, and images per second beside one process.

uv run python benchmarks/ddp.py                  every method, one table
uv run python benchmarks/ddp.py --json ddp.json  the numbers too

Two gloo processes on this machine's processors, one thread each, against one process with two threads, the same images
in all; a real network of machines is another matter. The bytes are those of the gradients' buckets, counted in DDP's
communication hook.
"""

import argparse
import multiprocessing
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common import save
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from selfdistill.distiller import SelfDistiller
from selfdistill.method import Method
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.timing.synthetic import example_methods, make_batch


@dataclass(frozen=True)
class Row:
    """One method: bytes per step over cross-entropy's, and the speed of two processes over that of one."""

    method: str
    bytes: int
    over_cross_entropy: float
    images_per_second: float
    over_one_process: float


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=[repr(m) for m in example_methods().values() if trainable(m)])
    parser.add_argument("--model", default="resnet18_cifar")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=128, help="images of a step, over all processes")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    methods = list(dict.fromkeys(["CrossEntropy()", *given.methods]))
    print(f"{given.model}, width {given.width}, {given.batch_size} images per step, two gloo processes")
    print(f"{'method':<24}{'MB all-reduced':>15}{'/ cross-entropy':>17}{'images/s':>10}{'/ one process':>15}")
    rows: list[Row] = []
    for method in methods:
        (of_one,), of_two = (in_processes(count, given, method) for count in (1, 2))
        bytes_of_step, seconds_of_step = of_two[0]
        row = Row(
            method=method,
            bytes=bytes_of_step,
            over_cross_entropy=bytes_of_step / (rows[0].bytes if rows else bytes_of_step),
            images_per_second=given.batch_size / seconds_of_step,
            over_one_process=of_one[1] / seconds_of_step,
        )
        rows.append(row)
        print(
            f"{row.method:<24}{row.bytes / 1e6:>15.2f}{row.over_cross_entropy:>17.3f}{row.images_per_second:>10.0f}"
            f"{row.over_one_process:>15.2f}",
            flush=True,
        )
    save(given.json, given, rows)
    return rows


def trainable(method: Method) -> bool:
    """Whether our network can be trained with it: R-Drop needs a model that draws random numbers of its own."""
    return type(method).__name__ != "RDrop"


def in_processes(count: int, given: argparse.Namespace, method: str) -> list[tuple[int, float]]:
    """Return what each of ``count`` processes measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared: dict[str, Any] = {name: getattr(given, name) for name in ("model", "width", "batch_size", "steps")}
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return pool.starmap(measure, [(rank, count, port, method, shared) for rank in range(count)], chunksize=1)


def measure(rank: int, count: int, port: int, text: str, given: dict[str, Any]) -> tuple[int, float]:
    """Train a few steps in one of the processes; return the bytes of a step and its median seconds."""
    torch.set_num_threads(max(1, 2 // count))
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    method = parse_method(text)
    batch = make_batch(method.needs, batch_size=given["batch_size"] // count, classes=100, seed=rank)
    model = build(given["model"], 100, width=given["width"])
    distiller = SelfDistiller(model, method, example_input=batch.x)
    wrapped = DistributedDataParallel(distiller, find_unused_parameters=False)
    counted = [0]

    def hook(
        group: dist.ProcessGroup,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # torch checks this very name
    ) -> torch.futures.Future[torch.Tensor]:
        counted[0] += bucket.buffer().nbytes
        return allreduce_hook(group, bucket)

    wrapped.register_comm_hook(dist.group.WORLD, hook)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=1e-4, momentum=0.9, fused=True)
    seconds = []
    for _ in range(2 + given["steps"]):
        counted[0] = 0
        distiller.set_progress(0.5)  # PS-KD follows the training
        started = time.perf_counter()
        wrapped(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    dist.destroy_process_group()
    return counted[0], statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
