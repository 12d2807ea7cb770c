"""BAKE (Ge et al., 2021): an image learns from the posteriors of the batch's other images that look alike."""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill.losses import at_least_float32, soft_kl
from selfdistill.method import Method, Needs, Range, Step, Term
from selfdistill.methods.ranges import check_temperature, check_weight


def ensembled(posteriors: Tensor, features: Tensor, omega: float) -> Tensor:
    r"""Spread each image's posterior over the images whose features are alike.

    .. math::
        Q = (1 - \omega) \, (I - \omega A)^{-1} P, \qquad
        A_{ij} = \frac{e^{\cos(f_i, f_j)}}{\sum_{k \neq i} e^{\cos(f_i, f_k)}}, \quad A_{ii} = 0

    the limit of :math:`Q_t = \omega A Q_{t-1} + (1 - \omega) P`. Computed in float32 at least, also under autocast.

    Args:
        posteriors: P, shape ``(B, C)``.
        features: f, shape ``(B, D)``.
        omega: :math:`\omega` in [0, 1).

    Returns:
        Q, shape ``(B, C)``: rows of probabilities.

    Example:
        >>> import torch
        >>> ensembled(torch.eye(2), torch.ones(2, 4), omega=0.5)
        tensor([[0.6667, 0.3333],
                [0.3333, 0.6667]])
    """
    with torch.autocast(features.device.type, enabled=False):
        directions = F.normalize(at_least_float32(features).flatten(1), dim=1).to(posteriors.dtype)
        itself = torch.eye(len(directions), dtype=directions.dtype, device=directions.device)
        affinity = (directions @ directions.T).masked_fill(itself.bool(), -torch.inf).softmax(dim=1)
        # Never singular: each row of omega * A sums to omega < 1. No check needed (it would force a GPU sync).
        spread: Tensor = torch.linalg.solve_ex(itself - omega * affinity, (1 - omega) * posteriors).result
    return spread


class BAKE(Method):
    r"""Batch knowledge ensembling.

    .. math::
        L = CE(z, y) + \lambda \, T^2 \, D_{KL}(\mathrm{sg}\, Q \,\|\, p), \qquad
        Q = (1 - \omega) \, (I - \omega A)^{-1} \, p, \quad p = \mathrm{softmax}(z / T)

    where A is the row softmax of the cosine similarities of the pooled features, an image's own left out, and sg stops
    the gradient. Each batch holds groups of an anchor and ``partners`` further images of its class; cross-entropy sees
    them all. The labels say which images are drawn and nothing else: A is of the whole batch.

    The term is ``"bake"``: the divergence, unweighted and without :math:`T^2`.

    Args:
        weight: :math:`\lambda \geq 0`; 1 as published. At 0 it is cross-entropy.
        temperature: :math:`T > 0`; 4 as published.
        omega: :math:`\omega` in [0, 1), the share that the others have in a target; 0.5 for CIFAR-100 and CUB as
            published (0.9 with one partner elsewhere). At 0 an image is its own target: cross-entropy.
        partners: M >= 0, images of the anchor's class beside it; 3 for CIFAR-100 and CUB as published, 1 elsewhere. A
            batch of 128 then has 32 anchors. 0 takes ordinary batches.

    Raises:
        ValueError: an argument outside its range; in a step, a batch of one image; in the first one, a batch in which
            no two images share a class (unless ``partners`` is 0).

    Example:
        >>> import torch
        >>> from selfdistill import BAKE, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, BAKE(partners=1))
        >>> list(distiller(torch.randn(4, 8), torch.tensor([0, 0, 2, 2])).terms)
        ['ce', 'bake']

    Source: Self-distillation with Batch Knowledge Ensembling Improves ImageNet Classification (2021); numbers of its
    small-scale code, yxgeee/BAKE.
    """

    searched = (
        Range("weight", 0.1, 3, log=True),
        Range("temperature", 1, 6),
        Range("omega", 0.1, 0.9),
    )

    def __init__(self, weight: float = 1.0, temperature: float = 4.0, omega: float = 0.5, partners: int = 3):
        super().__init__()
        check_weight("BAKE", weight=weight)
        check_temperature("BAKE", temperature)
        if not 0 <= omega < 1:
            raise ValueError(f"BAKE: omega is the others' share in a target, in [0, 1), not {omega}")
        if not (isinstance(partners, int) and partners >= 0):
            raise ValueError(f"BAKE: partners is a number of images, at least 0, not {partners!r}")
        self.weight, self.temperature, self.omega, self.partners = weight, temperature, omega, partners
        self.needs = Needs(group=partners + 1)
        self._checked_groups = partners == 0

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"bake": Term(KL(Q || p), lambda * T**2)}``."""
        self._check_groups(step.batch.y)
        logits = step.outputs[0].logits
        with torch.no_grad():
            posteriors = F.softmax(at_least_float32(logits) / self.temperature, dim=1)
            targets = ensembled(posteriors, step.outputs[0].features, self.omega)
        return {"bake": Term(soft_kl(targets, logits, self.temperature), self.weight * self.temperature**2)}

    def _check_groups(self, y: Tensor) -> None:
        if len(y) < 2:
            raise ValueError(
                f"{self!r} learns from the other images of a batch, and this one has one image; use larger batches, or "
                "leave out the last partial one"
            )
        # The first batch alone: on a GPU this waits for the device.
        if self._checked_groups or y.dim() != 1 or torch.compiler.is_compiling():
            return
        if len(torch.unique(y)) == len(y):
            raise ValueError(
                f"{self!r} learns from images of one class, and no two of the {len(y)} in this batch share one; put "
                f"{self.partners + 1} of each class into a batch, or set partners=0 for ordinary batches"
            )
        self._checked_groups = True
