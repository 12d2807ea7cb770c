"""Any classifier: call it, read its logits, find its modules, put it into evaluation mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.method import Input


def call(model: nn.Module, x: Input) -> Any:
    """Return ``model(x)``, a mapping as keyword arguments."""
    return model(**x) if isinstance(x, Mapping) else model(x)


def logits_of(output: Any) -> Tensor:
    """Return the logits in a model's output: a tensor, ``.logits``, ``["logits"]``, or the first of a tuple.

    Raises:
        ValueError: none of these.

    Example:
        >>> import torch
        >>> logits_of((torch.zeros(2, 3), "auxiliary")).shape
        torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"the model's output has no logits: it is a {type(output).__name__}")
    return output


def rows_of(x: Input) -> int:
    """Return the batch size of a tensor, or of a mapping of tensors."""
    tensor = next(value for value in x.values() if isinstance(value, Tensor)) if isinstance(x, Mapping) else x
    return tensor.shape[0]


def eager(model: nn.Module) -> nn.Module:
    """Return the module inside a wrapper of ``torch.compile``, or the model itself."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def submodule(model: nn.Module, name: str, argument: str) -> nn.Module:
    """Return the module of this dotted name.

    Raises:
        ValueError: there is none; the message names the argument and the model's own children.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        children = ", ".join(child for child, _ in model.named_children()) or "none"
        raise ValueError(
            f"{argument}={name!r} is not a submodule of this {type(model).__name__}; its children are: {children}"
        ) from None


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards each module's own mode as it was: a frozen BatchNorm stays frozen.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluation_mode(model):
        ...     print(model.training)
        False
        >>> model.training
        True
    """
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def default_device() -> torch.device:
    """Return the CUDA device if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
