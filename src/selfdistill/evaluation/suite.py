"""The suite: evaluate a network on a data set, in as few forward passes as possible; returns one `Evaluation`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from selfdistill.data import ImageData
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.evaluation.accuracy import (
    brier_score,
    class_scores,
    confusion_matrix,
    negative_log_likelihood,
    rank_of_label,
    softmax,
    top_k_accuracy,
)
from selfdistill.evaluation.arrays import checked_logits
from selfdistill.evaluation.calibration import (
    adaptive_calibration_error,
    calibration_gap,
    classwise_calibration_error,
    reliability,
)
from selfdistill.evaluation.corruptions import (
    CORRUPTIONS,
    LEAST_SIZE,
    SEVERITIES,
    PublishedCorruptions,
    measure_corruptions,
)
from selfdistill.evaluation.images import Images, Reading, Tick, predict, read_features
from selfdistill.evaluation.ood.measure import measure_ood, ood_passes
from selfdistill.evaluation.robustness import measure_robustness, robustness_passes
from selfdistill.evaluation.selective import risk_coverage
from selfdistill.evaluation.temperature import temperature_scaling
from selfdistill.head import find_head
from selfdistill.progress import Counter, OnProgress, no_progress
from selfdistill.records.evaluation import MEASURES, CorruptionAccuracy, Evaluation, OODResult, Robustness

MAX_TRAIN = 10_000
"""Training images that are scored, at most."""


def evaluate(
    model: nn.Module,
    data: ImageData,
    *,
    device: torch.device | str,
    measures: Collection[str] = (),
    ood_sets: Sequence[Unlabelled] = (),
    published: PublishedCorruptions | None = None,
    max_images: int = 1000,
    batch_size: int = 512,
    workers: int = 0,
    train: bool = True,
    max_train: int = MAX_TRAIN,
    bins: int = 10,
    precision: str = "32-true",
    progress: OnProgress = no_progress,
    on_logits: Callable[[Tensor, Tensor], object] | None = None,
) -> Evaluation:
    """Score a model on the test images of `data`, and on its training images without augmentation.

    Accuracy, calibration and selective prediction come from one pass over the test images, which also gives every
    score for out-of-distribution detection that needs no gradient. `measures` adds "robustness" (FGSM and PGD),
    "shift" (the corruptions) and "ood". What cannot be measured of this model or these images is left out, and
    `Evaluation.omitted` says why.

    Args:
        model: already on `device`; a `SelfDistiller` scores its student. Its train/eval modes are restored.
        data: a data set; see `selfdistill.data.load_data`.
        device: where the batches go.
        measures: some of `selfdistill.records.evaluation.MEASURES`.
        ood_sets: out-of-distribution sets at the network's size, for "ood"; see `selfdistill.data.load_unlabelled`.
        published: CIFAR-10-C or CIFAR-100-C for "shift"; None: the test images are corrupted here.
        max_images: PGD and own corruptions see at most so many test images, evenly spaced; >= 1.
        batch_size: images per batch, >= 1; the result does not depend on it beyond rounding.
        workers: decoding processes for a set that lives in files.
        train: score training images too; with "ood", the detectors of features are fitted to them.
        max_train: at most this many of them, evenly spaced over the set; `train_n` says how many.
        bins: bins of the calibration errors, >= 1.
        precision: "32-true", or "bf16-mixed" for the forward passes, if `measures` is empty; every metric is float64.
        progress: called after each batch; an image counts once for each forward pass.
        on_logits: called with the logits and the labels of the test images.

    Raises:
        ValueError: an argument is out of range, or the model's output does not fit the data set.

    Example:
        >>> from torch import nn
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=4, test_per_class=5)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, len(data.classes)))
        >>> result = evaluate(model, data, device="cpu", measures=["robustness"])
        >>> result.n, result.train_n, result.robustness.pgd_n
        (50, 40, 50)
    """
    _check(measures, ood_sets, precision, max_images=max_images, max_train=max_train)
    omitted: list[str] = []
    images = partial(Images, data=data, device=device, batch_size=batch_size, workers=workers)
    test = images(data.test).cached() if measures else images(data.test)
    training = images(data.train).spaced(max_train) if train else None
    head = _head_name(model, test, omitted) if "ood" in measures and ood_sets else None

    tick = Counter(progress, "measuring accuracy and calibration", len(test) + (len(training) if training else 0))
    clean = _CleanPass.over(model, test, head, precision, tick)
    if on_logits is not None:
        on_logits(clean.logits, clean.labels)
    fitted = _CleanPass.over(model, training, head, precision, tick) if training else None
    robustness = _robustness(model, test, max_images, progress) if "robustness" in measures else None
    corruptions = None
    if "shift" in measures:
        corruptions = _corruptions(model, test.spaced(max_images), published, progress, omitted)
    ood: tuple[OODResult, ...] = ()
    if "ood" in measures:
        sets = [(one.name, one.prepared, images(one.split).cached()) for one in ood_sets]
        ood = measure_ood(
            model,
            test,
            sets,
            training=fitted.reading if fitted else None,
            id_reading=clean.reading,
            tick=Counter(
                progress,
                "measuring out-of-distribution detection",
                ood_passes(len(test), [len(one) for _, _, one in sets]),
            ),
        )
        if not ood_sets:
            why = "no set of images was given" if data.channels in (1, 3) else f"images of {data.channels} channels"
            omitted.append(f"out-of-distribution detection: {why}")
    return msgspec.structs.replace(
        score(
            clean.logits,
            clean.labels,
            bins=bins,
            train_n=len(fitted.labels) if fitted else None,
            train_top1=top_k_accuracy(fitted.logits, fitted.labels) if fitted else None,
        ),
        robustness=robustness,
        shift=corruptions,
        ood=ood,
        omitted=tuple(omitted),
    )


def score(
    logits: Tensor, labels: Tensor, *, bins: int = 10, train_n: int | None = None, train_top1: float | None = None
) -> Evaluation:
    """The `Evaluation` of logits (N, C) and labels (N,) at hand; the last two arguments are stored as given.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, a label is not a class, or bins < 1.

    Example:
        >>> score(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])).top1
        0.5
    """
    z, y = checked_logits(logits, labels)
    p = softmax(z)
    right = rank_of_label(z, y) == 1
    scores = class_scores(confusion_matrix(y, z.argmax(axis=1), z.shape[1]))
    diagram = reliability(p, y, bins)
    return Evaluation(
        n=len(y),
        top1=float(right.mean()),
        top5=top_k_accuracy(z, y, 5) if z.shape[1] > 5 else None,
        nll=negative_log_likelihood(z, y),
        brier=brier_score(p, y),
        ece=diagram.expected_calibration_error,
        bins=bins,
        confidence=float(p.max(axis=1).mean()),
        gap=calibration_gap(p, y),
        reliability=diagram,
        per_class=scores.recall,
        classes=scores,
        train_n=train_n,
        train_top1=train_top1,
        adaptive_ece=adaptive_calibration_error(p, y, bins),
        classwise_ece=classwise_calibration_error(p, y, bins),
        scaled=temperature_scaling(z, y, bins=bins) if len(y) > 1 else None,
        selective=risk_coverage(p.max(axis=1), right),
    )


class _CleanPass(NamedTuple):
    """The outputs of the clean pass over some images; `reading` is None if the head is not known."""

    logits: Tensor
    labels: Tensor
    reading: Reading | None = None

    @classmethod
    def over(cls, model: nn.Module, images: Images, head: str | None, precision: str, tick: Tick) -> _CleanPass:
        batches = _with_ticks(images.batches(), tick)
        if head is None:
            logits, labels = predict(model, batches, precision=precision)
            reading = None
        else:
            reading = read_features(model, batches, head=head)
            logits, labels = reading.logits, reading.labels
        classes = len(images.data.classes)
        if logits.shape[1] != classes:
            raise ValueError(f"model: {logits.shape[1]} logits per image, but {images.data.name} has {classes} classes")
        return cls(logits, labels, reading)


def _robustness(model: nn.Module, images: Images, max_images: int, progress: OnProgress) -> Robustness:
    tick = Counter(progress, "measuring attacks", robustness_passes(len(images), max_images))
    return measure_robustness(model, images, max_images=max_images, tick=tick)


def _corruptions(
    model: nn.Module, images: Images, published: PublishedCorruptions | None, progress: OnProgress, omitted: list[str]
) -> CorruptionAccuracy | None:
    size, channels = images.data.image_size, images.data.channels
    if channels not in (1, 3):
        omitted.append(f"corruptions: images of {channels} channels, 1 or 3 are needed")
        return None
    if published is None and size < LEAST_SIZE:
        least = f"{LEAST_SIZE} x {LEAST_SIZE}"
        omitted.append(f"corruptions: images of {size} x {size} pixels, at least {least} are needed")
        return None
    n = len(images) if published is None else published.n
    tick = Counter(progress, "measuring corruptions", len(CORRUPTIONS) * len(SEVERITIES) * n)
    return measure_corruptions(model, images, published=published, tick=tick)


def _head_name(model: nn.Module, images: Images, omitted: list[str]) -> str | None:
    x, _ = next(images.batches())
    try:
        return find_head(model, x)
    except ValueError as error:
        omitted.append(f"detectors of features and the spread over dropout masks, which read the head's input: {error}")
        return None


def _with_ticks(batches: Iterable[tuple[Tensor, Tensor]], tick: Tick) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in batches:
        yield x, y
        tick(len(y))


def _check(
    measures: Collection[str], ood_sets: Sequence[Unlabelled], precision: str, *, max_images: int, max_train: int
) -> None:
    unknown = [measure for measure in measures if measure not in MEASURES]
    if unknown:
        raise ValueError(f"measures: {unknown[0]!r} is unknown, there are {', '.join(MEASURES)}")
    if measures and precision != "32-true":
        raise ValueError(f'precision: {precision!r}, but small gradients and scores at T = 1000 need "32-true"')
    if max_train < 1:
        raise ValueError(f"max_train: {max_train}, expected at least 1 (or train=False)")
    if max_images < 1:
        raise ValueError(f"max_images: {max_images}, expected at least 1")
    names = [one.name for one in ood_sets]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"ood_sets: the set {twice[0]!r} is given twice")
