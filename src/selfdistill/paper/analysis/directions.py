"""The gradients of the forward and of the reverse divergence: Lemma 1, checked on a network, and Fig. 4."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from selfdistill.evaluation.gradient import scoring
from selfdistill.evaluation.images import Images, read_features
from selfdistill.losses import kl, symmetric_kl
from selfdistill.network import eager
from selfdistill.paper.analysis import masks
from selfdistill.paper.analysis.masks import PAPER, Conditions
from selfdistill.tap import Head

Direction = Literal["forward", "reverse"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")

Gradient = Sequence[Tensor]
"""One tensor per weight."""


def logit_gradients(a: Tensor, b: Tensor, temperature: float, direction: Direction) -> tuple[Tensor, Tensor]:
    """Return dD / da and dD / db of each row, p = softmax(a / T) and q = softmax(b / T).

        forward (Eq. 6):  dD / da = (p - q) / T
        reverse (Eq. 7):  dD / da = p (log(p / q) - KL(p || q)) / T

    and dD / db with p and q exchanged: Lemma 1 (Eq. 8 and 9) with the softmax's derivative put in.

    a and b are the logits under the masks u and v, (B, C).

    Returns:
        Two tensors (B, C), float64: of each row's own divergence, not of the batch's mean.

    Example:
        >>> on_a, on_b = logit_gradients(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.0]]), 3.0, "forward")
        >>> on_a  # (0.731 - 0.5) / 3
        tensor([[ 0.0770, -0.0770]], dtype=torch.float64)
    """

    def slope(log_p: Tensor, log_q: Tensor) -> Tensor:
        p, ratio = log_p.exp(), log_p - log_q
        if direction == "forward":
            return p - log_q.exp()
        return p * (ratio - (p * ratio).sum(dim=1, keepdim=True))

    log_p, log_q = ((z.double() / temperature).log_softmax(dim=1) for z in (a, b))
    return slope(log_p, log_q) / temperature, slope(log_q, log_p) / temperature


def lemma1_sum(p: Tensor, q: Tensor, direction: Direction) -> Tensor:
    """Return a scalar whose gradient is the right side of Lemma 1 as it is printed, with respect to any weights.

        forward (Eq. 8):  sum_i (1 - p_i / q_i) ∇q_i + (1 - q_i / p_i) ∇p_i
        reverse (Eq. 9):  sum_i log(p_i / q_i) ∇p_i + log(q_i / p_i) ∇q_i

    p and q are the posteriors under u and v, (B, C), all entries positive, with the graph that leads to the weights.

    Returns:
        The mean over the batch; only its gradient means anything.

    Example:
        >>> a, b = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
        >>> total = lemma1_sum((a / 3).softmax(1), (b / 3).softmax(1), "reverse")
        >>> torch.allclose(torch.autograd.grad(total, a)[0], logit_gradients(a, b, 3.0, "reverse")[0] / 4)
        True
    """
    p_, q_ = p.detach(), q.detach()
    if direction == "forward":
        return ((1 - p_ / q_) * q + (1 - q_ / p_) * p).sum() / len(p)
    return ((p_ / q_).log() * p + (q_ / p_).log() * q).sum() / len(p)


class Lemma1(Conditions, frozen=True, kw_only=True):
    """How far Lemma 1 is from automatic differentiation, as a share of the largest entry of the gradient; float64.

    Attributes:
        n: images.
        classes: C.
        forward_logits: Eq. 6 with respect to the logits, against `logit_gradients`.
        forward_weights: with respect to the head's weights, against Eq. 8 as printed.
        reverse_logits: Eq. 7 likewise.
        reverse_weights: against Eq. 9 as printed.
        both: the gradient of Eq. 3 with respect to the head's weights, against forward plus reverse.
    """

    n: int
    classes: int
    forward_logits: float
    forward_weights: float
    reverse_logits: float
    reverse_weights: float
    both: float


def check_lemma1(model: nn.Module, images: Images, conditions: Conditions = PAPER) -> Lemma1:
    """Compare Lemma 1 with the automatic gradients of Eq. 6 and 7, on a network's own features and head.

    Args:
        model: on the images' device; a copy of its head is made in float64.
        images: see `selfdistill.evaluation.images.Images`.
        conditions: the masks and T.

    Raises:
        ValueError: images or a head are missing, a logit is not finite, or no mask changes the logits.
    """
    reading = read_features(model, images.batches())
    n, temperature = len(reading.features), conditions.temperature
    with torch.inference_mode(False), torch.enable_grad():
        module = copy.deepcopy(reading.head.module).cpu().double().eval().requires_grad_()
        a, b = masks.classify_pair(Head(module), masks.drop_twice(reading.features.double(), conditions))
        if torch.equal(a, b):
            raise ValueError("the logits are the same under any mask (a head of zeros?), so that no gradient is left")
        under_u, under_v = ((z / temperature).softmax(dim=1) for z in (a, b))
        inputs = [a, b, *module.parameters()]

        def gradient(value: Tensor) -> Gradient:
            return torch.autograd.grad(value, inputs, retain_graph=True)

        automatic = {way: gradient(_divergence(a, b, temperature, way)) for way in (*DIRECTIONS, "both")}
        printed = {way: gradient(lemma1_sum(under_u, under_v, way)) for way in DIRECTIONS}
        closed = {way: logit_gradients(a.detach(), b.detach(), temperature, way) for way in DIRECTIONS}
    summed = [forward + reverse for forward, reverse in zip(automatic["forward"], automatic["reverse"], strict=True)]
    return Lemma1(
        **msgspec.structs.asdict(conditions),
        n=n,
        classes=a.shape[1],
        forward_logits=_distance(automatic["forward"][:2], [slope / n for slope in closed["forward"]]),
        forward_weights=_distance(automatic["forward"][2:], printed["forward"][2:]),
        reverse_logits=_distance(automatic["reverse"][:2], [slope / n for slope in closed["reverse"]]),
        reverse_weights=_distance(automatic["reverse"][2:], printed["reverse"][2:]),
        both=_distance(automatic["both"][2:], summed[2:]),
    )


def _divergence(a: Tensor, b: Tensor, temperature: float, direction: str) -> Tensor:
    """Return Eq. 3, 6 or 7 by detaching: `symmetric_kl` would not do, its gradient is Lemma 1 itself."""
    fixed_a, fixed_b = a.detach(), b.detach()
    if direction == "forward":
        return kl(fixed_a, b, temperature) + kl(fixed_b, a, temperature)
    if direction == "reverse":
        return kl(a, fixed_b, temperature) + kl(b, fixed_a, temperature)
    return kl(a, b, temperature) + kl(b, a, temperature)


def _distance(expected: Gradient, found: Gradient) -> float:
    apart = max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True))
    return apart / max(float(one.abs().max()) for one in expected)


def weight_gradients(
    a: Tensor, b: Tensor, weights: Sequence[Tensor], temperature: float = 3.0
) -> tuple[Gradient, Gradient]:
    """Return ∇θ of Eq. 6 and of Eq. 7 at the same logits, and so under the same two masks; their sum is that of Eq. 3.

    Without the training loss's factor lambda * T**2, which is the same in both; the divergences sum over the classes
    and average over the batch.

    a and b are the logits under u and v, (B, C), with the graph that leads to the weights θ; a weight that they do not
    depend on has a gradient of zeros.

    Returns:
        (forward, reverse), each one tensor per weight. The weights' `.grad` is left alone.

    Example:
        >>> head, features = nn.Linear(8, 3), torch.randn(2, 4, 8)
        >>> forward, reverse = weight_gradients(head(features[0]), head(features[1]), [head.weight])
        >>> forward[0].shape, torch.equal(forward[0], reverse[0])
        (torch.Size([3, 8]), False)
    """
    forward, reverse = (
        torch.autograd.grad(symmetric_kl(a, b, temperature, way), weights, retain_graph=True, materialize_grads=True)
        for way in DIRECTIONS
    )
    return forward, reverse


class Comparison(msgspec.Struct, frozen=True):
    """How the two gradients compare, all weights taken as one vector.

    Attributes:
        weights: how many numbers that vector has.
        cosine: cosine similarity, in [-1, 1]; None if one of the two is 0.
        forward: L1 norm of the gradient of Eq. 6.
        reverse: of Eq. 7.
        both: of Eq. 3, their sum.
    """

    weights: int
    cosine: float | None
    forward: float
    reverse: float
    both: float


def compare_gradients(forward: Gradient, reverse: Gradient) -> Comparison:
    """Return cosine and L1 norms of two gradients, summed in float64.

    Example:
        >>> compare_gradients([torch.tensor([3.0, 0.0])], [torch.tensor([3.0, -4.0])])
        Comparison(weights=2, cosine=0.6, forward=3.0, reverse=7.0, both=10.0)
    """
    sums = torch.zeros(6, dtype=torch.float64)
    for one, other in zip(forward, reverse, strict=True):
        f, r = one.double().flatten(), other.double().flatten()
        parts = (f @ r, f @ f, r @ r, f.abs().sum(), r.abs().sum(), (f + r).abs().sum())
        sums += torch.stack(parts).cpu()
    dot, ff, rr, *norms = sums.tolist()
    cosine = dot / (ff * rr) ** 0.5 if ff * rr > 0 else None
    return Comparison(sum(one.numel() for one in forward), cosine, *norms)


class Gradients(Conditions, frozen=True, kw_only=True):
    """One epoch of Fig. 4: means over batches, a gradient being that of one batch.

    The paper does not say which weights, which batch size or which mode its figure has; the norms fall as batches grow.

    Attributes:
        n: images, in whole batches.
        batch_size: images a gradient is averaged over.
        head: with respect to the head's weights alone.
        whole: with respect to all weights, the head's included.
    """

    n: int
    batch_size: int
    head: Comparison
    whole: Comparison


def measure_gradients(model: nn.Module, images: Images, conditions: Conditions = PAPER) -> Gradients:
    """Measure the two gradients batch by batch: one forward pass and two backward, in evaluation mode and float32.

    Args:
        model: on the images' device.
        images: `images.batch_size` is the batch's, 128 in the paper's trainings. A last smaller batch is left out.
        conditions: the masks and T.

    Raises:
        ValueError: a head or trainable weights are missing, the model is of half precision, or a logit is not finite.
    """
    size = min(images.batch_size, len(images))
    images = images.part(0, len(images) // size * size)
    of_head, of_all = [], []
    with masks.tap_head(model, images) as tap:
        weights = masks.trainable_weights(eager(model))
        in_head = {id(weight) for weight in masks.trainable_weights(tap.head.module)}
        at = [position for position, weight in enumerate(weights) if id(weight) in in_head]
        for batch, (x, _) in enumerate(images.batches()):
            with scoring(model, x), torch.enable_grad():
                a, b = masks.forward_pair(model, tap, x, conditions, first=batch * size)
                forward, reverse = weight_gradients(a, b, weights, conditions.temperature)
            of_head.append(compare_gradients([forward[i] for i in at], [reverse[i] for i in at]))
            of_all.append(compare_gradients(forward, reverse))
    return Gradients(
        **msgspec.structs.asdict(conditions),
        n=len(images),
        batch_size=size,
        head=_mean(of_head),
        whole=_mean(of_all),
    )


def _mean(batches: Sequence[Comparison]) -> Comparison:
    cosines = [one.cosine for one in batches if one.cosine is not None]
    norms = (sum(getattr(one, name) for one in batches) / len(batches) for name in ("forward", "reverse", "both"))
    return Comparison(batches[0].weights, sum(cosines) / len(cosines) if cosines else None, *norms)
