"""SD-Dropout, the paper's own method: make the posteriors under two dropout masks agree."""

import math
from functools import reduce
from operator import add
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.losses import Direction, kl, symmetric_kl, symmetric_kl_of_samples
from selfdistill.method import DropoutAt, Method, Needs, Range, Step, Term
from selfdistill.methods.many_classes import divergence_of_samples
from selfdistill.methods.ranges import check_drop_probability, check_temperature, check_weight


class AutoWeight(nn.Module):
    r"""A weight that follows how over-confident the network is on held-out images.

    .. math::
        \lambda \leftarrow \lambda \, e^{30 \, s \, g}, \qquad \lambda \in [0.001, 1]

    after a share s of the training, where the gap g is the mean confidence minus the accuracy on images that are not
    trained on. It begins at 0.1; above 1, the paper's weight, a network may learn nothing any more. :attr:`found` is
    the geometric mean of the last values, for a second training on all images:
    :math:`a \leftarrow a + \frac{5}{t + 4} (\ln \lambda - a)` at the t-th update.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(0.1))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("updates", torch.zeros(()))
        self.weight: Tensor
        self.average: Tensor
        self.updates: Tensor
        self.fixed = False

    def follow(self, gap: float, share: float) -> None:
        """Update the weight, unless it is fixed."""
        if self.fixed:
            return
        self.weight.mul_(math.exp(30 * share * gap)).clamp_(1e-3, 1.0)
        self.updates.add_(1)
        self.average.lerp_(self.weight.log(), 5 / (self.updates + 4))

    def fix(self, weight: float) -> None:
        """Keep a weight that was found."""
        self.weight.fill_(weight)
        self.fixed = True

    @property
    def found(self) -> float:
        """The weight for the next training."""
        return float(self.weight if self.fixed or not self.updates else self.average.exp())


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
        weight: :math:`\lambda_{SDD} \geq 0`. 1.0 alone and, by our guess, with label smoothing; 0.1 in the paper's sums
            with other methods. Where the plain network is *not* over-confident 1.0 makes it under-confident.
            ``"auto"`` finds one: :func:`selfdistill.train` trains twice, first with a fifth of the images held out and
            a weight that follows the gap on them (:class:`AutoWeight`), then on all images with the weight that was
            found. In a loop of your own, tell :meth:`SelfDistiller.set_gap` after each look at held-out images.
        temperature: :math:`T > 0`; the paper's runs use 3.
        direction: ``"both"`` (Eq. 3), ``"forward"`` (Eq. 6: the target side detached) or ``"reverse"`` (Eq. 7);
            Table 9.
        at: None drops the features before the head. A module's dotted name drops that module's output instead, and the
            layers after it run on clean, u and v (Table 12).
        channels: with ``at``, drop whole channels of a map instead of single values, as the authors' code of that time
            did; the paper does not say.
        passes: with ``at``, how the later layers see clean, u and v. ``"joint"``: as one batch, whose statistics
            BatchNorm takes. ``"separate"``: one after the other, as the authors' code of that time did; cross-entropy
            is then of a plain pass, and BatchNorm's running statistics are updated by each of the three.
        one_sided: one mask only; the dropped posterior teaches the clean one, :math:`D_{KL}(p^{\mathbf{u}} \| p)`.
            ``direction`` then holds the teacher ("forward"), the clean side ("reverse") or neither ("both"). A
            variant in the authors' code, in none of the paper's tables.
        pairing: which posteriors are compared in a sum with DDGSD or DML. ``"paper"``, as in the paper's Table 1: one
            mask for each view of DDGSD, so that the two views are compared; one mask on the student's features and one
            on the peer's, *both* classified by the student's head. ``"within"``, the plain reading of Eq. 3: two masks
            on each view and each network, by its own head, averaged. Alone the two are the same.
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

    Source: Self-Knowledge Distillation via Dropout, section 3 and Algorithm 1; defaults as run for its tables. The
    paper prints neither T nor the weight of the sums.
    """

    searched = (
        Range("weight", 0.01, 3, log=True),
        Range("p", 0.1, 0.7),
        Range("temperature", 1, 6),
        Range("warmup", 0, 0.5),
    )
    drops_features = True

    def __init__(
        self,
        p: float = 0.5,
        weight: float | Literal["auto"] = 1.0,
        temperature: float = 3.0,
        direction: Direction = "both",
        at: str | None = None,
        channels: bool = False,
        passes: Literal["joint", "separate"] = "joint",
        one_sided: bool = False,
        pairing: Literal["paper", "within"] = "paper",
        warmup: float = 0.0,
    ):
        super().__init__()
        check_drop_probability("SDDropout", p)
        if isinstance(weight, str) and weight != "auto":
            raise ValueError(f"SDDropout: weight must be a number or 'auto', not {weight!r}")
        self.auto = AutoWeight() if isinstance(weight, str) else None
        if not isinstance(weight, str):
            check_weight("SDDropout", weight=weight)
        check_temperature("SDDropout", temperature)
        if direction not in ("both", "forward", "reverse"):
            raise ValueError(f"SDDropout: direction must be 'both', 'forward' or 'reverse', not {direction!r}")
        if pairing not in ("paper", "within"):
            raise ValueError(f"SDDropout: pairing must be 'paper' or 'within', not {pairing!r}")
        if passes not in ("joint", "separate"):
            raise ValueError(f"SDDropout: passes must be 'joint' or 'separate', not {passes!r}")
        if passes == "separate" and at is None:
            raise ValueError("SDDropout: passes='separate' applies to the layers behind a module; name it with at=")
        if channels and at is None:
            raise ValueError("SDDropout: channels=True drops channels of a map; name the module that gives it with at=")
        if not 0 <= warmup <= 1:
            raise ValueError(f"SDDropout: warmup is a share of the training, in [0, 1], not {warmup}")
        self.p, self.weight, self.temperature = p, weight, temperature
        self.direction: Direction = direction
        self.at, self.channels, self.one_sided, self.warmup = at, channels, one_sided, warmup
        self.pairing: Literal["paper", "within"] = pairing
        self.passes: Literal["joint", "separate"] = passes
        place = None if at is None else DropoutAt(at, p, channels, passes)
        self.needs = Needs(dropout_at=place, progress=warmup > 0)

    def follow(self, gap: float, share: float) -> None:
        """With ``weight="auto"``, follow the gap."""
        if self.auto is not None:
            self.auto.follow(gap, share)

    def terms(self, step: Step) -> dict[str, Term]:
        """Return ``{"sdd": Term(L_SDD, lambda * T**2)}``."""
        divergences = self._divergences(step)
        mean = reduce(add, divergences) / len(divergences) if len(divergences) > 1 else divergences[0]
        return {"sdd": Term(mean, self._current_weight(step.progress) * self.temperature**2)}

    def _divergences(self, step: Step) -> list[Tensor]:
        """Return the divergence of each pair of posteriors that are pulled together."""
        clean = step.outputs[0]
        if self.at is not None:
            masked_u, masked_v = step.dropped
            return [self._divergence(masked_u.logits, clean.logits if self.one_sided else masked_v.logits)]
        if self.one_sided:
            return [self._divergence(clean.head(F.dropout(clean.features, self.p)), clean.logits)]
        others = [*step.outputs[1:], *step.peers]
        if others and self.pairing == "paper":
            widths = [tuple(one.features.shape[1:]) for one in (others[0], clean)]
            if widths[0] != widths[1]:
                raise ValueError(
                    f"{self!r} classifies the peer's features by the model's head, but the peer has features "
                    f"{widths[0]} and the model {widths[1]}; set pairing='within'"
                )
            dropped = F.dropout(torch.cat([clean.features, others[0].features]), self.p)
            return [divergence_of_samples(clean.head, dropped, self._divergence_of_samples)]
        # One head call on 2B rows: half the kernel launches of two calls, and independent masks all the same.
        twice = [one.features.repeat(2, *[1] * (one.features.dim() - 1)) for one in (clean, *others)]
        return [
            divergence_of_samples(one.head, F.dropout(features, self.p), self._divergence_of_samples)
            for one, features in zip((clean, *others), twice, strict=True)
        ]

    def _divergence_of_samples(self, samples: Tensor) -> Tensor:
        return symmetric_kl_of_samples(samples, self.temperature, self.direction)

    def _divergence(self, a: Tensor, b: Tensor) -> Tensor:
        if not self.one_sided:
            return symmetric_kl(a, b, self.temperature, self.direction)
        teacher = a.detach() if self.direction == "forward" else a
        student = b.detach() if self.direction == "reverse" else b
        return kl(teacher, student, self.temperature)

    def _current_weight(self, progress: Tensor) -> float | Tensor:
        weight = self.weight if self.auto is None else self.auto.weight
        assert not isinstance(weight, str)
        return weight if self.warmup == 0 else weight * (progress / self.warmup).clamp(max=1)
