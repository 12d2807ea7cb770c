"""PS-KD (Kim et al., 2021): mix each label with the model's prediction from the previous epoch."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from selfdistill.losses import at_least_float32
from selfdistill.method import Method, Needs, Range, Step, Term


class PSKD(Method):
    r"""Progressive self-knowledge distillation.

    .. math::
        L = CE(z(x), t), \qquad t = (1 - \alpha_e) \, y + \alpha_e \, p^{(e-1)}(x), \qquad
        \alpha_e = \alpha \, \frac{e + 1}{E}

    where :math:`p^{(e-1)}(x) = \mathrm{softmax}(z)` is the prediction of the network, in training mode, when it last
    saw this image (T = 1), and e of E epochs are done. An image seen for the first time keeps its label. It replaces
    the *labels*, for every part of a sum: it adds no term of its own.

    The posteriors of all images are kept in float32 on the device of the logits: N x C x 4 bytes (20 MB for CIFAR-100,
    5 GB for ImageNet). They are part of the distiller's ``state_dict``, but no buffer. Under ``torch.distributed`` each
    process keeps all of them and the rows are exchanged in every step, so the batches of a step must be of one size.

    Where the published code never saw an image in its first epoch (a dropped last batch), its posterior counts as 0;
    here the image keeps its label until it has been seen.

    Args:
        samples: N, the number of training images; ``index`` is in [0, N).
        weight: :math:`\alpha` in [0, 1], the share that the past has in the last epoch. At 0 it is cross-entropy.

    Raises:
        ValueError: an argument outside its range; in a step, an ``index`` outside [0, N).

    Example:
        >>> import torch
        >>> from selfdistill import PSKD, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, PSKD(samples=100))
        >>> x, y, index = torch.randn(4, 8), torch.tensor([0, 1, 2, 0]), torch.tensor([7, 99, 0, 42])
        >>> for epoch in range(2):
        ...     distiller.set_progress(epoch / 2, epoch_end=(epoch + 1) / 2)
        ...     loss, logits, terms = distiller(x, y, index=index)
        >>> list(terms)
        ['ce']

    Source: Self-Knowledge Distillation with Progressive Refinement of Targets (ICCV 2021), and its code,
    lgcnsai/PS-KD-Pytorch.
    """

    searched = (Range("weight", 0.2, 0.95),)
    needs = Needs(index=True, progress=True)

    def __init__(self, samples: int, weight: float = 0.8):
        super().__init__()
        if not (isinstance(samples, int) and samples > 0):
            raise ValueError(f"PSKD: samples is the number of training images, at least 1, not {samples!r}")
        if not 0 <= weight <= 1:
            raise ValueError(f"PSKD: weight is the share of the past in the labels, in [0, 1], not {weight}")
        self.samples, self.weight = samples, weight
        # No buffer: DDP would overwrite it. Rows of zeros are images not seen yet.
        self._posteriors: Tensor | None = None

    def labels(self, step: Step) -> Tensor:
        """Return the given labels ``(B,)`` or ``(B, C)`` mixed with the past, ``(B, C)``."""
        logits = at_least_float32(step.outputs[0].logits)
        given = step.batch.y if step.batch.y.dim() == 2 else F.one_hot(step.batch.y, logits.shape[1])
        given = given.to(logits.dtype)
        self._check(step)
        past = self._memory(logits)[_positions(step)].to(logits.dtype)
        past = torch.where(past.sum(dim=1, keepdim=True) > 0, past, given)
        share = self.weight * step.epoch_end
        return (1 - share) * given + share * past

    def terms(self, step: Step) -> dict[str, Term]:
        """Remember the posteriors; it adds no term."""
        logits = step.outputs[0].logits.detach()
        posteriors = F.softmax(at_least_float32(logits), dim=1).float()
        self._memory(logits)[of_all_ranks(_positions(step))] = of_all_ranks(posteriors)
        return {}

    def get_extra_state(self) -> Tensor | None:
        """Return the posteriors ``(N, C)``, or None before the first step."""
        return self._posteriors

    def set_extra_state(self, state: Any) -> None:
        """Take posteriors on any device; the next step moves them to its own.

        Raises:
            ValueError: they are of another number of images.
        """
        if state is not None and len(state) != self.samples:
            raise ValueError(
                f"{self!r} cannot go on from the posteriors of {len(state)} images; give samples={len(state)}"
            )
        self._posteriors = None if state is None else state.clone()

    def _memory(self, logits: Tensor) -> Tensor:
        classes = logits.shape[1]
        if self._posteriors is None:
            self._posteriors = logits.new_zeros(self.samples, classes, dtype=torch.float32)
        if self._posteriors.shape[1] != classes:
            raise ValueError(
                f"{self!r} remembers {self._posteriors.shape[1]} classes and the model has {classes}; start with a "
                "new method"
            )
        if self._posteriors.device != logits.device:
            self._posteriors = self._posteriors.to(logits.device)
        return self._posteriors

    def _check(self, step: Step) -> None:
        index, images = step.batch.index, len(step.outputs[0].logits)
        assert index is not None
        if index.shape != (images,):
            raise ValueError(f"index has shape {tuple(index.shape)}; it must be ({images},), a position an image")
        # On a GPU this waits for the device; unchecked, an index out of range would end the process's CUDA for good.
        if not torch.compiler.is_compiling() and bool(((index < 0) | (index >= self.samples)).any()):
            raise ValueError(
                f"index goes from {index.min()} to {index.max()}, but {self!r} has the positions 0 to "
                f"{self.samples - 1}; samples= is the number of training images"
            )


def _positions(step: Step) -> Tensor:
    assert step.batch.index is not None
    return step.batch.index.to(step.outputs[0].logits.device, torch.int64)


def of_all_ranks(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of their ranks; alone, the rows themselves."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)
