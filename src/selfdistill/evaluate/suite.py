"""The suite: a network and a data set in, one frozen `Evaluation` out, with as few passes as serve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfdistill.data import ImageData
from selfdistill.data.unlabelled import Unlabelled
from selfdistill.evaluate.accuracy import top_k_accuracy
from selfdistill.evaluate.agreement import Reading, read_features
from selfdistill.evaluate.corruptions import CORRUPTIONS, LEAST_SIZE, SEVERITIES, PublishedCorruptions, ShiftAccuracy
from selfdistill.evaluate.corruptions.measure import measure_shift
from selfdistill.evaluate.evaluation import Evaluation, score
from selfdistill.evaluate.images import Images, Tick
from selfdistill.evaluate.ood.measure import Detection, detection_passes, measure_detection
from selfdistill.evaluate.passes import predict
from selfdistill.evaluate.robustness import measure_robustness, robustness_passes
from selfdistill.head import find_head

MEASURES = ("robustness", "shift", "ood")
"""What can be measured beyond accuracy and calibration."""

Progress = Callable[[str, int, int], None]
"""Told what is measured, how many images of it are done, and how many there are, an image once for each pass."""


def evaluate(
    model: nn.Module,
    data: ImageData,
    *,
    device: torch.device | str,
    measures: Collection[str] = (),
    outside: Sequence[Unlabelled] = (),
    published: PublishedCorruptions | None = None,
    max_images: int = 1000,
    batch_size: int = 512,
    workers: int = 0,
    train: bool = True,
    max_train: int = 10_000,
    bins: int = 10,
    precision: str = "32-true",
    progress: Progress | None = None,
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
        measures: some of `MEASURES`.
        outside: out-of-distribution sets at the network's size, for "ood"; see `selfdistill.data.load_unlabelled`.
        published: CIFAR-10-C or CIFAR-100-C for "shift"; without them the test images are corrupted here.
        max_images: PGD and own corruptions see at most so many test images, evenly spaced; >= 1.
        batch_size: images a pass, >= 1; the result does not depend on it beyond rounding.
        workers: decoding processes for a set that lives in files.
        train: score training images too; with "ood", Mahalanobis is fitted to them.
        max_train: at most this many of them, evenly spaced over the set; `train_n` says how many.
        bins: bins of the calibration errors, >= 1.
        precision: "32-true", or "bf16-mixed" for the forward passes where nothing but accuracy and calibration is
            measured; every metric is float64.
        progress: called while it goes.

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
    _check(measures, outside, precision, max_images=max_images, max_train=max_train)
    omitted: list[str] = []
    tell = progress or _nobody
    images = partial(Images, data=data, device=device, batch_size=batch_size, workers=workers)
    inside = images(data.test).held() if measures else images(data.test)
    training = images(data.train).spaced(max_train) if train else None
    head = _head(model, inside, omitted) if "ood" in measures and outside else None

    tick = _ticker(tell, "accuracy and calibration", len(inside) + (len(training) if training else 0))
    test = _Pass.over(model, inside, head, precision, tick)
    fitted = _Pass.over(model, training, head, precision, tick) if training else None
    robustness, shift = None, None
    ood: tuple[Detection, ...] = ()
    if "robustness" in measures:
        tick = _ticker(tell, "attacks", robustness_passes(len(inside), max_images))
        robustness = measure_robustness(model, inside, max_images=max_images, tick=tick)
    if "shift" in measures:
        shift = _shift(model, inside.spaced(max_images), published, tell, omitted)
    if "ood" in measures:
        sets = [(one.name, one.prepared, images(one.split).held()) for one in outside]
        tick = _ticker(tell, "out-of-distribution", detection_passes(len(inside), [len(one) for _, _, one in sets]))
        ood = measure_detection(
            model,
            inside,
            sets,
            training=fitted.reading if fitted else None,
            inside_reading=test.reading,
            tick=tick,
        )
        if not outside:
            omitted.append("out-of-distribution detection: no set of images was given")
    return replace(
        score(
            test.logits,
            test.labels,
            bins=bins,
            train_n=len(fitted.labels) if fitted else None,
            train_top1=top_k_accuracy(fitted.logits, fitted.labels) if fitted else None,
        ),
        robustness=robustness,
        shift=shift,
        ood=ood,
        omitted=tuple(omitted),
    )


class _Pass(NamedTuple):
    """What the clean pass over some images gave; `reading` where the head is known."""

    logits: Tensor
    labels: Tensor
    reading: Reading | None = None

    @classmethod
    def over(cls, model: nn.Module, images: Images, head: str | None, precision: str, tick: Tick) -> _Pass:
        batches = _told(images.batches(), tick)
        if head is None:
            logits, labels = predict(model, batches, precision=precision)
            reading = None
        else:
            reading = read_features(model, batches, head=head)
            logits, labels = reading.logits, reading.labels
        classes = len(images.data.classes)
        if logits.shape[1] != classes:
            raise ValueError(f"model: {logits.shape[1]} logits an image, but {images.data.name} has {classes} classes")
        return cls(logits, labels, reading)


def _shift(
    model: nn.Module, images: Images, published: PublishedCorruptions | None, tell: Progress, omitted: list[str]
) -> ShiftAccuracy | None:
    size = images.data.image_size
    if published is None and size < LEAST_SIZE:
        least = f"{LEAST_SIZE} x {LEAST_SIZE}"
        omitted.append(f"corruptions: images of {size} x {size} pixels, at least {least} are needed")
        return None
    n = len(images) if published is None else published.n
    tick = _ticker(tell, "corruptions", len(CORRUPTIONS) * len(SEVERITIES) * n)
    return measure_shift(model, images, published=published, tick=tick)


def _head(model: nn.Module, images: Images, omitted: list[str]) -> str | None:
    x, _ = next(images.batches())
    try:
        return find_head(model, x)
    except ValueError as error:
        omitted.append(f"Mahalanobis and the spread over dropout masks, which read the head's input: {error}")
        return None


def _told(batches: Iterable[tuple[Tensor, Tensor]], tick: Tick) -> Iterator[tuple[Tensor, Tensor]]:
    for x, y in batches:
        yield x, y
        tick(len(y))


def _ticker(tell: Progress, measure: str, total: int) -> Tick:
    done = 0

    def tick(images: int) -> None:
        nonlocal done
        done += images
        tell(measure, done, total)

    tell(measure, 0, total)
    return tick


def _nobody(measure: str, done: int, total: int) -> None:
    """Tell nobody."""


def _check(
    measures: Collection[str], outside: Sequence[Unlabelled], precision: str, *, max_images: int, max_train: int
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
    names = [one.name for one in outside]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"outside: the set {twice[0]!r} is given twice")
