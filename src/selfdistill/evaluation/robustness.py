"""Accuracy under attack: FGSM in both protocols over all images, PGD over some, in as few passes as serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from selfdistill.evaluation.adversarial import EPSILONS, PAPER_EPS, attacked_loss, paper_step, pgd, standard_step
from selfdistill.evaluation.gradient import clean_logits, input_gradients
from selfdistill.evaluation.images import Images, Tick
from selfdistill.progress import no_progress
from selfdistill.records.evaluation import Robustness


def measure_robustness(
    model: nn.Module,
    images: Images,
    *,
    max_images: int = 1000,
    steps: int = 20,
    eps: Sequence[float] = EPSILONS,
    tick: Tick = no_progress,
) -> Robustness:
    """Accuracy under FGSM ("standard" at each eps, and "paper") on all images and under PGD on some of them.

    A batch passes forward once, and backward once for the true labels and once for the network's own predictions; then
    forward once for each FGSM. PGD is run only on images that are right so far, from the smallest eps on. The model is
    in evaluation mode and float32 whatever the caller left behind, and is left as it was found.

    Args:
        images: labelled; see `Images`.
        max_images: PGD attacks at most so many of them, evenly spaced, >= 1.
        steps: of PGD, >= 1; its step is 2.5 * eps / steps, its start is random as in `pgd`.
        eps: radii, rising, in (0, 1], shares of the pixel range.
        tick: called with the number of images just done, `robustness_passes` in all.

    Raises:
        ValueError: an argument is out of range, there is no image, a label is not a class of the model, the model is of
            half precision, or a logit is not finite.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=5, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> result = measure_robustness(model, Images(data.test, data, device="cpu"), max_images=10, steps=2)
        >>> result.n, result.pgd_n, len(result.fgsm), result.pgd[-1] <= result.pgd_clean
        (20, 10, 5, True)
    """
    _check(images, max_images, steps, eps)
    right, vanished = _single_steps(model, images, eps, tick)
    numbered = replace(images, split=replace(images.split, labels=torch.arange(len(images))))
    chosen = right[:, numbered.spaced(max_images).split.labels]  # the columns of the images that PGD attacks
    survivors = _iterated(model, images.spaced(max_images), chosen[0], eps, steps, tick)
    clean, *fgsm, paper = _rates(right)
    pgd_clean, *pgd_fgsm, _ = _rates(chosen)
    return Robustness(
        n=len(images),
        clean=clean,
        eps=tuple(float(radius) for radius in eps),
        fgsm=tuple(fgsm),
        paper_eps=PAPER_EPS,
        paper=paper,
        vanished=float(vanished.double().mean()),
        pgd_n=chosen.shape[1],
        pgd_steps=steps,
        pgd_clean=pgd_clean,
        pgd=_rates(survivors),
        pgd_fgsm=tuple(pgd_fgsm),
    )


def robustness_passes(n: int, max_images: int, steps: int = 20, eps: Sequence[float] = EPSILONS) -> int:
    """Images that `measure_robustness` ticks, each once for every forward pass; PGD that is not needed counts as done.

    Example:
        >>> robustness_passes(10_000, 1000)
        175000
    """
    return n * (2 + len(eps)) + min(n, max_images) * len(eps) * (steps + 1)


def _single_steps(model: nn.Module, images: Images, eps: Sequence[float], tick: Tick) -> tuple[Tensor, Tensor]:
    """Right or not, (2 + E, N): clean, FGSM at each eps, "paper"; and where no gradient is left, (N,)."""
    mean, std = images.data.mean, images.data.std
    right, vanished = [], []
    for x, y in images.batches():
        logits, (slope, own) = input_gradients(model, x, (attacked_loss(y), attacked_loss()))
        rows = [_right(logits, y)]
        tick(len(y))
        for radius in eps:
            rows.append(_right(clean_logits(model, standard_step(x, slope.sign(), radius, mean=mean, std=std)), y))
            tick(len(y))
        rows.append(_right(clean_logits(model, paper_step(x, own.sign(), PAPER_EPS)), y))
        tick(len(y))
        right.append(torch.stack(rows))
        vanished.append((slope == 0).flatten(1).all(dim=1).cpu())
    return torch.cat(right, dim=1), torch.cat(vanished)


def _iterated(model: nn.Module, images: Images, right: Tensor, eps: Sequence[float], steps: int, tick: Tick) -> Tensor:
    """Right or not under PGD at each eps and all before it, (E, N), of images of which `right` (N,) are right."""
    mean, std = images.data.mean, images.data.std
    alive, rows = right.clone(), []
    for radius in eps:
        kept = alive.nonzero()[:, 0]
        if len(kept):  # gathered from all batches: passes of a few images each would be as dear as whole ones
            survivors = replace(images, split=images.split.select(kept))
            still = []
            for x, y in survivors.batches():
                attacked = pgd(model, x, y, radius, mean=mean, std=std, steps=steps)
                still.append(_right(clean_logits(model, attacked), y))
                tick(len(y) * (steps + 1))
            alive[kept] = torch.cat(still)
        tick((len(images) - len(kept)) * (steps + 1))
        rows.append(alive.clone())
    return torch.stack(rows)


def _right(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == y).cpu()


def _rates(right: Tensor) -> tuple[float, ...]:
    return tuple(right.double().mean(dim=1).tolist())


def _check(images: Images, max_images: int, steps: int, eps: Sequence[float]) -> None:
    if not len(images):
        raise ValueError("images: there is none to attack")
    if max_images < 1:
        raise ValueError(f"max_images: {max_images}, expected at least 1")
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    rising = all(smaller < larger for smaller, larger in pairwise(eps))
    if not (len(eps) and rising and all(0 < radius <= 1 for radius in eps)):
        raise ValueError(f"eps: {list(eps)}, expected rising shares of the pixel range in (0, 1], as 1/255, 2/255")
