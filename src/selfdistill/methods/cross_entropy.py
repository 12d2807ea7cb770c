"""Plain cross-entropy: the baseline that every other method adds to."""

from selfdistill.method import Method


class CrossEntropy(Method):
    r"""Cross-entropy alone.

    .. math:: L = L_{CE} = -\frac{1}{B} \sum_b \log p(y_b \mid x_b)

    on the clean logits ``(B, C)``, in nats; labels are class indices ``(B,)`` or probabilities ``(B, C)``.

    Example:
        >>> import torch
        >>> from selfdistill import CrossEntropy, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, CrossEntropy())
        >>> output = distiller(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
        >>> list(output.terms)
        ['ce']
    """
