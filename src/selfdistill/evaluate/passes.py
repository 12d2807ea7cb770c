"""A network's logits on a set of images, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.network import call, check_logits, evaluation_mode, logits_of

PRECISIONS = ("32-true", "bf16-mixed")


def predict(
    model: nn.Module, batches: Iterable[tuple[Any, Tensor]], *, precision: str = "32-true"
) -> tuple[Tensor, Tensor]:
    """All logits of a model, in eval mode and without gradients.

    Args:
        model: a tensor is passed as `model(x)`, a mapping as `model(**x)`; any output that
            `selfdistill.tap.logits_of` understands.
        batches: pairs (x, y) already on the model's device.
        precision: "32-true" or "bf16-mixed".

    Returns:
        Logits (N, C), float32, and labels (N,), int64, both on the CPU and in the order of the batches.

    Raises:
        ValueError: no batch, or an unknown precision.
        NonFiniteError: an image has no largest finite logit.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> logits, labels = predict(model, [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))])
        >>> logits.shape, logits.dtype, model.training
        (torch.Size([4, 2]), torch.float32, True)
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision: {precision!r}, expected "32-true" or "bf16-mixed"')
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluation_mode(model), torch.inference_mode():
        for x, y in batches:
            context: AbstractContextManager[Any] = nullcontext()
            if precision == "bf16-mixed":
                context = torch.autocast(y.device.type, dtype=torch.bfloat16)
            with context:
                output = call(model, x)
            logits.append(logits_of(output).float().cpu())
            check_logits(logits[-1], "images of a batch")
            labels.append(y.cpu())
    if not logits:
        raise ValueError("batches: there is no image to predict")
    return torch.cat(logits), torch.cat(labels)
