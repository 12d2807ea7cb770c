"""DLB: predictions from the previous mini-batch teach its images, augmented anew, in this step."""

from torch import Tensor


def loss_total(
    z: Tensor,
    y: list[int],
    z_previous: Tensor | None = None,
    y_previous: list[int] | None = None,
    z_then: Tensor | None = None,
    *,
    weight: float,
    temperature: float,
) -> Tensor:
    """``CE over both batches + alpha * T**2 * KL(sg softmax(z_then / T) || softmax(z_previous / T))``.

    ``z_then``: the last step's logits of its batch; ``z_previous``: those of the same images now. The cross-entropy is
    one mean over the rows of both batches. In the very first step there is no previous batch.
    """
    rows, labels = list(z), list(y)
    if z_previous is None or y_previous is None or z_then is None:
        return mean_ce(rows, labels)
    kl = z.new_zeros(())
    for then, now in zip(z_then.detach(), z_previous, strict=True):
        for i in range(len(now)):
            target = share(then, i, temperature)
            kl = kl + target * (target.log() - share(now, i, temperature).log())
    return mean_ce([*z_previous, *rows], [*y_previous, *labels]) + weight * temperature**2 * kl / len(z_previous)


def mean_ce(rows: list[Tensor], labels: list[int]) -> Tensor:
    """``-1/N sum_n log p_n(y_n)``."""
    total = rows[0].new_zeros(())
    for row, label in zip(rows, labels, strict=True):
        total = total - share(row, label, 1.0).log()
    return total / len(rows)


def share(row: Tensor, i: int, temperature: float) -> Tensor:
    """``exp(z_i / T) / sum_j exp(z_j / T)``."""
    return (row[i] / temperature).exp() / sum((value / temperature).exp() for value in row)
