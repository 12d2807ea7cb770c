"""Out-of-distribution scores, higher for in-distribution images; ODIN and the choice of its eps.

Scores of logits (`max_softmax`, `max_logit`, `energy`) are numpy in float64; `odin_scores` runs the model. Features are
scored by `selfdistill.evaluation.ood.mahalanobis`; `selfdistill.evaluation.ood.metrics` says how well scores separate
sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.evaluation.accuracy import softmax
from selfdistill.evaluation.arrays import Floats, unlabelled_logits
from selfdistill.evaluation.gradient import clean_logits, input_gradient, per_channel, plain
from selfdistill.evaluation.ood.metrics import ood_metrics

ODIN_GRID = tuple(k / 5000 for k in range(21))
"""The 21 values among which the release chose eps: 0, 0.0002, ..., 0.004, in pixel units."""


def odin_scores(
    model: nn.Module,
    x: Tensor,
    *,
    temperature: float = 1000.0,
    eps: float = 0.0014,
    std: Sequence[float] | Tensor,
) -> Floats:
    """max_c softmax(M(x') / T)_c at x' = x - eps * s / std, s the sign of the gradient of -log of that maximum at x.

    As released: s = +1 where the gradient is 0, the same temperature in both passes, and no clipping of x'. Dividing
    by std makes eps a share of the pixel range although x is normalised. The model runs in evaluation mode (dropout
    off) and float32 whatever the caller left behind, and is left as it was found; the softmax is float64, since at
    T = 1000 half precision leaves a handful of distinct values.

    Args:
        model: M, on x's device.
        x: images, normalised by `std`, (B, C, H, W).
        temperature: T > 0.
        eps: >= 0, a share of the pixel range; with 0 and T = 1 the score is `max_softmax`, and one pass is enough.
        std: of the normalisation, one per channel, > 0.

    Returns:
        Higher = in-distribution, (B,), float64.

    Raises:
        ValueError: an argument is out of range or of another shape, the model is of half precision, or a logit is not
            finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
        >>> x = torch.randn(5, 3, 4, 4)
        >>> bool((odin_scores(model, x, std=(0.25,) * 3) > odin_scores(model, x, eps=0.0, std=(0.25,) * 3)).all())
        True

    Source: Liang et al., Enhancing the Reliability of Out-of-Distribution Image Detection in Neural Networks, 2018.
    """
    if not 0 <= eps <= 1:
        raise ValueError(f"eps: {eps}, expected a share of the pixel range in [0, 1], as 0.0014")
    x = plain(x)
    if eps > 0:
        x = x - eps * odin_direction(model, x, temperature=temperature, std=std)
    return max_softmax(clean_logits(model, x), temperature)


def odin_direction(
    model: nn.Module, x: Tensor, *, temperature: float = 1000.0, std: Sequence[float] | Tensor
) -> Tensor:
    """s / std, with s = +1 where d/dx sum_b CE(M(x)_b / T, argmax_c M(x)_bc) >= 0 and -1 elsewhere.

    It does not depend on eps: a search takes it once, then `max_softmax(M(x - eps * direction), T)` for each eps.

    Args:
        model: M, on x's device; run in evaluation mode and float32, and left as it was found.
        x: images, normalised by `std`, (B, C, H, W).
        temperature: T > 0.
        std: of the normalisation, one per channel, > 0.

    Returns:
        (B, C, H, W), float32.

    Raises:
        ValueError: as for `odin_scores`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
        >>> odin_direction(model, torch.randn(5, 3, 4, 4), std=(0.25,) * 3).abs().unique()
        tensor([4.])
    """
    t = _checked_temperature(temperature)
    x = plain(x)
    sd = per_channel(std, x, "std")
    gradient = input_gradient(model, x, lambda z: F.cross_entropy(z / t, z.argmax(dim=1), reduction="sum"))
    return torch.where(gradient >= 0, 1.0, -1.0).to(x.dtype) / sd


@dataclass(frozen=True)
class ChosenEps:
    """The eps that was chosen, and what it was chosen by.

    Attributes:
        eps: the chosen value, pixel units.
        tried: every value, in the order given.
        fpr_at_95_tpr: of each value, a fraction.
    """

    eps: float
    tried: tuple[float, ...]
    fpr_at_95_tpr: tuple[float, ...]


def choose_eps(
    id_scores: Callable[[float], Tensor | npt.ArrayLike],
    ood_scores: Callable[[float], Tensor | npt.ArrayLike],
    grid: Sequence[float] = ODIN_GRID,
) -> ChosenEps:
    """argmin over eps of the FPR at 95 % TPR: the protocol "released"; the smallest eps among equals.

    Both callables score the images set aside for this choice, the first `tuning_size` of each set; the chosen eps is
    then measured on the others. The choice sees out-of-distribution images, so it is kinder than any use in the field.

    Args:
        id_scores: eps to the scores of in-distribution images, higher = in-distribution, (N,).
        ood_scores: eps to the scores of out-of-distribution images, (M,).
        grid: the values to try.

    Raises:
        ValueError: the grid is empty, or scores are not finite.

    Example:
        >>> choose_eps(lambda eps: [1.0, 0.5 + eps], lambda eps: [0.6, 0.0], grid=(0.0, 0.25, 0.5))
        ChosenEps(eps=0.25, tried=(0.0, 0.25, 0.5), fpr_at_95_tpr=(0.5, 0.0, 0.0))
    """
    if not len(grid):
        raise ValueError("grid: no value of eps to try")
    tried = tuple(float(eps) for eps in grid)
    rates = tuple(ood_metrics(id_scores(eps), ood_scores(eps)).fpr_at_95_tpr for eps in tried)
    _, chosen = min(zip(rates, tried, strict=True))
    return ChosenEps(chosen, tried, rates)


def tuning_size(images: int) -> int:
    """How many of a set's first images choose eps and are not scored: 1,000, or half of a set of under 2,000.

    Example:
        >>> tuning_size(10_000), tuning_size(1_999)
        (1000, 999)
    """
    return 1000 if images >= 2000 else images // 2


def max_softmax(logits: Tensor | npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """max_c softmax(z / T)_c in float64. (N, C) -> (N,).

    Args:
        logits: z; pass them in float32: in bfloat16 few distinct values are left at a high temperature.
        temperature: T > 0.

    Raises:
        ValueError: logits are not (N, C) or not finite, or T <= 0.

    Example:
        >>> max_softmax([[0.0, 0.0], [0.0, 9.0]]).round(4)
        array([0.5   , 0.9999])

    Source: Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, 2017.
    """
    return np.asarray(softmax(unlabelled_logits(logits) / _checked_temperature(temperature)).max(axis=1))


def max_logit(logits: Tensor | npt.ArrayLike) -> Floats:
    """max_c z_c. (N, C) -> (N,).

    Raises:
        ValueError: logits are not (N, C) or not finite.

    Example:
        >>> max_logit([[0.0, 2.0], [-1.0, -3.0]])
        array([ 2., -1.])

    Source: Hendrycks et al., Scaling Out-of-Distribution OODResult for Real-World Settings, 2022.
    """
    return np.asarray(unlabelled_logits(logits).max(axis=1))


def energy(logits: Tensor | npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """The negative free energy -E = T * log sum_c exp(z_c / T) in float64. (N, C) -> (N,).

    Args:
        logits: z.
        temperature: T > 0.

    Raises:
        ValueError: logits are not (N, C) or not finite, or T <= 0.

    Example:
        >>> energy([[0.0, 0.0], [1000.0, 0.0]]).round(4)
        array([6.931e-01, 1.000e+03])

    Source: Liu et al., Energy-based Out-of-distribution Detection, 2020.
    """
    z = unlabelled_logits(logits) / _checked_temperature(temperature)
    largest = z.max(axis=1, keepdims=True)
    return np.asarray(temperature * (largest[:, 0] + np.log(np.exp(z - largest).sum(axis=1))))


def _checked_temperature(temperature: float) -> float:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: {temperature}, expected a positive number")
    return temperature
