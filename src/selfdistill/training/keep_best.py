"""The weights that were best on the validation images: by accuracy, of equal accuracies by the smaller NLL."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from selfdistill.training.task import Row


class BestWeights(nn.Module):
    """A copy of a model as it was at its best; a module, so that checkpoints hold it.

    Args:
        model: is copied; without hooks yet.

    Attributes:
        module: the copy.
        epoch: of which it is, from 1; 0 before the first.
    """

    score: Tensor
    epoch: Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.register_buffer("score", torch.full((2,), -torch.inf))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def offer(self, model: nn.Module, epoch: int, accuracy: float, nll: float) -> None:
        """Take the weights of ``model`` over if they are better."""
        score = _score(accuracy, nll)
        if score > tuple(self.score.tolist()):
            self.score.copy_(torch.tensor(score))
            self.epoch.fill_(epoch)
            self.module.load_state_dict(model.state_dict())


def _score(accuracy: float, nll: float) -> tuple[float, ...]:
    """Return what is the larger the better, in the precision that a checkpoint keeps."""
    return tuple(torch.tensor([accuracy, -nll], dtype=torch.float32).tolist())


def epochs_since_best(rows: list[Row]) -> int:
    """Return how many epochs the log goes on after the one that is best on the validation images.

    Example:
        >>> epochs_since_best([{"epoch": e, "val_top1": a, "val_nll": 1.0} for e, a in enumerate([0.1, 0.3, 0.3], 1)])
        1
    """
    measured = [row for row in rows if row.get("val_top1") is not None]
    if not measured:
        return 0
    # The first of equal ones.
    best = max(measured, key=lambda row: _score(row["val_top1"] or 0.0, row["val_nll"] or 0.0))
    return int(rows[-1]["epoch"] or 0) - int(best["epoch"] or 0)
