"""What Assumptions 1, 2 and Proposition 1 compare: p_i, q_i and the L1 norms of their gradients, for every class i."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn

from selfdistill.evaluate.agreement import read_features
from selfdistill.evaluate.gradient import scoring
from selfdistill.evaluate.images import Images, Tick
from selfdistill.network import eager
from selfdistill.paper.analysis.dropped import (
    check_temperature,
    chosen,
    dropped_pair,
    learned,
    pair_logits,
    pass_twice_dropped,
    tapped,
)
from selfdistill.paper.analysis.norms import linear_reach, log_gradient_norms, reach
from selfdistill.progress import no_progress

Weights = Literal["head", "all"]
"""What a gradient is taken with respect to: the head's weights, or all."""


@dataclass(frozen=True, eq=False)
class Components:
    """N images under two masks each, class by class. Natural logarithms, (N, C), float64, on the CPU.

    Attributes:
        log_p: log posterior under the mask u, at T.
        log_q: under v.
        log_dp: log L1 norm of the gradient of p_i.
        log_dq: of q_i.
        weights: what the gradients are taken with respect to.
        p: probability that a feature is dropped.
        temperature: T.
        seed: of the masks.
    """

    log_p: Tensor
    log_q: Tensor
    log_dp: Tensor
    log_dq: Tensor
    weights: Weights
    p: float
    temperature: float
    seed: int


def measure_components(
    model: nn.Module,
    images: Images,
    *,
    weights: Weights = "head",
    head: str | None = None,
    max_images: int | None = None,
    p: float = 0.5,
    temperature: float = 3.0,
    seed: int = 0,
    tick: Tick = no_progress,
) -> Components:
    """Both posteriors of each image and the norms of their gradients, in evaluation mode.

    With respect to a linear head's weights the norms have a closed form. With respect to all weights, or those of a
    head of several layers, each image passes backward once for each class and mask: on one core a ResNet-18 of CIFAR
    with 100 classes takes about 20 seconds an image.

    Args:
        model: on the images' device; its weights, statistics, modes, gradients and the random state stay as they are.
        images: see `selfdistill.evaluate.images.Images`.
        weights: "head" or "all".
        head: the head's dotted name; None: found.
        max_images: at most so many, evenly spaced, >= 1; None: 10,000 for the head, 32 for all weights.
        p: probability that a feature is dropped, in (0, 1).
        temperature: T > 0.
        seed: of the masks, >= 0; an image has the same masks whichever weights are asked for.
        tick: told of the images done.

    Raises:
        ValueError: an argument is out of range, there is no image, no head or nothing to train, the model is of half
            precision, a logit is not finite, or a mask leaves an image no gradient.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=2, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> measure_components(model, Images(data.test, data, "cpu")).log_dp.shape
        torch.Size([20, 10])
    """
    check_temperature(temperature)
    if weights not in ("head", "all"):
        raise ValueError(f"weights: {weights!r}, expected 'head' or 'all'")
    if max_images is None:
        max_images = 10_000 if weights == "head" else 32
    images = chosen(images, max_images)
    measured = _of_head if weights == "head" else _of_all
    log_posteriors, log_norms = [], []
    for log_posterior, reaches in measured(model, images, head, temperature, p, seed):
        log_posteriors.append(log_posterior)
        log_norms.append(log_gradient_norms(log_posterior, reaches, temperature))
        tick(log_posterior.shape[1])
    log_p, log_q = torch.cat(log_posteriors, dim=1)
    log_dp, log_dq = torch.cat(log_norms, dim=1)
    lost = int((torch.isneginf(log_dp) | torch.isneginf(log_dq)).any(dim=1).sum())
    if lost:
        raise ValueError(
            f"images: a mask leaves {lost} of {len(log_p)} without a gradient (every feature dropped, and no bias); "
            "lower p="
        )
    return Components(log_p, log_q, log_dp, log_dq, weights, p, temperature, seed)


Parts = Iterator[tuple[Tensor, Tensor]]
"""Of some images after others: log posteriors (2, B, C) and R, (2, B, C) or (2, B, 1); float64, on the CPU."""


def _of_head(model: nn.Module, images: Images, head: str | None, temperature: float, p: float, seed: int) -> Parts:
    reading = read_features(model, images.batches(), head=head)
    module = reading.head.module
    in_closed_form = linear_reach(module, reading.features[:1]) is not None
    rows = images.batch_size if in_closed_form else 1
    for first, features in zip(count(0, rows), torch.split(reading.features, rows)):
        pair = dropped_pair(features.to(images.device), p=p, seed=seed, first=first)
        with scoring(module, pair), torch.set_grad_enabled(not in_closed_form):
            logits = pair_logits(reading.head, pair)
            reaches = linear_reach(module, pair)
            log_posterior = _log_posterior(logits, temperature)
            if reaches is None:
                reaches = _reaches(logits, log_posterior, learned(module, "head"))
        yield log_posterior, reaches.cpu()


def _of_all(model: nn.Module, images: Images, head: str | None, temperature: float, p: float, seed: int) -> Parts:
    with tapped(model, images, head) as tap:
        weights = learned(eager(model), "model")
        for first, (x, _) in enumerate(replace(images, batch_size=1).batches()):
            with scoring(model, x), torch.enable_grad():
                logits = pass_twice_dropped(model, tap, x, p=p, seed=seed, first=first)
                log_posterior = _log_posterior(logits, temperature)
                reaches = _reaches(logits, log_posterior, weights)
            yield log_posterior, reaches


def _reaches(logits: Tensor, log_posterior: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(2, 1, C) of one image under two masks."""
    under = [reach(logits[mask, 0], log_posterior[mask, 0], weights)[None] for mask in range(2)]
    return torch.stack(under)


def _log_posterior(logits: Tensor, temperature: float) -> Tensor:
    return (logits.detach().cpu().double() / temperature).log_softmax(dim=-1)
