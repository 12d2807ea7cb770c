"""BYOT as run for the paper: classifiers on the inner stages learn from the labels and from the deepest one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALPHA = 0.1  # share of the distillation in a branch's loss; its cross-entropy has 1 - ALPHA
HINT = 1e-6


def loss_total(
    z: Tensor,
    feature: Tensor,
    branch_z: Sequence[Tensor],
    branch_features: Sequence[Tensor],
    y: list[int],
    *,
    weight: float,
    temperature: float,
) -> Tensor:
    """``CE(z_4) + lambda * [0.9 sum_i CE(z_i) + 0.1 T**2 sum_i KL(sg p_4 || p_i) + 1e-6 sum_i MSE(F_i, sg F_4)]``."""
    total = nll(z, y)
    for z_i, feature_i in zip(branch_z, branch_features, strict=True):
        total = total + weight * (1 - ALPHA) * nll(z_i, y)
        total = total + weight * ALPHA * temperature**2 * from_deepest(z, z_i, temperature)
        total = total + weight * HINT * mean_squared(feature_i, feature)
    return total


def from_deepest(z: Tensor, z_i: Tensor, temperature: float) -> Tensor:
    """``KL(sg softmax(z_4 / T) || softmax(z_i / T))``, mean over the batch."""
    kl = z.new_zeros(())
    for deep, shallow in zip(z.detach() / temperature, z_i / temperature, strict=True):
        log_q = [value - deep.exp().sum().log() for value in deep]
        log_p = [value - shallow.exp().sum().log() for value in shallow]
        for i in range(len(log_q)):
            kl = kl + log_q[i].exp() * (log_q[i] - log_p[i])
    return kl / len(z)


def mean_squared(feature_i: Tensor, feature: Tensor) -> Tensor:
    """The mean over all elements; the deepest feature is a constant."""
    rows, columns = feature.shape
    total = feature.new_zeros(())
    for b in range(rows):
        for d in range(columns):
            total = total + (feature_i[b, d] - feature.detach()[b, d]) ** 2
    return total / (rows * columns)


def nll(z: Tensor, y: list[int]) -> Tensor:
    """``-1/B sum_b log p_b(y_b)``."""
    total = z.new_zeros(())
    for row, label in zip(z, y, strict=True):
        total = total + row.exp().sum().log() - row[label]
    return total / len(y)


class Branch(nn.Module):
    """What stands after stage i: 1x1 to a quarter of the width, k x k with stride k, 1x1 to the width; each BN, ReLU.

    Then the mean over the map, which is ``F_i``, and a classifier of its own. ``forward`` gives ``(z_i, F_i)``.
    """

    def __init__(self, channels: int, kernel: int, width: int, classes: int) -> None:
        super().__init__()
        self.squeeze, self.squeeze_norm = nn.Conv2d(channels, width // 4, 1), nn.BatchNorm2d(width // 4)
        self.reduce = nn.Conv2d(width // 4, width // 4, kernel, stride=kernel)
        self.reduce_norm = nn.BatchNorm2d(width // 4)
        self.expand, self.expand_norm = nn.Conv2d(width // 4, width, 1), nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, stage: Tensor) -> tuple[Tensor, Tensor]:
        """Return the branch's logits and its pooled vector."""
        out = torch.relu(self.squeeze_norm(self.squeeze(stage)))
        out = torch.relu(self.reduce_norm(self.reduce(out)))
        out = torch.relu(self.expand_norm(self.expand(out)))
        pooled = out.mean((2, 3))
        return self.classifier(pooled), pooled
