"""The precision that every loss is computed in."""

import torch
from torch import Tensor


def at_least_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32, others as they are; every loss is computed on these.

    bfloat16 keeps three digits: a KL of 1e-3 between neighbouring posteriors would be noise.

    Example:
        >>> import torch
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
