"""Two gloo processes: DDP around the distiller equals one process that runs each rank's share and averages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selfdistill import PSKD, SelfDistiller
from selfdistill.methods import parse_method
from tests.methods.settings import needed, wrap
from tests.nets import NETS, batch, mlp

Arrays = dict[str, NDArray[np.float32]]
Run = Callable[..., list[Any]]

METHODS = [
    "CrossEntropy()",
    "LabelSmoothing() + SDDropout()",
    "Dropout()",
    "SDDropout(at='block', direction='reverse')",
    "SDDropout()",
    "BYOT() + CSKD() + DML() + SDDropout(weight=0.1)",
    "DDGSD() + SDDropout(weight=0.1)",
    "RDrop()",
    "BAKE(partners=1) + PSKD(samples=12)",
    "DLB()",
]


def fixed(net: str, method: str) -> tuple[SelfDistiller, Any, Tensor]:
    """Return the same distiller and batch of 8 in each process."""
    torch.manual_seed(0)
    x, _ = batch(net, 8)
    y = torch.arange(8) // 2  # two of a class in each process's share
    return wrap(net, parse_method(method), x), x, y


def share(x: Any, y: Tensor, rank: int) -> tuple[Any, Tensor]:
    """Return a rank's half of the batch."""
    half = slice(4 * rank, 4 * rank + 4)
    return ({name: value[half] for name, value in x.items()} if isinstance(x, dict) else x[half]), y[half]


def two_steps(distiller: nn.Module, method: str, x: Any, y: Tensor, rank: int) -> float:
    """Accumulate the gradients of two steps, each under this rank's random state; the second remembers the first."""
    total = 0.0
    further = needed(parse_method(method), x, y, torch.Generator().manual_seed(rank))
    if "index" in further:
        further["index"] += 4 * rank
    torch.manual_seed(100 + rank)
    for _ in range(2):
        loss = distiller(x, y, **further).loss
        loss.backward()
        total += loss.item()
    return total


def gradients(distiller: nn.Module) -> Arrays:
    return {name: parameter.grad.numpy().copy() for name, parameter in distiller.named_parameters()}  # type: ignore[union-attr]


def ddp_steps(net: str, method: str) -> tuple[float, Arrays]:
    """Run in both processes of the pool: two steps under DDP, without ``find_unused_parameters``."""
    distiller, x, y = fixed(net, method)
    # Each process counts its own BatchNorm statistics, as the trainer does.
    wrapped = DistributedDataParallel(distiller, broadcast_buffers=False)
    total = two_steps(wrapped, method, *share(x, y, dist.get_rank()), dist.get_rank())
    return total, gradients(distiller)


@pytest.mark.parametrize(("net", "method"), [("conv", method) for method in METHODS] + [("mapping", METHODS[1])])
def test_ddp_equals_one_process(pool: Run, net: str, method: str) -> None:
    alone = []
    for rank in range(2):
        distiller, x, y = fixed(net, method)
        total = two_steps(distiller, method, *share(x, y, rank), rank)
        alone.append((total, gradients(distiller)))
    together = pool(ddp_steps, net, method)
    for (total, found), (expected_total, _) in zip(together, alone, strict=True):
        assert total == pytest.approx(expected_total, rel=1e-5)
        for name, gradient in found.items():
            mean = (alone[0][1][name] + alone[1][1][name]) / 2
            np.testing.assert_allclose(gradient, mean, rtol=1e-4, atol=1e-6, err_msg=name)
    assert alone[0][0] != alone[1][0]


ORDERS = ([3, 1, 4, 0, 9, 2, 6, 5], [0, 9, 5, 6, 1, 2, 3, 4])  # another half in each process, epoch after epoch


def ps_kd_epochs(net: str) -> tuple[list[float], NDArray[np.float32]]:
    torch.manual_seed(0)
    x, y = batch(net, 10)
    method, rank = PSKD(10), dist.get_rank()
    distiller = SelfDistiller(NETS[net](), method)
    ddp, losses = DistributedDataParallel(distiller), []
    for epoch, order in enumerate(ORDERS):
        mine = torch.tensor(order)[4 * rank : 4 * rank + 4]
        distiller.set_progress(epoch / 2, (epoch + 1) / 2)
        loss = ddp(x[mine], y[mine], index=mine).loss
        loss.backward()
        losses.append(loss.item())
    memory = method.get_extra_state()
    assert memory is not None
    return losses, memory.numpy()


def test_two_processes_remember_the_rows_of_both(pool: Run) -> None:
    (first, memory), (second, other) = pool(ps_kd_epochs, "mlp")
    np.testing.assert_array_equal(memory, other)
    torch.manual_seed(0)
    x, y = batch("mlp", 10)
    alone = SelfDistiller(mlp(), PSKD(10))
    for epoch, order in enumerate(ORDERS):
        index = torch.tensor(order)
        alone.set_progress(epoch / 2, (epoch + 1) / 2)
        loss = alone(x[index], y[index], index=index).loss
        assert (first[epoch] + second[epoch]) / 2 == pytest.approx(loss.item(), rel=1e-5)
    expected = alone.method.get_extra_state()
    np.testing.assert_allclose(memory, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert expected.sum(1).gt(0).tolist() == [i not in (7, 8) for i in range(10)]


def ranks_and_sum(value: int) -> tuple[int, int]:
    total = torch.tensor(value + dist.get_rank())
    dist.all_reduce(total)
    return dist.get_rank(), int(total)


def test_the_pool_runs_a_function_in_both_ranks(pool: Run) -> None:
    assert pool(ranks_and_sum, 10) == [(0, 21), (1, 21)]


def fails_in_one(rank: int) -> None:
    if dist.get_rank() == rank:
        raise ValueError("on purpose")


def test_the_pool_hands_an_error_on_and_lives(pool: Run) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        pool(fails_in_one, 1)
    assert pool(ranks_and_sum, 0) == [(0, 1), (1, 1)]
