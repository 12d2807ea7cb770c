"""Out-of-distribution detection (Table 7) on one set or several, by six detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfdistill.evaluate.agreement import Reading, posterior_sd, read_features
from selfdistill.evaluate.arrays import Floats
from selfdistill.evaluate.gradient import clean_logits
from selfdistill.evaluate.images import Images, Tick, silent
from selfdistill.evaluate.ood.detector import Detector, detector_of
from selfdistill.evaluate.ood.mahalanobis import fit_mahalanobis
from selfdistill.evaluate.ood.scores import (
    ODIN_GRID,
    choose_eps,
    energy,
    max_logit,
    max_softmax,
    odin_direction,
    tuning_size,
)
from selfdistill.tap import Head, eager

_MASKS, _DROPPED, _SEEDS = 20, 0.5, 5


@dataclass(frozen=True)
class Disagreement:
    """Section 4.5's claim: the sd of the posterior over dropout masks, a mean over images, classes and mask sets.

    Attributes:
        masks: M, of each set of masks.
        p: probability that a feature is dropped.
        temperature: of the posteriors.
        seeds: how many sets of masks.
        inside: on the test images.
        outside: on the out-of-distribution images.
    """

    masks: int
    p: float
    temperature: float
    seeds: int
    inside: float
    outside: float


@dataclass(frozen=True)
class Detection:
    """One out-of-distribution set against the test images.

    Attributes:
        name: of the set.
        n: its images.
        prepared: how they came to the network's size.
        detectors: by name, those that could be measured.
        tuned_on: in- and out-of-distribution images that chose the eps of "ODIN released" and are not scored by it.
        temperature: ODIN's T.
        disagreement: None where the network's head was not found.
    """

    name: str
    n: int
    prepared: str
    detectors: Mapping[str, Detector]
    tuned_on: tuple[int, int]
    temperature: float
    disagreement: Disagreement | None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        plain: dict[str, Any] = _listed(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Detection:
        """The inverse of `to_dict`, exactly."""
        disagreement = values["disagreement"]
        parts = {
            "detectors": {name: Detector.from_dict(detector) for name, detector in values["detectors"].items()},
            "tuned_on": tuple(values["tuned_on"]),
            "disagreement": None if disagreement is None else Disagreement(**disagreement),
        }
        return cls(**(dict(values) | parts))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(v) for key, v in value.items()}
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def measure_detection(
    model: nn.Module,
    inside: Images,
    outside: Sequence[tuple[str, str, Images]],
    *,
    fixed_eps: float = 0.0014,
    temperature: float = 1000.0,
    training: Reading | None = None,
    inside_reading: Reading | None = None,
    tick: Tick = silent,
) -> tuple[Detection, ...]:
    """Score each set against the test images by every detector.

    Max softmax, max logit and energy come from one pass. "ODIN fixed" has the eps given, on all images. "ODIN
    released" chooses among `ODIN_GRID` on the first `tuning_size` images of either set, by the FPR at 95 % TPR, and is
    measured on the others. "Mahalanobis" is fitted to the features of training images. What does not depend on the
    out-of-distribution set is computed once.

    Args:
        model: on the images' device; run in evaluation mode and float32, and left as it was found.
        inside: the test images.
        outside: name, preparation and images of each set.
        fixed_eps: ODIN's eps, in [0, 1], pixel units.
        temperature: ODIN's T, > 0.
        training: features and labels of training images; None: no Mahalanobis.
        inside_reading: logits and features of `inside`; None where the head is not known.
        tick: told of the images done, `detection_passes` in all.

    Raises:
        ValueError: a set of fewer than two images, an eps or a temperature out of range, a reading of another model or
            of other images, or a logit that is not finite.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=2, test_per_class=2)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> images = Images(data.test, data, "cpu")
        >>> (detection,) = measure_detection(model, images, [("the same", "as they are", images)])
        >>> list(detection.detectors), detection.detectors["energy"].metrics.auroc
        (['max softmax', 'max logit', 'energy', 'ODIN fixed', 'ODIN released'], 0.5)

    Source: Liang et al., Enhancing the Reliability of Out-of-Distribution Image Detection in Neural Networks, 2018.
    """
    if not outside:
        return ()
    for name, images in (("the test images", inside), *((name, images) for name, _, images in outside)):
        if len(images) < 2:
            raise ValueError(
                f"{name}: images {len(images)}, expected at least 2: one half chooses ODIN's eps, one is scored"
            )
    if not 0 <= fixed_eps <= 1:
        raise ValueError(f"fixed_eps: {fixed_eps}, expected a share of the pixel range in [0, 1], as 0.0014")
    if inside_reading is not None and len(inside_reading.logits) != len(inside):
        read = len(inside_reading.logits)
        raise ValueError(f"inside_reading: of {read} images, but inside holds {len(inside)}; read those of inside")
    head = None if inside_reading is None else _name_of(inside_reading.head, model)
    fitted = None
    if training is not None and inside_reading is not None:
        with suppress(ValueError):  # no feature varies within a class: too few training images
            fitted = fit_mahalanobis(training.features, training.labels)
    odin = partial(_odin, model, temperature=temperature, tick=tick)
    inside_logits = _logits(model, inside) if inside_reading is None else inside_reading.logits
    n_in = tuning_size(len(inside))
    tuned_in, fixed_in = odin(inside.part(0, n_in), ODIN_GRID), odin(inside, (fixed_eps,))[fixed_eps]
    rest_in: dict[float, Floats] = {}
    inside_sd = None if inside_reading is None else _spread(inside_reading)
    detections = []
    for name, prepared, images in outside:
        reading = None if inside_reading is None else read_features(model, images.batches(), head=head)
        logits = _logits(model, images) if reading is None else reading.logits
        tick(len(images))
        detectors = {
            "max softmax": detector_of(max_softmax(inside_logits), max_softmax(logits)),
            "max logit": detector_of(max_logit(inside_logits), max_logit(logits)),
            "energy": detector_of(energy(inside_logits), energy(logits)),
            "ODIN fixed": detector_of(fixed_in, odin(images, (fixed_eps,))[fixed_eps], fixed_eps),
        }
        n_out = tuning_size(len(images))
        tuned_out = odin(images.part(0, n_out), ODIN_GRID)
        eps = choose_eps(tuned_in.__getitem__, tuned_out.__getitem__).eps
        if eps in rest_in:
            tick(2 * (len(inside) - n_in))
        else:
            rest_in[eps] = odin(inside.part(n_in), (eps,))[eps]
        detectors["ODIN released"] = detector_of(rest_in[eps], odin(images.part(n_out), (eps,))[eps], eps)
        disagreement = None
        if inside_reading is not None and reading is not None and inside_sd is not None:
            if fitted is not None:
                scores = fitted.scores(inside_reading.features), fitted.scores(reading.features)
                detectors["Mahalanobis"] = detector_of(*scores)
            disagreement = Disagreement(_MASKS, _DROPPED, 1.0, _SEEDS, inside_sd, _spread(reading))
        detections.append(Detection(name, len(images), prepared, detectors, (n_in, n_out), temperature, disagreement))
    return tuple(detections)


def detection_passes(inside: int, outside: Sequence[int]) -> int:
    """Images that `measure_detection` ticks, an image once for each forward pass.

    Example:
        >>> detection_passes(10_000, [10_000])
        130000
    """
    if not outside:
        return 0
    grid, n_in = 1 + len(ODIN_GRID), tuning_size(inside)
    total = 2 * inside + grid * n_in
    for n in outside:
        total += 3 * n + grid * tuning_size(n) + 2 * (n - tuning_size(n)) + 2 * (inside - n_in)
    return total


def _odin(
    model: nn.Module, images: Images, grid: Sequence[float], *, temperature: float, tick: Tick
) -> dict[float, Floats]:
    """ODIN's scores of all images at each eps: one gradient a batch, whatever the number of eps."""
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


def _name_of(head: Head, model: nn.Module) -> str:
    names: list[str] = [name for name, module in eager(model).named_modules() if module is head.module]
    if not names:
        raise ValueError("inside_reading: its head is no module of this model; read the test images with this model")
    return names[0]


def _spread(reading: Reading) -> float:
    sd = [
        posterior_sd(reading.features, reading.head, masks=_MASKS, p=_DROPPED, seed=seed).mean()
        for seed in range(_SEEDS)
    ]
    return float(np.mean(sd))
