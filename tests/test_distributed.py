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

from selfdistill import SelfDistiller
from selfdistill.methods import parse_method
from tests.nets import NETS, batch

Arrays = dict[str, NDArray[np.float32]]
Run = Callable[..., list[Any]]

METHODS = [
    "CrossEntropy()",
    "LabelSmoothing() + SDDropout()",
    "Dropout()",
    "SDDropout(at='block', direction='reverse')",
    "SDDropout()",
]


def fixed(net: str) -> tuple[nn.Module, Any, Tensor]:
    """Return the same net and batch of 8 in each process."""
    torch.manual_seed(0)
    x, y = batch(net, 8)
    return NETS[net](), x, y


def share(x: Any, y: Tensor, rank: int) -> tuple[Any, Tensor]:
    """Return a rank's half of the batch."""
    half = slice(4 * rank, 4 * rank + 4)
    return ({name: value[half] for name, value in x.items()} if isinstance(x, dict) else x[half]), y[half]


def two_steps(distiller: nn.Module, x: Any, y: Tensor, rank: int) -> float:
    """Accumulate the gradients of two steps, each under this rank's random state; the second has its head known."""
    total = 0.0
    torch.manual_seed(100 + rank)
    for _ in range(2):
        loss = distiller(x, y).loss
        loss.backward()
        total += loss.item()
    return total


def gradients(model: nn.Module) -> Arrays:
    return {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}  # type: ignore[union-attr]


def ddp_steps(net: str, method: str) -> tuple[float, Arrays]:
    """Run in both processes of the pool: two steps under DDP, without ``find_unused_parameters``."""
    model, x, y = fixed(net)
    distiller = DistributedDataParallel(SelfDistiller(model, parse_method(method)))
    total = two_steps(distiller, *share(x, y, dist.get_rank()), dist.get_rank())
    return total, gradients(model)


@pytest.mark.parametrize(("net", "method"), [("conv", method) for method in METHODS] + [("mapping", METHODS[1])])
def test_ddp_equals_one_process(pool: Run, net: str, method: str) -> None:
    alone = []
    for rank in range(2):
        model, x, y = fixed(net)
        total = two_steps(SelfDistiller(model, parse_method(method)), *share(x, y, rank), rank)
        alone.append((total, gradients(model)))
    together = pool(ddp_steps, net, method)
    for (total, found), (expected_total, _) in zip(together, alone, strict=True):
        assert total == pytest.approx(expected_total, rel=1e-5)
        for name, gradient in found.items():
            mean = (alone[0][1][name] + alone[1][1][name]) / 2
            np.testing.assert_allclose(gradient, mean, rtol=1e-4, atol=1e-6, err_msg=name)
    assert alone[0][0] != alone[1][0]


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
