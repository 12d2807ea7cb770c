"""Heads with very many classes: the divergence of two dropped samples, a few rows at a time, recomputing logits.

At 100,000 classes the logits outweigh everything else that a step keeps. Where the head is a linear layer, each row of
them is a function of its own features alone, so the rows can be classified, compared and forgotten part by part; the
backward pass classifies each part once more.
"""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from selfdistill.tap import Head

Divergence = Callable[[Tensor], Tensor]
"""``divergence(samples (2, B, C)) -> scalar``, a mean over the batch."""

MANY = 2**24
"""Elements of the two samples' logits from which they are made part by part: 64 MiB in float32."""

_PART = 2**22
_MOST_PARTS = 8  # each reads the head's weights three times and adds up a gradient of their size


def divergence_of_samples(head: Callable[[Tensor], Tensor], dropped: Tensor, divergence: Divergence) -> Tensor:
    """Classify two dropped samples and compare them.

    Args:
        head: h, ``(2B, D) -> (2B, C)``; called once, or where it is a plain linear layer of very many classes, on a
            part of the rows at a time.
        dropped: the features under u, then under v, ``(2B, D)``.

    Returns:
        The divergence, a scalar; the same but for rounding whichever way it was made.

    Example:
        >>> import torch
        >>> from selfdistill.losses import symmetric_kl_of_samples
        >>> features = torch.ones(4, 8)
        >>> divergence_of_samples(Head(nn.Linear(8, 3)), features, symmetric_kl_of_samples).item()
        0.0
    """

    def compared(classify: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        logits = classify(features)
        return divergence(logits.view(2, -1, *logits.shape[1:]))

    linear = head.module if isinstance(head, Head) else head
    # Only of a plain linear layer is it known that a row's logits are a function of that row's features alone.
    if type(linear) is not nn.Linear or dropped.dim() != 2 or linear.out_features * len(dropped) < MANY:
        return compared(head, dropped)
    masked_u, masked_v = dropped.chunk(2)
    count = min(_MOST_PARTS, -(-linear.out_features * len(dropped) // _PART))
    parts = list(zip(masked_u.chunk(count), masked_v.chunk(count), strict=True))
    shares = []
    for nth, part in enumerate(parts, 1):
        last = nth == len(parts) and not torch.compiler.is_compiling()
        classify = partial(_classify, linear) if last else head
        # A linear layer draws no random numbers: there is no state of the generator to go back to.
        mean = checkpoint(compared, classify, torch.cat(part), use_reentrant=False, preserve_rng_state=False)
        shares.append(mean * len(part[0]))
    return reduce(add, shares) / len(masked_u)


def _classify(linear: nn.Linear, features: Tensor) -> Tensor:
    weight: Tensor = _GradientOfItsOwn.apply(linear.weight)
    logits: Tensor = functional_call(linear, {"weight": weight}, features)
    return logits


class _GradientOfItsOwn(torch.autograd.Function):
    """The same weights, whose gradient owns its memory.

    Autograd adds a later gradient to the first one in place if that owns its memory. A linear layer's is a view of a
    transposed product: the sum would be one more tensor of the weights' size. The last part's gradient comes first.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()
