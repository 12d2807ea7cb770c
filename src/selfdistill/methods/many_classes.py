"""Heads of very many classes: the divergence of two dropped samples a few rows at a time, its logits made anew.

At 100,000 classes the logits outweigh everything else that a step keeps. Where the head is a linear layer, each row of
them is a function of its own features alone, so the rows can be classified, compared and forgotten part by part; the
backward pass classifies each part once more.
"""

from collections.abc import Callable
from functools import reduce
from operator import add

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selfdistill.tap import Head

Divergence = Callable[[Tensor, Tensor], Tensor]
"""``divergence(a (B, C), b (B, C)) -> scalar``, a mean over the batch."""

MANY = 2**24
"""Elements of the two samples' logits from which they are made part by part: 64 MiB in float32."""

_PART = 2**23


def divergence_of_samples(head: Callable[[Tensor], Tensor], dropped: Tensor, divergence: Divergence) -> Tensor:
    """Classify two dropped samples and compare them.

    Args:
        head: h, ``(2B, D) -> (2B, C)``; called once, or where it is a plain linear layer of very many classes, on a
            few rows at a time.
        dropped: the features under u, then under v, ``(2B, D)``.
        divergence: of their logits.

    Returns:
        The divergence, a scalar; the same but for rounding whichever way it was made.

    Example:
        >>> import torch
        >>> from selfdistill.losses import symmetric_kl
        >>> features = torch.ones(4, 8)
        >>> divergence_of_samples(Head(nn.Linear(8, 3)), features, symmetric_kl).item()
        0.0
    """
    classes = _classes_of_linear(head)
    if classes * len(dropped) < MANY:
        u, v = head(dropped).chunk(2)
        return divergence(u, v)

    def of_part(masked_u: Tensor, masked_v: Tensor) -> Tensor:
        return divergence(head(masked_u), head(masked_v)) * len(masked_u)

    rows = max(1, _PART // (2 * classes))
    masked_u, masked_v = dropped.chunk(2)
    # A linear layer draws no random numbers: there is no state of the generator to go back to.
    sums = [
        checkpoint(of_part, part_u, part_v, use_reentrant=False, preserve_rng_state=False)
        for part_u, part_v in zip(masked_u.split(rows), masked_v.split(rows), strict=True)
    ]
    return reduce(add, sums) / len(masked_u)


def _classes_of_linear(head: Callable[[Tensor], Tensor]) -> int:
    """Return the classes of a plain linear layer, 0 for any other head: only of the first are the rows known apart."""
    module = head.module if isinstance(head, Head) else head
    return module.out_features if type(module) is nn.Linear else 0
