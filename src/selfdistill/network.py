"""Any classifier: call it, read its logits, find its modules, put it into evaluation mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.errors import ArgumentError, NonFiniteError
from selfdistill.method import Input
from selfdistill.own_code import raised_in_own_code

DIVERGED = "the training diverged: train again with a lower `lr` or `clip=1`"
"""The remedy for a network whose numbers are not finite."""


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


def nonfinite_weights(model: nn.Module) -> str | None:
    """Return the name of the first parameter, or running statistic of BatchNorm, that is not finite (waits for it).

    Other buffers may be infinite, as masks of attention are.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = model.bias.data.fill_(torch.inf)
        >>> nonfinite_weights(model)
        'bias'
    """
    values = dict(model.named_parameters())
    values |= {name: value for name, value in model.named_buffers() if "running_" in name}  # type: ignore[misc]
    if not values:
        return None
    finite = torch.stack([value.detach().isfinite().all() for value in values.values()]).tolist()
    return next((name for name, holds in zip(values, finite, strict=True) if not holds), None)


def check_logits(logits: Tensor, what: str) -> None:
    """Refuse logits ``(B, C)`` of which a row has no largest finite one; some of a row may be masked with -inf.

    Raises:
        NonFiniteError: names what they are of.
    """
    bad = int((~logits.amax(dim=1).isfinite()).sum())
    if bad:
        raise NonFiniteError(f"the logits of {bad} of {len(logits)} {what} are not finite numbers; {DIVERGED}")


def check_classifier(model: nn.Module, name: str, shape: tuple[int, ...], classes: int | None) -> int:
    """Pass one black image through a model; return how many logits it gives.

    Args:
        shape: of an image, (C, S, S).
        classes: how many logits it must give; None: any number.

    Raises:
        ArgumentError: it does not take such images, or does not give one logit per class.
    """
    try:
        with torch.no_grad(), evaluation_mode(model):
            logits = logits_of(model(torch.zeros(1, *shape)))
    except Exception as error:  # each network refuses in its own way
        channels, size, _ = shape
        reason = raised_in_own_code(error) or " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError(
            "model",
            f": {name} does not take images of {size} px with {channels} channel{'s' * (channels > 1)} ({reason}): "
            "give its size with `image_size`, or images of its channels",
        ) from error
    if logits.shape != (1, classes or logits.shape[-1]):
        given = "x".join(map(str, logits.shape[1:])) or "no"
        raise ArgumentError(
            "model", f": {name} gives {given} logits for an image, but the images have {classes} classes"
        )
    return logits.shape[1]


def default_device() -> torch.device:
    """Return the CUDA device if there is one, otherwise the GPU of a Mac (MPS), otherwise the CPU."""
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    return torch.device(gpu or "cpu")


def put_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Bring a model's weights into channels-last order unless a backward pass would corrupt memory; return whether.

    On a CPU, torch 2.15 (oneDNN 3.13) writes the gradient of a strided 1x1 convolution past its end if its input has
    fewer channels than a vector register holds: 8 with AVX2, 16 with AVX-512.

    Args:
        device: where the model is going to be.

    Example:
        >>> cpu = torch.device("cpu")
        >>> [put_channels_last(nn.Conv2d(channels, 128, 1, stride=2), cpu) for channels in (8, 64)]
        [False, True]
    """
    corrupts = device.type == "cpu" and any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels // layer.groups < 16
        for layer in model.modules()
    )
    if not corrupts:
        model.to(memory_format=torch.channels_last)
    return not corrupts


def float64_device(device: torch.device) -> torch.device:
    """Return the device, or the CPU if it has no float64, as MPS.

    Example:
        >>> float64_device(torch.device("mps"))
        device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


def random_state(device: torch.device) -> Tensor:
    """Return the state of a device's generator; of other kinds than CUDA and MPS the CPU's."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Put back what :func:`random_state` returned."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def random_states(model: nn.Module) -> dict[torch.device, Tensor]:
    """Return the states of the generators of the CPU and of the model's devices."""
    devices = {torch.device("cpu"), *(parameter.device for parameter in model.parameters())}
    return {device: random_state(device) for device in devices}
