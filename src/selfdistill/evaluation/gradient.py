"""The gradient of a loss with respect to a model's input, float32, with the model left exactly as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from selfdistill.losses import at_least_float32
from selfdistill.network import call, evaluation_mode, logits_of


def input_gradient(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """g = d loss(M(x)) / dx, with M in evaluation mode and without autocast.

    Only the gradient of x is computed: no parameter's is, and every `.grad` stays what it was. Write `loss` as a sum
    over the rows, not a mean: a row's gradient then depends on its own image alone, whatever the batch.

    Args:
        model: M, with float32 (or float64) parameters; its output is anything `selfdistill.tap.logits_of` understands.
        x: the images, normalised, (B, ...).
        loss: logits (B, C) to a scalar.

    Returns:
        Of x's shape, float32 (float64 where x is).

    Raises:
        ValueError: the parameters are of half precision, a logit is not finite, or no gradient reaches x.

    Example:
        >>> input_gradient(nn.Linear(2, 2), torch.zeros(3, 2), lambda z: (2 * z).sum()).shape
        torch.Size([3, 2])
    """
    _, (gradient,) = input_gradients(model, x, [loss])
    return gradient


def input_gradients(
    model: nn.Module, x: Tensor, losses: Sequence[Callable[[Tensor], Tensor]]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """z = M(x) and d loss_k(z) / dx for each k: one pass forward, one backward for each loss; see `input_gradient`.

    Args:
        model: M, as for `input_gradient`.
        x: the images, normalised, (B, ...).
        losses: each takes logits (B, C) to a scalar; at least one.

    Returns:
        (logits, gradients): z without its graph, (B, C), and one tensor of x's shape for each loss.

    Example:
        >>> z, (a, b) = input_gradients(nn.Linear(2, 2), torch.zeros(3, 2), [torch.sum, lambda z: 2 * z.sum()])
        >>> z.requires_grad, torch.equal(2 * a, b)
        (False, True)
    """
    with scoring(model, x), torch.enable_grad():
        leaf = plain(x).detach().requires_grad_()
        z = checked(call(model, leaf))
        if not z.requires_grad:
            raise ValueError(
                "model: no gradient reaches its input (a no_grad or a conversion to whole numbers inside?); "
                "attacks and ODIN need one"
            )
        last = len(losses) - 1
        gradients = [torch.autograd.grad(loss(z), leaf, retain_graph=k < last)[0] for k, loss in enumerate(losses)]
    return z.detach(), tuple(gradients)


def clean_logits(model: nn.Module, x: Tensor) -> Tensor:
    """z = M(x) in evaluation mode, without autocast and without gradients. (B, ...) -> (B, C), float32 or better.

    Raises:
        ValueError: the parameters are of half precision, or a logit is not finite.

    Example:
        >>> clean_logits(nn.Sequential(nn.Linear(2, 3), nn.Dropout()), torch.zeros(4, 2)).requires_grad
        False
    """
    with scoring(model, x), torch.no_grad():
        return checked(call(model, plain(x)))


@contextmanager
def scoring(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Evaluation mode, no autocast and no inference mode inside; everything as it was afterwards.

    Raises:
        ValueError: the model's parameters are of half precision, whose small gradients are zeros.

    Example:
        >>> model = nn.Dropout()
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), scoring(model, torch.zeros(1)):
        ...     print(model.training, torch.is_autocast_enabled("cpu"))
        False False
        >>> model.training
        True
    """
    half = next((p.dtype for p in model.parameters() if p.dtype in (torch.float16, torch.bfloat16)), None)
    if half is not None:
        raise ValueError(f"model: its parameters are {half}, which loses small gradients; pass model.float()")
    with evaluation_mode(model), torch.inference_mode(False), torch.autocast(x.device.type, enabled=False):
        yield


def plain(x: Tensor) -> Tensor:
    """x in float32 or better, and a tensor that autograd may save: inference tensors are copied.

    Example:
        >>> with torch.inference_mode():
        ...     x = torch.zeros(2, dtype=torch.bfloat16)
        >>> plain(x).dtype, plain(x).is_inference()
        (torch.float32, False)
    """
    with torch.inference_mode(False):
        return at_least_float32(x.clone() if x.is_inference() else x)


def checked(output: object) -> Tensor:
    """The logits of a model's output, (B, C), float32 or better.

    Raises:
        ValueError: the output has no logits, they are not (B, C), or one is not finite.

    Example:
        >>> checked((torch.zeros(2, 3), "auxiliary")).shape
        torch.Size([2, 3])
    """
    z = at_least_float32(logits_of(output))
    if z.dim() != 2:
        raise ValueError(f"model: its logits have shape {tuple(z.shape)}, expected (B, C)")
    bad = int((~torch.isfinite(z.detach().amax(dim=1))).sum())  # a class may be masked with -inf
    if bad:
        raise ValueError(f"logits: {bad} of {len(z)} rows are not finite; the model diverged, check its training loss")
    return z


def per_channel(values: Sequence[float] | Tensor, x: Tensor, name: str) -> Tensor:
    """One number per channel, shaped to broadcast over images (B, C, H, W): (C,) -> (C, 1, 1).

    Raises:
        ValueError: x is not (B, C, H, W), the count is not C, a value is not finite, or one of std is not positive.

    Example:
        >>> per_channel((0.5, 0.25), torch.zeros(1, 2, 8, 8), "std").flatten()
        tensor([0.5000, 0.2500])
    """
    if x.dim() != 4:
        raise ValueError(f"x: shape {tuple(x.shape)}, expected images (B, C, H, W)")
    tensor = torch.as_tensor(values, dtype=x.dtype, device=x.device)
    if tensor.shape != x.shape[1:2]:
        raise ValueError(
            f"{name}: {tensor.numel()} values for images of {x.shape[1]} channels, expected one per channel"
        )
    if not bool(torch.isfinite(tensor).all()) or (name == "std" and bool((tensor <= 0).any())):
        raise ValueError(f"{name}: {tensor.tolist()}, expected finite{' positive' if name == 'std' else ''} values")
    return tensor[:, None, None]
