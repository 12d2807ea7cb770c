"""Label smoothing (Szegedy et al., 2016): cross-entropy against softened labels."""

from torch import Tensor

from selfdistill.losses import cross_entropy
from selfdistill.method import Method, Range


class LabelSmoothing(Method):
    r"""Cross-entropy against labels mixed with the uniform distribution.

    .. math:: L = (1 - \epsilon) \, CE(z, y) + \epsilon \, \frac{1}{C} \sum_{c=1}^{C} -\log p_c

    The uniform part covers *all* C classes, the true one included (the paper's code and PyTorch's own
    ``label_smoothing``; some repositories spread :math:`\epsilon` over the C - 1 wrong classes only). Classes that the
    head masks with a logit of -inf are not counted.

    Args:
        eps: :math:`\epsilon` in [0, 1); 0.1 in the paper's tables. At 0 it is plain cross-entropy.

    Raises:
        ValueError: ``eps`` outside [0, 1).

    Example:
        >>> import torch
        >>> LabelSmoothing().criterion(torch.zeros(2, 4), torch.tensor([0, 3])).item()  # log 4 whatever eps
        1.3862943649291992

    Source: Rethinking the Inception Architecture for Computer Vision, section 7; the row "LS" of Table 1.
    """

    searched = (Range("eps", 0.01, 0.3, log=True),)

    def __init__(self, eps: float = 0.1):
        super().__init__()
        if not 0 <= eps < 1:
            raise ValueError(f"LabelSmoothing: eps must be in [0, 1), not {eps}")
        self.eps = eps

    def criterion(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the smoothed label loss of logits ``(B, C)``, labels ``(B,)`` or ``(B, C)`` and class weights."""
        return cross_entropy(logits, labels, self.eps, weight)
