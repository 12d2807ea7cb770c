"""SD-Dropout, the paper's own method: two dropped copies of the features shall say the same."""

import math

import torch.nn.functional as F
from torch import Tensor

from selfdistill.losses import Direction, symmetric_kl
from selfdistill.method import DropoutAt, Method, Needs, Step, Term


class SDDropout(Method):
    r"""Self-knowledge distillation via dropout.

    .. math::
        L_{Total} = L_{CE}(x, y) + \lambda_{SDD} \, T^2 \left[ D_{KL}(p^{\mathbf{u}} \| p^{\mathbf{v}})
        + D_{KL}(p^{\mathbf{v}} \| p^{\mathbf{u}}) \right] \qquad \text{(Eq. 3, 4)}

    where :math:`p^{\mathbf{u}} = \mathrm{softmax}(h(\mathbf{u} \odot f(x)) / T)` and :math:`\mathbf{u}, \mathbf{v}` are
    independent dropout masks (Eq. 2). Cross-entropy sees the clean logits only; the backbone runs once, the head once
    more on 2B rows. No extra parameters, nothing left at inference.

    The term is ``"sdd"``: the bracket, unweighted and without :math:`T^2`.

    Args:
        p: the paper's :math:`\beta`: probability in [0, 1) that a feature is *dropped*; survivors are scaled by
            1 / (1 - p). At 0 the term is 0.
        weight: :math:`\lambda_{SDD} \geq 0`. 1.0 alone and with label smoothing, 0.1 in the paper's sums with other
            methods. Where the plain network is *not* over-confident 1.0 makes it under-confident: try 0.1.
        temperature: :math:`T > 0`; the paper's runs use 3.
        direction: ``"both"`` (Eq. 3), ``"forward"`` (Eq. 6: the target side detached) or ``"reverse"`` (Eq. 7);
            Table 9.
        at: None drops the features before the head. A module's dotted name drops that module's output instead, and the
            layers after it run on clean, u and v together (Table 12; there the paper does not say whether values or
            channels were dropped: values here).
        warmup: share of the training in [0, 1] over which the weight rises linearly from 0; 0 is the paper's constant.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> import torch
        >>> from selfdistill import SDDropout, SelfDistiller
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        >>> distiller = SelfDistiller(model, SDDropout(weight=0.1))
        >>> loss, logits, terms = distiller(torch.randn(4, 8), torch.tensor([0, 1, 2, 0]))
        >>> list(terms)
        ['ce', 'sdd']
        >>> bool(torch.isclose(loss, terms["ce"] + 0.1 * 3**2 * terms["sdd"]))
        True

    Source: Self-Knowledge Distillation via Dropout, section 3 and Algorithm 1; defaults as run for the paper's tables.
    """

    drops_features = True

    def __init__(
        self,
        p: float = 0.5,
        weight: float = 1.0,
        temperature: float = 3.0,
        direction: Direction = "both",
        at: str | None = None,
        warmup: float = 0.0,
    ):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"SDDropout: p is the probability to drop a feature, in [0, 1), not {p}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"SDDropout: weight must be at least 0 and finite, not {weight}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"SDDropout: temperature must be positive and finite, not {temperature}")
        if direction not in ("both", "forward", "reverse"):
            raise ValueError(f"SDDropout: direction must be 'both', 'forward' or 'reverse', not {direction!r}")
        if not 0 <= warmup <= 1:
            raise ValueError(f"SDDropout: warmup is a share of the training, in [0, 1], not {warmup}")
        self.p, self.weight, self.temperature = p, weight, temperature
        self.direction: Direction = direction
        self.at, self.warmup = at, warmup
        self.needs = Needs(dropout_at=None if at is None else DropoutAt(at, p))

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"sdd": Term(L_SDD, lambda * T**2)}``."""
        u, v = self._dropped_logits(step)
        divergence = symmetric_kl(u, v, self.temperature, self.direction)
        return {"sdd": Term(divergence, self._current_weight(step.progress) * self.temperature**2)}

    def _dropped_logits(self, step: Step) -> tuple[Tensor, Tensor]:
        if self.at is not None:
            masked_u, masked_v = step.dropped
            return masked_u.logits, masked_v.logits
        clean = step.outputs[0]
        # One head call on 2B rows: half the kernel launches of two calls, and independent masks all the same.
        twice = clean.features.repeat(2, *[1] * (clean.features.dim() - 1))
        u, v = clean.head(F.dropout(twice, self.p)).chunk(2)
        return u, v

    def _current_weight(self, progress: Tensor) -> float | Tensor:
        if self.warmup == 0:
            return self.weight
        return self.weight * (progress / self.warmup).clamp(max=1)
