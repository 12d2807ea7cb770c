"""PS-KD: the targets of an epoch mix the labels with what the network said of the same image one epoch ago."""

from math import exp

from torch import Tensor


def loss_total(z: Tensor, targets: list[list[float]]) -> Tensor:
    """``-1/B sum_b sum_i t_bi log p_bi``."""
    total = z.new_zeros(())
    for row, target in zip(z, targets, strict=True):
        log_below = row.exp().sum().log()
        for i in range(len(target)):
            total = total - target[i] * (row[i] - log_below)
    return total / len(targets)


class History:
    """What was last said of each image, by its position; before anything was said, its one-hot label."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.said: dict[int, list[float]] = {}

    def targets(self, index: list[int], y: list[int], *, weight: float, epoch: int, epochs: int) -> list[list[float]]:
        """``(1 - a_t) * one-hot + a_t * p(previous epoch)`` with ``a_t = alpha_T * (epoch + 1) / epochs``."""
        a = weight * (epoch + 1) / epochs
        mixed = []
        for position, label in zip(index, y, strict=True):
            one_hot = [1.0 if i == label else 0.0 for i in range(self.classes)]
            past = self.said.get(position, one_hot)
            mixed.append([(1 - a) * one_hot[i] + a * past[i] for i in range(self.classes)])
        return mixed

    def remember(self, index: list[int], z: Tensor) -> None:
        """Keep ``softmax(z)`` at temperature 1."""
        for position, row in zip(index, z.tolist(), strict=True):
            powers = [exp(value) for value in row]
            self.said[position] = [power / sum(powers) for power in powers]
