r"""The learning rate as a pure function of how many epochs are done.

Step: :math:`\eta(e) = \eta_0\,\gamma^{\#\{m : \lfloor e \rfloor \ge \mathrm{round}(m E)\}}`;
cosine: :math:`\eta(e) = \frac{\eta_0}{2}(1 + \cos(\pi e / E))`;
one cycle of W epochs up and E - W down:
:math:`\eta(e) = \eta_0\,(1 - .96\,\frac{1 + \cos(\pi e / W)}{2})`, then
:math:`\eta_0\,(b + (1 - b)\,\frac{1 + \cos(\pi (e - W) / (E - W))}{2})` with :math:`b = .04 / 10^4`;
in a warm-up of W epochs from the share a of the rate: :math:`\eta(e) = \eta_0 (a + (1 - a) e / W)`.
"""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["step", "cosine", "one_cycle"]

_CYCLE_START, _CYCLE_END = 1 / 25, 1 / 25e4  # shares of the rate, as torch's OneCycleLR has them


def learning_rate(
    epoch: float,
    *,
    epochs: int,
    lr: float,
    schedule: Schedule = "step",
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
        schedule: ``"step"`` drops on epoch boundaries only; ``"cosine"`` falls with every step, after the warm-up;
            ``"one_cycle"`` rises along half a cosine over the warm-up, from 1/25 of the rate, and falls along another.
        milestones: where the step schedule drops, as fractions of the epochs; rounded to whole epochs.
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
    if schedule == "one_cycle":
        return lr * _one_cycle(epoch, epochs, warmup_epochs)
    if epoch < warmup_epochs:
        return lr * warmup_start + (1 - warmup_start) * lr * epoch / warmup_epochs
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs))) / 2
    passed = sum(math.floor(epoch) >= round(milestone * epochs) for milestone in milestones)
    return lr * gamma**passed


def _one_cycle(epoch: float, epochs: int, rise: float) -> float:
    """Return the share of the rate; Smith and Topin (2019), as torch's ``OneCycleLR`` has it."""
    low, done = (_CYCLE_START, epoch / rise + 1) if epoch < rise else (_CYCLE_END, (epoch - rise) / (epochs - rise))
    return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2
