"""Cross-entropy, of smoothed labels too (Eq. 4's label loss), and the labels that it refuses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill.losses.precision import at_least_float32

_NO_LABEL = -(2**40)
"""PyTorch leaves images of label -100 out of the mean, but no other term would: here no label is special."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0, weight: Tensor | None = None) -> Tensor:
    r"""Mean cross-entropy in float32 at least.

    .. math::
        L = (1 - \epsilon) \, CE(z, y) + \epsilon \, CE(z, u), \qquad
        CE(z, y) = -\frac{1}{B} \sum_{bc} y_{bc} \log p_{bc}, \quad p = \mathrm{softmax}(z)

    where u is uniform over the C classes, those left out that a head masks with a logit of -inf. A label of 0 adds 0,
    also where p is 0.

    With a weight of each class it is :math:`-\frac{1}{B} \sum_{bc} w_c \, t_{bc} \log p_{bc}`, t being the smoothed
    label: PyTorch's weighted loss of probabilities. It is not divided by the weights of the batch's labels, as that of
    class indices is: batches of other classes would count otherwise.

    Args:
        logits: z, shape ``(B, C)``.
        labels: y, class indices ``(B,)`` or probabilities ``(B, C)``.
        smoothing: :math:`\epsilon` in [0, 1).
        weight: w, of each class ``(C,)``, at least 0; None: 1.

    Returns:
        A scalar, at least 0, in nats; infinite if a masked class is a label.

    Example:
        >>> masked = torch.tensor([[0.0, 0.0, -torch.inf]])
        >>> cross_entropy(masked, torch.tensor([0])).item() == cross_entropy(masked, torch.tensor([1]), 0.1).item()
        True
    """
    z = at_least_float32(logits)
    if weight is not None:
        labels = F.one_hot(labels, z.shape[1]).to(z.dtype) if labels.dim() == 1 else labels
        return cross_entropy(z, weight.to(z.dtype) * _smoothed(z, labels, smoothing))
    if smoothing == 0:
        if labels.dim() == 1:
            return F.cross_entropy(z, labels, ignore_index=_NO_LABEL)
        # The lowest number in the place of -inf: 0 times it is 0.
        return F.cross_entropy(z.masked_fill((labels == 0) & (z == -torch.inf), torch.finfo(z.dtype).min), labels)
    if labels.dim() == 2:
        return cross_entropy(z, _smoothed(z, labels, smoothing))
    log_p = F.log_softmax(z, dim=1)
    of_all = -(_uniform(z) * log_p.masked_fill(z == -torch.inf, 0)).sum(dim=1).mean()
    return (1 - smoothing) * F.nll_loss(log_p, labels, ignore_index=_NO_LABEL) + of_all * (smoothing / z.shape[1])


def _uniform(z: Tensor) -> Tensor:
    """Return C u ``(B, C)``: 1 where nothing is masked."""
    possible = z > -torch.inf
    return possible * (z.shape[1] / possible.sum(dim=1, keepdim=True).to(z.dtype))


def _smoothed(z: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return labels if smoothing == 0 else (1 - smoothing) * labels + _uniform(z) * (smoothing / z.shape[1])


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    r"""Weights by which all classes count alike, whose mean over the images is 1: :math:`w_c = N / (C n_c)`.

    Args:
        labels: class indices of the training images, ``(N,)``.
        classes: C.

    Returns:
        float32 ``(C,)``; 0 for a class that does not occur.

    Example:
        >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])
    """
    counts = labels.bincount(minlength=classes)
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def check_labels(logits: Tensor, labels: Tensor, *, values: bool = True) -> None:
    """Refuse logits that are not ``(B, C)`` with C >= 2, and labels that are not theirs.

    Args:
        logits: as a model gives them.
        labels: class indices ``(B,)`` or probabilities ``(B, C)``.
        values: look at the labels' values too; for labels on a GPU this waits for the device.

    Raises:
        ValueError: a shape or type does not fit; a label names no class, such as -100, which other losses ignore.

    Example:
        >>> check_labels(torch.zeros(2, 3), torch.tensor([0, -100]))
        Traceback (most recent call last):
            ...
        ValueError: the labels hold -100, which is no class in 0..2; leave such images out of the batch
    """
    check_logits(logits)
    shape = tuple(logits.shape)
    if tuple(labels.shape) not in (shape[:1], shape) or (labels.dim() == 1 and labels.is_floating_point()):
        raise ValueError(
            f"labels {tuple(labels.shape)} of {labels.dtype} do not fit logits {shape}; give class indices "
            f"({shape[0]},) of torch.int64, or probabilities {shape}"
        )
    if not values:
        return
    highest = shape[1] - 1 if labels.dim() == 1 else torch.inf
    wrong = labels[~((labels >= 0) & (labels <= highest))]
    if len(wrong):
        what = f"no class in 0..{highest}" if labels.dim() == 1 else "no probability"
        raise ValueError(f"the labels hold {wrong[0].item():g}, which is {what}; leave such images out of the batch")


def check_logits(logits: Tensor) -> None:
    """Refuse logits that are not ``(B, C)`` with C >= 2: the cross-entropy of one class is 0, whatever its logit.

    Example:
        >>> check_logits(torch.zeros(4, 1))
        Traceback (most recent call last):
            ...
        ValueError: the model gives (1,) for each image; needed are logits (C,), C >= 2 classes: two for yes and no
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"the model gives {tuple(logits.shape[1:])} for each image; needed are logits (C,), C >= 2 classes: two "
            "for yes and no"
        )
