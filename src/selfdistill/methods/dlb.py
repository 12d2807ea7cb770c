"""DLB (Shen et al., 2022): predictions from the previous mini-batch teach the same images again."""

from typing import Any

from torch import Tensor

from selfdistill.losses import at_least_float32, kl
from selfdistill.method import CEInputs, Method, Needs, Range, Step, Term
from selfdistill.methods.ranges import check_temperature, check_weight


class DLB(Method):
    r"""Self-distillation from the last mini-batch.

    .. math::
        L = CE(z_t(x_t \cup x'_{t-1}), y) + \lambda \, T^2 \,
            D_{KL}\left( \mathrm{sg}\, p_{t-1}(x_{t-1}) \,\|\, p_t(x'_{t-1}) \right), \qquad p = \mathrm{softmax}(z / T)

    where step t trains on its own images :math:`x_t` and, augmented anew, on those of the step before,
    :math:`x'_{t-1}`; :math:`p_{t-1}` is what the network predicted for them then, and sg stops the gradient. The
    cross-entropy is one mean over both batches. The very first step is plain cross-entropy.

    The term is ``"dlb"``: the divergence, unweighted and without :math:`T^2`; 0 in the very first step.

    Both batches pass at once, as in the paper, where they are the halves of one mini-batch; its code passes them one
    after the other, each with its own BatchNorm statistics. A step costs as much as one of twice the batch size.

    The last step's logits are part of the distiller's ``state_dict``, but no buffer: under DDP each process has its
    own. Loaded into a process without them (None), a step has no term.

    Args:
        weight: :math:`\lambda \geq 0`, the paper's :math:`\alpha`; 1 as published. At 0 it is cross-entropy on each
            image twice.
        temperature: :math:`T > 0`; 3 as published.

    Raises:
        ValueError: an argument outside its range; in a step, ``previous`` missing after the first one, or not the
            last step's batch.

    Example:
        >>> import torch
        >>> from selfdistill import DLB, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller, previous = SelfDistiller(model, DLB()), None
        >>> for _ in range(2):
        ...     x, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
        ...     loss, logits, terms = distiller(x, y, previous=previous)
        ...     previous = x + 0.1, y  # the same images, augmented anew
        >>> list(terms)
        ['ce', 'dlb']

    Source: Self-Distillation from the Last Mini-Batch for Consistency Regularization (CVPR 2022), and its code,
    Meta-knowledge-Lab/DLB.
    """

    searched = (
        Range("weight", 0.1, 3, log=True),
        Range("temperature", 1, 6),
    )
    needs = Needs(previous=True)

    def __init__(self, weight: float = 1.0, temperature: float = 3.0):
        super().__init__()
        check_weight("DLB", weight=weight)
        check_temperature("DLB", temperature)
        self.weight, self.temperature = weight, temperature
        self._last: Tensor | None = None  # no buffer: DDP would overwrite it

    def ce_inputs(self, step: Step) -> CEInputs:
        """Return this batch and the previous one, weighted by their sizes: one mean over both."""
        now = step.outputs[0].logits
        if step.previous is None or step.batch.previous is None:
            return ((now, step.labels, 1.0),)
        before, images = step.previous.logits, len(now) + len(step.previous.logits)
        return (
            (now, step.labels, len(now) / images),
            (before, step.batch.previous[1], len(before) / images),
        )

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"dlb": Term(KL(sg p of the last step || p now), lambda * T**2)}`` and keep this step's logits."""
        now = at_least_float32(step.outputs[0].logits)
        divergence = now.new_zeros(())
        if self._last is not None:
            divergence = kl(self._last.to(now), self._of_the_last_batch(step, self._last), self.temperature)
        self._last = now.detach().clone()
        return {"dlb": Term(divergence, self.weight * self.temperature**2)}

    def get_extra_state(self) -> Tensor | None:
        """Return the last step's logits ``(B, C)``, or None before the first."""
        return self._last

    def set_extra_state(self, state: Any) -> None:
        """Take logits on any device; the next step moves them to its own."""
        self._last = state

    def _of_the_last_batch(self, step: Step, last: Tensor) -> Tensor:
        if step.previous is None:
            raise ValueError(
                f"{self!r} needs previous=, the images of the previous batch, augmented anew, and their labels, in "
                "every step but the first"
            )
        if step.previous.logits.shape != last.shape:
            raise ValueError(
                f"{self!r}: previous= gives {tuple(step.previous.logits.shape)} logits, and the last step had "
                f"{tuple(last.shape)}; pass the images of the last step's batch, all of them and in its order"
            )
        return step.previous.logits
