r"""The learning rate as a pure function of how many epochs are done.

Step: :math:`\eta(e) = \eta_0\,\gamma^{\#\{m : \lfloor e \rfloor \ge \mathrm{round}(m E)\}}`;
cosine: :math:`\eta(e) = \frac{\eta_0}{2}(1 + \cos(\pi e / E))`;
in a warm-up of W epochs from the share a of the rate: :math:`\eta(e) = \eta_0 (a + (1 - a) e / W)`.
"""

import math
from collections.abc import Sequence
from typing import Literal


def learning_rate(
    epoch: float,
    *,
    epochs: int,
    lr: float,
    schedule: Literal["step", "cosine"] = "step",
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    warmup_start: float = 0.0,
) -> float:
    """Return the learning rate of the optimiser step that follows ``epoch`` epochs.

    Args:
        epoch: epochs done, fractions of an epoch included, in [0, epochs).
        epochs: epochs in all, at least 1.
        lr: the rate before any drop, above 0.
        schedule: ``"step"`` drops on epoch boundaries only; ``"cosine"`` falls with every step, after the warm-up.
        milestones: where the step schedule drops, as fractions of the epochs; rounded to whole epochs.
        gamma: factor of each drop.
        warmup_epochs: epochs over which the rate rises linearly, fractions of an epoch included, below ``epochs``.
        warmup_start: share of the rate from which it rises, in [0, 1].

    Example:
        The paper's schedule: drops after epochs 100 and 150 of 200.

        >>> [round(learning_rate(e, epochs=200, lr=0.1), 6) for e in (0, 99.99, 100, 149.99, 150)]
        [0.1, 0.1, 0.01, 0.01, 0.001]

        The 1x schedule on COCO, 7,393 steps an epoch, with a warm-up of 500 steps from a thousandth of the rate:

        >>> coco = dict(lr=0.02, epochs=12, milestones=(8 / 12, 11 / 12), warmup_epochs=500 / 7393, warmup_start=0.001)
        >>> [round(learning_rate(k / 7393, **coco), 5) for k in (0, 250, 500, 8 * 7393 - 1, 8 * 7393, 11 * 7393)]
        [2e-05, 0.01001, 0.02, 0.02, 0.002, 0.0002]
    """
    if epoch < warmup_epochs:
        return lr * warmup_start + (1 - warmup_start) * lr * epoch / warmup_epochs
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs))) / 2
    passed = sum(math.floor(epoch) >= round(milestone * epochs) for milestone in milestones)
    return lr * gamma**passed
