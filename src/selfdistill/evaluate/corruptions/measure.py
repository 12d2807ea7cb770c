"""Accuracy under corruption: of the test images corrupted here, or of the published arrays."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from selfdistill.evaluate.corruptions.apply import corrupt
from selfdistill.evaluate.corruptions.published import PublishedCorruptions
from selfdistill.evaluate.corruptions.summary import OWN, PUBLISHED, CorruptionAccuracy, summarise
from selfdistill.evaluate.corruptions.table import CORRUPTIONS, SEVERITIES
from selfdistill.evaluate.gradient import clean_logits
from selfdistill.evaluate.images import Images, Tick, no_progress


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
        seed: of own corruptions.
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


def _corrupted(
    images: Images, published: PublishedCorruptions | None, seed: int
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Yield corruption (its place in `CORRUPTIONS`), severity, normalised images and labels."""
    kinds = [(at, name, severity) for at, name in enumerate(CORRUPTIONS) for severity in SEVERITIES]
    if published is None:
        for pixels, y in images.pixels():
            for at, name, severity in kinds:
                yield at, severity, images.normalise(corrupt(pixels, name, severity, seed)), y
    else:
        for at, name, severity in kinds:
            for pixels, y in published.batches(name, severity, images.batch_size):
                yield at, severity, images.normalise(pixels.to(images.device)), y.to(images.device)
