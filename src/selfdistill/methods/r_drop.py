"""R-Drop (Liang et al., 2021): make two forward passes under the model's own dropout agree."""

import torch
from torch import nn

from selfdistill.head import eager_call, samples, training
from selfdistill.losses import symmetric_kl
from selfdistill.method import CEInputs, Input, Method, Needs, Range, Step, Term
from selfdistill.methods.ranges import check_weight
from selfdistill.network import logits_of, random_states


class RDrop(Method):
    r"""Regularised dropout.

    .. math::
        L = \tfrac12 \left[ CE(z_1, y) + CE(z_2, y) \right]
            + \lambda \, \tfrac12 \left[ D_{KL}(p_1 \| p_2) + D_{KL}(p_2 \| p_1) \right]

    where :math:`z_1, z_2` are two passes of one batch under the model's *own* dropout (or drop path), drawn anew for
    each, :math:`p = \mathrm{softmax}(z)` at T = 1; the gradient flows through every side. Both pass at once, as 2B
    images: BatchNorm sees them together. SD-Dropout is this in the head alone, with a clean cross-entropy and T = 3.

    The term is ``"rdrop"``: half the bracket, unweighted.

    The authors' code for images takes :math:`CE + CE + 0.3 \, (D_{KL} + D_{KL})`, which is twice this loss at
    :math:`\lambda = 0.3`: here it keeps cross-entropy's size, and a learning rate its meaning. That code also *sums*
    the divergence over the batch, so that its weight grows with the batch size; here it is a mean like all others.

    Args:
        weight: :math:`\lambda \geq 0`. At 0 it is cross-entropy on each image twice.

    Raises:
        ValueError: ``weight`` outside its range; or, in the first step, a model without active dropout, on which this
            would be plain cross-entropy at twice the cost.

    Example:
        >>> import torch
        >>> from selfdistill import RDrop, SelfDistiller
        >>> layers = torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(16, 3)
        >>> distiller = SelfDistiller(torch.nn.Sequential(*layers), RDrop())
        >>> list(distiller(torch.randn(4, 8), torch.tensor([0, 1, 2, 0])).terms)
        ['ce', 'rdrop']

    Source: R-Drop: Regularized Dropout for Neural Networks (NeurIPS 2021), and its code, dropreg/R-Drop.
    """

    searched = (Range("weight", 0.03, 3, log=True),)
    needs = Needs(passes=2)

    def __init__(self, weight: float = 0.3):
        super().__init__()
        check_weight("RDrop", weight=weight)
        self.weight = weight

    def check(self, model: nn.Module, x: Input) -> None:
        """Refuse a model that in training mode says the same of the same images twice."""
        if not random_in_training(model, x):
            raise ValueError(
                f"{self!r} compares two passes under the model's own dropout, but this {type(model).__name__} has none "
                "that is active in training; set its dropout (or drop path) above 0, or use SDDropout(), which brings "
                "its own"
            )

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return both passes, each with weight 1/2."""
        return ((step.outputs[0].logits, step.labels, 0.5), (step.again[0].logits, step.labels, 0.5))

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"rdrop": Term((KL + KL) / 2, lambda)}``."""
        divergence = symmetric_kl(step.outputs[0].logits, step.again[0].logits, temperature=1.0)
        return {"rdrop": Term(divergence / 2, self.weight)}


def random_in_training(model: nn.Module, x: Input) -> bool:
    """Return whether a model in training mode draws random numbers, or answers the same input in two ways.

    Outputs alone would not do: a drop path of 0.05 seldom drops one of two images, but it draws in every pass. Weights,
    buffers, modes and random state are left as they were; a model in training mode keeps the modes of its modules.

    Example:
        >>> x = torch.zeros(1, 4)
        >>> random_in_training(nn.Dropout(0.1), x), random_in_training(nn.Dropout(0.0), x)
        (True, False)
    """
    two = samples(x, 2)
    with training(model):
        before = random_states(model)
        first = logits_of(eager_call(model, two))
        drawn = any(not torch.equal(before[device], state) for device, state in random_states(model).items())
        second = logits_of(eager_call(model, two))
    return drawn or not torch.allclose(first.float(), second.float(), rtol=1e-3, atol=1e-5, equal_nan=True)
