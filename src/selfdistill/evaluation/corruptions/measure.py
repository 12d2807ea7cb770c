"""Accuracy under corruption: of the test images corrupted here, or of the published arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from selfdistill.data.arrays import to_channels
from selfdistill.evaluation.corruptions.apply import corrupt
from selfdistill.evaluation.corruptions.published import PublishedCorruptions
from selfdistill.evaluation.corruptions.table import CORRUPTIONS, SEVERITIES
from selfdistill.evaluation.gradient import clean_logits
from selfdistill.evaluation.images import Images, Tick
from selfdistill.progress import no_progress
from selfdistill.records.evaluation import OWN, PUBLISHED, CorruptionAccuracy


def measure_corruptions(
    model: nn.Module,
    images: Images,
    *,
    published: PublishedCorruptions | None = None,
    seed: int = 0,
    tick: Tick = no_progress,
) -> CorruptionAccuracy:
    """Accuracy at each severity of each corruption; see `summarise` for the means.

    Own corruptions decode an image once, and corrupt a batch at a time, so that little memory is needed. The published
    arrays are read slice by slice and normalised as `images` are, neither cropped nor resized.

    Args:
        model: on the images' device; run in evaluation mode and float32, and left as it was found.
        images: the test images; with `published` only their normalisation is used.
        published: CIFAR-10-C or CIFAR-100-C in the place of own corruptions.
        tick: called with the number of images just done: 75 for each image.

    Raises:
        ValueError: the images are too small, the published ones of another size, or a logit is not finite.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=2, test_per_class=1)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> measure_corruptions(model, Images(data.test, data, "cpu")).n
        10

    Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
    2019.
    """
    if published is not None:
        published.check_size(images.data.image_size)
    right = torch.zeros(len(CORRUPTIONS), len(SEVERITIES), dtype=torch.int64)
    for at, severity, x, y in _corrupted(images, published, seed):
        right[at, severity - 1] += int((clean_logits(model, x).argmax(dim=1) == y).sum())
        tick(len(y))
    n = len(images) if published is None else published.n
    accuracy = {name: (row / n).tolist() for name, row in zip(CORRUPTIONS, right.double(), strict=True)}
    return summarise(accuracy, n=n, source=OWN if published is None else PUBLISHED)


def summarise(accuracy: Mapping[str, Sequence[float]], *, n: int, source: str) -> CorruptionAccuracy:
    """Gather the accuracies of the fifteen corruptions; what else is given is left out of every mean.

    The published sets hold four corruptions more, and scripts that average all nineteen report another number than
    Table 6's mCA, which is the mean of its fifteen rows.

    Args:
        accuracy: by corruption, five fractions: severity 1 first.
        n: images at each severity, >= 1.
        source: ``PUBLISHED`` or ``OWN``.

    Raises:
        ValueError: a corruption is missing, has not five accuracies, or one is not a fraction; or n or source is wrong.

    Example:
        >>> result = summarise({name: [0.9, 0.8, 0.7, 0.6, 0.5] for name in CORRUPTIONS}, n=10, source=OWN)
        >>> round(result.mca, 12), [round(value, 12) for value in result.per_severity]
        (0.7, [0.9, 0.8, 0.7, 0.6, 0.5])
    """
    missing = [name for name in CORRUPTIONS if name not in accuracy]
    if missing:
        raise ValueError(f"accuracy: {', '.join(missing)} missing; the mean is over all {len(CORRUPTIONS)} corruptions")
    if n < 1:
        raise ValueError(f"n: {n}, expected at least 1 image")
    if source not in (PUBLISHED, OWN):
        raise ValueError(f"source: {source!r}, expected {PUBLISHED!r} or {OWN!r}")
    for name in CORRUPTIONS:
        values = accuracy[name]
        if len(values) != len(SEVERITIES) or not all(0 <= value <= 1 for value in values):  # NaN is refused as well
            raise ValueError(f"accuracy: {name} has {list(values)}, expected five fractions in [0, 1]")
    fifteen = {name: tuple(map(float, accuracy[name])) for name in CORRUPTIONS}
    return CorruptionAccuracy(
        source=source,
        n=n,
        mca=fmean(map(fmean, fifteen.values())),
        per_severity=tuple(map(fmean, zip(*fifteen.values(), strict=True))),
        accuracy=fifteen,
    )


def _corrupted(
    images: Images, published: PublishedCorruptions | None, seed: int
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Yield corruption (its place in `CORRUPTIONS`), severity, normalised images and labels."""
    kinds = [(at, name, severity) for at, name in enumerate(CORRUPTIONS) for severity in SEVERITIES]
    if published is None:
        for pixels, y in images.pixels():
            for at, name, severity in kinds:
                yield at, severity, images.normalise(_corrupt(pixels, name, severity, seed)), y
    else:
        for at, name, severity in kinds:
            for pixels, y in published.batches(name, severity, images.batch_size):
                pixels = to_channels(pixels.to(images.device), images.data.channels)
                yield at, severity, images.normalise(pixels), y.to(images.device)


def _corrupt(pixels: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Corrupt images; grey ones as such in colour, made grey again."""
    return to_channels(corrupt(to_channels(pixels, 3), name, severity, seed), pixels.shape[1])
