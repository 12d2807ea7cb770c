"""How often a module was called, and with how many rows."""

from typing import Any

import torch
from torch import Tensor, nn


def rows_of_calls(module: nn.Module) -> list[int]:
    """Return a list that grows by the batch size of each later call of ``module``."""
    rows: list[int] = []
    module.register_forward_hook(lambda _module, args, _output: rows.append(len(args[0])))
    return rows


def updates(model: nn.Module) -> set[int]:
    """Return how often the BatchNorms of a model updated their statistics: one number where all did it alike."""
    return {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}


def gradients(loss: Tensor, *modules: nn.Module) -> list[Tensor]:
    """Return the gradients of all parameters; None stands for no gradient."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return list(torch.autograd.grad(loss, parameters, retain_graph=True))


def double(x: Any) -> Any:
    """Return inputs in float64."""
    return {name: value.double() for name, value in x.items()} if isinstance(x, dict) else x.double()
