"""Fig. 4: do the forward and the reverse divergence pull the weights the same way, and which pulls harder?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.evaluate.gradient import scoring
from selfdistill.evaluate.images import Images, Tick
from selfdistill.losses import symmetric_kl
from selfdistill.network import eager
from selfdistill.paper.analysis.dropped import check_temperature, chosen, learned, pass_twice_dropped, tapped
from selfdistill.progress import no_progress

Gradient = tuple[Tensor, ...]
"""One tensor a weight."""


def direction_gradients(
    a: Tensor, b: Tensor, weights: Sequence[Tensor], temperature: float = 3.0
) -> tuple[Gradient, Gradient]:
    """∇θ of Eq. 6 and of Eq. 7 at the same logits, and so under the same two masks; their sum is that of Eq. 3.

    Without the training loss's factor lambda * T**2, which is the same in both; the divergences sum over the classes
    and average over the batch.

    Args:
        a: logits under the mask u, (B, C), with the graph that leads to the weights.
        b: logits under the mask v, likewise.
        weights: θ; one that the logits do not depend on has a gradient of zeros.
        temperature: T > 0.

    Returns:
        (forward, reverse), each one tensor a weight. The weights' `.grad` is left alone.

    Raises:
        ValueError: unequal shapes, or T is not positive.

    Example:
        >>> head, features = nn.Linear(8, 3), torch.randn(2, 4, 8)
        >>> forward, reverse = direction_gradients(head(features[0]), head(features[1]), [head.weight])
        >>> forward[0].shape, torch.equal(forward[0], reverse[0])
        (torch.Size([3, 8]), False)
    """
    forward, reverse = (
        torch.autograd.grad(symmetric_kl(a, b, temperature, way), weights, retain_graph=True, materialize_grads=True)
        for way in ("forward", "reverse")
    )
    return forward, reverse


@dataclass(frozen=True)
class Directions:
    """How the two gradients compare, all weights taken as one vector.

    Attributes:
        weights: how many numbers that vector has.
        cosine: cosine similarity, in [-1, 1]; None where one of the two is 0.
        forward: L1 norm of the gradient of Eq. 6.
        reverse: of Eq. 7.
        both: of Eq. 3, their sum.
    """

    weights: int
    cosine: float | None
    forward: float
    reverse: float
    both: float


def compare(forward: Sequence[Tensor], reverse: Sequence[Tensor]) -> Directions:
    """Cosine and L1 norms of two gradients, summed in float64.

    Example:
        >>> compare([torch.tensor([3.0, 0.0])], [torch.tensor([3.0, -4.0])])
        Directions(weights=2, cosine=0.6, forward=3.0, reverse=7.0, both=10.0)
    """
    sums = torch.zeros(6, dtype=torch.float64)
    for one, other in zip(forward, reverse, strict=True):
        f, r = one.double().flatten(), other.double().flatten()
        parts = (f @ r, f @ f, r @ r, f.abs().sum(), r.abs().sum(), (f + r).abs().sum())
        sums += torch.stack(parts).cpu()
    dot, ff, rr, *norms = sums.tolist()
    cosine = dot / (ff * rr) ** 0.5 if ff * rr > 0 else None
    return Directions(sum(one.numel() for one in forward), cosine, *norms)


@dataclass(frozen=True)
class Gradients:
    """One epoch of Fig. 4: means over batches, a gradient being that of one batch.

    The paper does not say which weights, which batch size or which mode its figure has; the norms fall as batches grow.

    Attributes:
        n: images, in whole batches.
        batch_size: images a gradient is averaged over.
        p: probability that a feature is dropped.
        temperature: T.
        seed: of the masks.
        head: with respect to the head's weights alone.
        whole: with respect to all weights, the head's included.
    """

    n: int
    batch_size: int
    p: float
    temperature: float
    seed: int
    head: Directions
    whole: Directions

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gradients:
        """The inverse of `to_dict`, exactly."""
        parts = {name: Directions(**values[name]) for name in ("head", "whole")}
        return cls(**(dict(values) | parts))


def measure_gradients(
    model: nn.Module,
    images: Images,
    *,
    head: str | None = None,
    max_images: int = 1024,
    p: float = 0.5,
    temperature: float = 3.0,
    seed: int = 0,
    tick: Tick = no_progress,
) -> Gradients:
    """The two gradients on batch after batch: one pass forward and two backward, in evaluation mode and float32.

    Args:
        model: on the images' device; its weights, statistics, modes, gradients and the random state stay as they are.
        images: `images.batch_size` is the batch's, 128 in the paper's trainings. A last smaller batch is left out.
        head: the head's dotted name; None: found.
        max_images: at most so many, evenly spaced, >= 1.
        p: probability that a feature is dropped, in (0, 1).
        temperature: T > 0.
        seed: of the masks, >= 0.
        tick: told of the images done.

    Raises:
        ValueError: an argument is out of range, there is no image, no head or nothing to train, the model is of half
            precision, or a logit is not finite.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=2, test_per_class=3)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> found = measure_gradients(model, Images(data.test, data, "cpu", batch_size=8))
        >>> found.n, found.head.weights, found.whole.weights
        (24, 170, 49338)
    """
    check_temperature(temperature)
    images = chosen(images, max_images)
    size = min(images.batch_size, len(images))
    images = images.part(0, len(images) // size * size)
    on_head, on_all = [], []
    with tapped(model, images, head) as tap:
        weights = learned(eager(model), "model")
        of_head = {id(weight) for weight in learned(tap.head.module, "head")}
        for batch, (x, _) in enumerate(images.batches()):
            with scoring(model, x), torch.enable_grad():
                a, b = pass_twice_dropped(model, tap, x, p=p, seed=seed, first=batch * size)
                forward, reverse = direction_gradients(a, b, weights, temperature)
            inside = [position for position, weight in enumerate(weights) if id(weight) in of_head]
            on_head.append(compare([forward[i] for i in inside], [reverse[i] for i in inside]))
            on_all.append(compare(forward, reverse))
            tick(len(x))
    return Gradients(len(images), size, p, temperature, seed, _mean(on_head), _mean(on_all))


def _mean(batches: Sequence[Directions]) -> Directions:
    cosines = [one.cosine for one in batches if one.cosine is not None]
    count = len(batches)
    return Directions(
        weights=batches[0].weights,
        cosine=sum(cosines) / len(cosines) if cosines else None,
        forward=sum(one.forward for one in batches) / count,
        reverse=sum(one.reverse for one in batches) / count,
        both=sum(one.both for one in batches) / count,
    )
