"""Lemma 1: the gradients of the forward and the reverse divergence, in closed form, and checked on a network."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.evaluate.agreement import read_features
from selfdistill.evaluate.images import Images
from selfdistill.losses import Direction, kl
from selfdistill.paper.analysis.dropped import check_temperature, chosen, dropped_pair, pair_logits
from selfdistill.tap import Head


def lemma1(a: Tensor, b: Tensor, temperature: float = 3.0, direction: Direction = "both") -> tuple[Tensor, Tensor]:
    """dD / da and dD / db of each row, p = softmax(a / T) and q = softmax(b / T).

        forward (Eq. 6):  dD / da = (p - q) / T
        reverse (Eq. 7):  dD / da = p (log(p / q) - KL(p || q)) / T

    and dD / db with p and q exchanged: Eq. 8 and 9 with the softmax's derivative put in. "both" (Eq. 3) is their sum.

    Args:
        a: logits under the mask u, (B, C).
        b: logits under the mask v, (B, C).
        temperature: T > 0.
        direction: "forward", "reverse" or "both".

    Returns:
        Two tensors (B, C), float64: of each row's own divergence, not of the batch's mean.

    Raises:
        ValueError: an unknown direction, unequal shapes, or T is not positive.

    Example:
        >>> on_a, on_b = lemma1(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.0]]), direction="forward")
        >>> on_a  # (0.731 - 0.5) / 3
        tensor([[ 0.0770, -0.0770]], dtype=torch.float64)
    """
    if direction not in ("both", "forward", "reverse"):
        raise ValueError(f"direction: {direction!r}, expected 'both', 'forward' or 'reverse'")
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"a, b: shapes {tuple(a.shape)} and {tuple(b.shape)}, expected one shape (B, C)")
    check_temperature(temperature)
    log_p, log_q = ((z.double() / temperature).log_softmax(dim=1) for z in (a, b))
    return _slope(log_p, log_q, direction) / temperature, _slope(log_q, log_p, direction) / temperature


def _slope(log_p: Tensor, log_q: Tensor, direction: Direction) -> Tensor:
    p, ratio = log_p.exp(), log_p - log_q
    forward = p - log_q.exp()
    reverse = p * (ratio - (p * ratio).sum(dim=1, keepdim=True))
    return {"forward": forward, "reverse": reverse, "both": forward + reverse}[direction]


def lemma1_sum(p: Tensor, q: Tensor, direction: Direction) -> Tensor:
    """A scalar whose gradient is the right side of Lemma 1 as it is printed, with respect to any weights.

        forward (Eq. 8):  sum_i (1 - p_i / q_i) ∇q_i + (1 - q_i / p_i) ∇p_i
        reverse (Eq. 9):  sum_i log(p_i / q_i) ∇p_i + log(q_i / p_i) ∇q_i

    Args:
        p: posterior under u, (B, C), all entries positive, with the graph that leads to the weights.
        q: posterior under v, likewise.
        direction: "forward", "reverse" or "both".

    Returns:
        The mean over the batch; only its gradient means anything.

    Example:
        >>> a, b = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
        >>> total = lemma1_sum((a / 3).softmax(1), (b / 3).softmax(1), "reverse")
        >>> torch.allclose(torch.autograd.grad(total, a)[0], lemma1(a, b, 3.0, "reverse")[0] / 4)
        True
    """
    p_, q_ = p.detach(), q.detach()
    forward = (1 - p_ / q_) * q + (1 - q_ / p_) * p
    reverse = (p_ / q_).log() * p + (q_ / p_).log() * q
    parts = {"forward": forward, "reverse": reverse, "both": forward + reverse}
    return parts[direction].sum() / len(p)


@dataclass(frozen=True)
class Lemma1:
    """How far Lemma 1 is from automatic differentiation, as a share of the largest entry of the gradient; float64.

    Attributes:
        n: images.
        classes: C.
        p: probability that a feature is dropped.
        temperature: T.
        seed: of the masks.
        forward_logits: Eq. 6 with respect to the logits, against `lemma1`.
        forward_weights: with respect to the head's weights, against Eq. 8 as printed.
        reverse_logits: Eq. 7 likewise.
        reverse_weights: against Eq. 9 as printed.
        both: the gradient of Eq. 3 with respect to the head's weights, against forward plus reverse.
    """

    n: int
    classes: int
    p: float
    temperature: float
    seed: int
    forward_logits: float
    forward_weights: float
    reverse_logits: float
    reverse_weights: float
    both: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Lemma1:
        """The inverse of `to_dict`, exactly."""
        return cls(**values)


def check_lemma1(
    model: nn.Module,
    images: Images,
    *,
    head: str | None = None,
    max_images: int = 256,
    p: float = 0.5,
    temperature: float = 3.0,
    seed: int = 0,
) -> Lemma1:
    """Compare Lemma 1 with the automatic gradients of Eq. 6 and 7, on a network's own features and head.

    Args:
        model: on the images' device; left as it was found. A copy of its head is made in float64.
        images: see `selfdistill.evaluate.images.Images`.
        head: the head's dotted name; None: found.
        max_images: at most so many, evenly spaced, >= 1.
        p: probability that a feature is dropped, in (0, 1).
        temperature: T > 0.
        seed: of the masks, >= 0.

    Raises:
        ValueError: an argument is out of range, there is no image or no head, a logit is not finite, or no mask
            changes the logits.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=2, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> check_lemma1(model, Images(data.test, data, "cpu")).reverse_weights < 1e-12
        True
    """
    check_temperature(temperature)
    reading = read_features(model, chosen(images, max_images).batches(), head=head)
    n = len(reading.features)
    with torch.inference_mode(False), torch.enable_grad():
        module = copy.deepcopy(reading.head.module).cpu().double().eval().requires_grad_()
        a, b = pair_logits(Head(module), dropped_pair(reading.features.double(), p=p, seed=seed))
        if torch.equal(a, b):
            raise ValueError("model: its logits are the same under any mask (a head of zeros?), so no gradient is left")
        under_u, under_v = ((z / temperature).softmax(dim=1) for z in (a, b))
        inputs = [a, b, *module.parameters()]

        def gradient(value: Tensor) -> Sequence[Tensor]:
            return torch.autograd.grad(value, inputs, retain_graph=True)

        automatic = {way: gradient(_divergence(a, b, temperature, way)) for way in _WAYS}
        printed = {way: gradient(lemma1_sum(under_u, under_v, way)) for way in _WAYS}
        closed = {way: lemma1(a.detach(), b.detach(), temperature, way) for way in _WAYS}
    parts = [forward + reverse for forward, reverse in zip(automatic["forward"], automatic["reverse"], strict=True)]
    return Lemma1(
        n=n,
        classes=a.shape[1],
        p=p,
        temperature=temperature,
        seed=seed,
        forward_logits=_distance(automatic["forward"][:2], [slope / n for slope in closed["forward"]]),
        forward_weights=_distance(automatic["forward"][2:], printed["forward"][2:]),
        reverse_logits=_distance(automatic["reverse"][:2], [slope / n for slope in closed["reverse"]]),
        reverse_weights=_distance(automatic["reverse"][2:], printed["reverse"][2:]),
        both=_distance(automatic["both"][2:], parts[2:]),
    )


_WAYS: tuple[Direction, ...] = ("forward", "reverse", "both")


def _divergence(a: Tensor, b: Tensor, temperature: float, direction: Direction) -> Tensor:
    """Eq. 3, 6 and 7 by detaching: `symmetric_kl` would not do, its gradient is Lemma 1 itself."""
    fixed_a, fixed_b = a.detach(), b.detach()
    if direction == "forward":
        return kl(fixed_a, b, temperature) + kl(fixed_b, a, temperature)
    if direction == "reverse":
        return kl(a, fixed_b, temperature) + kl(b, fixed_a, temperature)
    return kl(a, b, temperature) + kl(b, a, temperature)


def _distance(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    apart = max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True))
    return apart / max(float(one.abs().max()) for one in expected)
