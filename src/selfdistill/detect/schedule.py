r"""The learning rate of a detector as a pure function of the step.

.. math:: \eta(k) = w(k)\,\eta_0\,\gamma^{\#\{d : \lfloor k / S \rfloor \ge d\}}, \quad
          w(k) = \min\left(1,\ \tfrac{1}{1000} + \tfrac{999}{1000}\tfrac{k}{W}\right)

Here k counts the steps done, S are the steps of an epoch, W those of the warm-up, d the epochs after which it drops.
"""

from collections.abc import Sequence

_FIRST = 1 / 1000  # what the first step of a warm-up has of the rate, as MMDetection and Detectron2 have it


def learning_rate(
    step: int, *, steps_per_epoch: int, lr: float, drops: Sequence[int], gamma: float = 0.1, warmup_steps: int = 500
) -> float:
    """Return the learning rate of the optimiser step that follows ``step`` steps of the whole run.

    Args:
        step: k, at least 0.
        steps_per_epoch: S, at least 1.
        lr: the rate before any drop, above 0.
        drops: d, epochs done when the rate drops.
        gamma: factor of each drop, in [0, 1].
        warmup_steps: W, steps over which the rate rises linearly from a thousandth; 0 for none.

    Example:
        The 1x schedule on COCO's 118,287 images, 16 a step: 12 epochs, drops after 8 and 11.

        >>> coco = dict(steps_per_epoch=7393, lr=0.02, drops=(8, 11))
        >>> [round(learning_rate(k, **coco), 5) for k in (0, 250, 500, 8 * 7393 - 1, 8 * 7393, 11 * 7393)]
        [2e-05, 0.01001, 0.02, 0.02, 0.002, 0.0002]
    """
    rate = lr * gamma ** sum(step // steps_per_epoch >= epoch for epoch in drops)
    return rate * (_FIRST + (1 - _FIRST) * step / warmup_steps) if step < warmup_steps else rate


def drops_of(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which the rate drops: 8/12 and 11/12 of the way, rounded, as the 1x schedule has it.

    For 7 epochs, the paper's 0.5x, no drops are published; these are ours.

    Example:
        >>> drops_of(12), drops_of(7), drops_of(24), drops_of(1)
        ((8, 11), (5, 6), (16, 22), ())
    """
    return tuple(sorted({drop for drop in (round(epochs * 8 / 12), round(epochs * 11 / 12)) if 0 < drop < epochs}))
