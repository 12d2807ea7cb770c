"""Out-of-distribution detection (Table 7): one set or several against the test images, by all detectors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from selfdistill.evaluation.arrays import Floats
from selfdistill.evaluation.gradient import clean_logits
from selfdistill.evaluation.images import Images, Reading, Tick, read_features
from selfdistill.evaluation.ood.agreement import posterior_sd
from selfdistill.evaluation.ood.detectors import Detector, Detectors, fit_to_training
from selfdistill.evaluation.ood.metrics import score_detector
from selfdistill.evaluation.ood.scores import (
    ODIN_GRID,
    choose_eps,
    energy,
    max_logit,
    max_softmax,
    odin_direction,
    tuning_size,
)
from selfdistill.network import eager
from selfdistill.progress import no_progress
from selfdistill.records.evaluation import OODDetector, OODDisagreement, OODResult
from selfdistill.tap import Head

OF_FEATURES_IN_WORDS: dict[Detector, str] = {
    "mahalanobis": "Mahalanobis",
    "knn": "kNN",
    "vim": "ViM",
    "react": "ReAct",
    "dice": "DICE",
    "ash": "ASH",
}
"""What a record calls the detectors of features."""

_MASKS, _DROP_PROBABILITY, _SEEDS = 20, 0.5, 5


def measure_ood(
    model: nn.Module,
    in_distribution: Images,
    ood_sets: Sequence[tuple[str, str, Images]],
    *,
    fixed_eps: float = 0.0014,
    temperature: float = 1000.0,
    training: Reading | None = None,
    id_reading: Reading | None = None,
    tick: Tick = no_progress,
) -> tuple[OODResult, ...]:
    """Score each out-of-distribution set against the test images by every detector.

    Max softmax, max logit and energy come from one pass. "ODIN fixed" has the eps given, on all images. "ODIN
    released" chooses among `ODIN_GRID` on the first `tuning_size` images of either set, by the FPR at 95 % TPR, and is
    measured on the others. "Mahalanobis", "kNN" and, where the head is linear, "ViM", "ReAct", "DICE" and "ASH" are
    fitted to the features of training images. What does not depend on the out-of-distribution set is computed once.

    Args:
        model: on the images' device; run in evaluation mode and float32, and left as it was found.
        fixed_eps: ODIN's eps, in [0, 1], pixel units.
        temperature: ODIN's T, > 0.
        training: features and labels of training images; None: no detector of features.
        id_reading: logits and features of `in_distribution`; None if the head is not known.
        tick: called with the number of images just done, `ood_passes` in all.

    Raises:
        ValueError: a set of fewer than two images, an eps or a temperature out of range, a reading of another model or
            of other images, or a logit that is not finite.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=2, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> images = Images(data.test, data, "cpu")
        >>> (result,) = measure_ood(model, images, [("the same", "as they are", images)])
        >>> list(result.detectors), result.detectors["energy"].metrics.auroc
        (['max softmax', 'max logit', 'energy', 'ODIN fixed', 'ODIN released'], 0.5)

    Source: Liang et al., Enhancing the Reliability of Out-of-Distribution Image Detection in Neural Networks, 2018.
    """
    if not ood_sets:
        return ()
    _check(in_distribution, ood_sets, fixed_eps, id_reading)
    head = None if id_reading is None else _head_name(id_reading.head, model)
    id_logits = _logits(model, in_distribution) if id_reading is None else id_reading.logits
    odin = _Odin(model, in_distribution, fixed_eps, temperature, tick)
    by_features = None if id_reading is None else _FeatureDetectors(id_reading, training)
    results = []
    for name, prepared, images in ood_sets:
        reading = None if id_reading is None else read_features(model, images.batches(), head=head)
        logits = _logits(model, images) if reading is None else reading.logits
        tick(len(images))
        detectors = {
            "max softmax": score_detector(max_softmax(id_logits), max_softmax(logits)),
            "max logit": score_detector(max_logit(id_logits), max_logit(logits)),
            "energy": score_detector(energy(id_logits), energy(logits)),
            **odin.detectors(images),
        }
        disagreement = None
        if by_features is not None and reading is not None:
            detectors |= by_features.detectors(reading)
            disagreement = by_features.disagreement(reading)
        tuned_on = (tuning_size(len(in_distribution)), tuning_size(len(images)))
        results.append(OODResult(name, len(images), prepared, detectors, tuned_on, temperature, disagreement))
    return tuple(results)


def ood_passes(in_distribution: int, ood: Sequence[int]) -> int:
    """Images that `measure_ood` ticks, an image once for each forward pass.

    Example:
        >>> ood_passes(10_000, [10_000])
        130000
    """
    if not ood:
        return 0
    grid, n_in = 1 + len(ODIN_GRID), tuning_size(in_distribution)
    total = 2 * in_distribution + grid * n_in
    for n in ood:
        total += 3 * n + grid * tuning_size(n) + 2 * (n - tuning_size(n)) + 2 * (in_distribution - n_in)
    return total


def _check(
    in_distribution: Images, ood_sets: Sequence[tuple[str, str, Images]], fixed_eps: float, id_reading: Reading | None
) -> None:
    for name, images in (("the test images", in_distribution), *((name, images) for name, _, images in ood_sets)):
        if len(images) < 2:
            raise ValueError(
                f"{name}: images {len(images)}, expected at least 2: one half chooses ODIN's eps, one is scored"
            )
    if not 0 <= fixed_eps <= 1:
        raise ValueError(f"fixed_eps: {fixed_eps}, expected a share of the pixel range in [0, 1], as 0.0014")
    if id_reading is not None and len(id_reading.logits) != len(in_distribution):
        raise ValueError(
            f"id_reading: of {len(id_reading.logits)} images, but in_distribution holds {len(in_distribution)}; "
            "read those of in_distribution"
        )


class _Odin:
    """Both ODIN detectors; what they need of the test images is computed once for all sets."""

    def __init__(
        self, model: nn.Module, in_distribution: Images, fixed_eps: float, temperature: float, tick: Tick
    ) -> None:
        self.in_distribution, self.fixed_eps, self.tick = in_distribution, fixed_eps, tick
        self.scores = partial(_odin_scores, model, temperature=temperature, tick=tick)
        self.n_tuning = tuning_size(len(in_distribution))
        self.tuning = self.scores(in_distribution.part(0, self.n_tuning), ODIN_GRID)
        self.fixed = self.scores(in_distribution, (fixed_eps,))[fixed_eps]
        self.rest: dict[float, Floats] = {}  # scores of the images that chose no eps, by eps

    def detectors(self, ood: Images) -> dict[str, OODDetector]:
        fixed = self.scores(ood, (self.fixed_eps,))[self.fixed_eps]
        n_tuning = tuning_size(len(ood))
        tuning = self.scores(ood.part(0, n_tuning), ODIN_GRID)
        eps = choose_eps(self.tuning.__getitem__, tuning.__getitem__).eps
        if eps in self.rest:
            self.tick(2 * (len(self.in_distribution) - self.n_tuning))
        else:
            self.rest[eps] = self.scores(self.in_distribution.part(self.n_tuning), (eps,))[eps]
        rest = self.scores(ood.part(n_tuning), (eps,))[eps]
        return {
            "ODIN fixed": score_detector(self.fixed, fixed, self.fixed_eps),
            "ODIN released": score_detector(self.rest[eps], rest, eps),
        }


class _FeatureDetectors:
    """What reads features: their detectors, and the spread over dropout masks before the head."""

    def __init__(self, id_reading: Reading, training: Reading | None) -> None:
        self.id_spread = _spread_over_masks(id_reading)
        self.fitted = Detectors()
        if training is not None:
            with suppress(ValueError):  # no feature varies within a class: too few training images
                self.fitted = fit_to_training(training)
        self.id_scores = self._scores(id_reading)

    def _scores(self, reading: Reading) -> dict[str, Floats]:
        return {
            OF_FEATURES_IN_WORDS[name]: self.fitted.scores(name, reading.logits, reading.features)
            for name in self.fitted.of_features
        }

    def detectors(self, ood: Reading) -> dict[str, OODDetector]:
        scores = self._scores(ood)
        return {name: score_detector(known, scores[name]) for name, known in self.id_scores.items()}

    def disagreement(self, ood: Reading) -> OODDisagreement:
        return OODDisagreement(_MASKS, _DROP_PROBABILITY, 1.0, _SEEDS, self.id_spread, _spread_over_masks(ood))


def _odin_scores(
    model: nn.Module, images: Images, grid: Sequence[float], *, temperature: float, tick: Tick
) -> dict[float, Floats]:
    """ODIN's scores of all images at each eps: one gradient per batch, whatever the number of eps."""
    scores: dict[float, list[Floats]] = {eps: [] for eps in grid}
    for x, y in images.batches():
        direction = odin_direction(model, x, temperature=temperature, std=images.data.std)
        tick(len(y))
        for eps in grid:
            scores[eps].append(max_softmax(clean_logits(model, x - eps * direction), temperature))
            tick(len(y))
    return {eps: np.concatenate(parts) for eps, parts in scores.items()}


def _logits(model: nn.Module, images: Images) -> Tensor:
    return torch.cat([clean_logits(model, x).cpu() for x, _ in images.batches()])


def _head_name(head: Head, model: nn.Module) -> str:
    names: list[str] = [name for name, module in eager(model).named_modules() if module is head.module]
    if not names:
        raise ValueError("id_reading: its head is not a module of this model; read the test images with this model")
    return names[0]


def _spread_over_masks(reading: Reading) -> float:
    sd = [
        posterior_sd(reading.features, reading.head, masks=_MASKS, p=_DROP_PROBABILITY, seed=seed).mean()
        for seed in range(_SEEDS)
    ]
    return float(np.mean(sd))
