"""The predictions that a run keeps, with thumbnails of its surest mistakes and of its least sure right answers."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from selfdistill.data import ImageData, Split
from selfdistill.data.decode import UnreadableImageError, read_rgb
from selfdistill.data.sets import spaced_positions
from selfdistill.records.predictions import Predictions

MAX_VALUES = 20_000_000
"""Of more logits than this none are kept: 80 MB."""

OF_EACH = 12
"""So many surest mistakes and as many least sure right answers have a thumbnail."""

SIDE = 96
"""The longer side of a thumbnail, in pixels."""


def predictions_to_keep(logits: Tensor, labels: Tensor, data: ImageData) -> Predictions | None:
    """Return a network's predictions of the test images, with some thumbnails; None if they are too many to be kept.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        data: whose test images they are of.
    """
    if logits.numel() > MAX_VALUES:
        return None
    kept = Predictions(logits.float().cpu().numpy(), labels.cpu().numpy(), data.classes)
    shown = images_to_show(kept)
    thumbnails = tuple(thumbnail(data.test, at) for at in shown)
    return Predictions(kept.logits, kept.labels, kept.classes, shown, thumbnails)


def outputs_to_keep(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Predictions:
    """Return a network's outputs on validation images; of too many, evenly spaced ones, as many as can be kept.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
    """
    some = spaced_positions(len(labels), MAX_VALUES // logits.shape[1])
    return Predictions(logits[some].float().cpu().numpy(), labels[some].cpu().numpy(), tuple(classes))


def images_to_show(kept: Predictions) -> tuple[int, ...]:
    """Return the positions of the surest mistakes, the surest first, and of the right answers, the least sure first.

    Example:
        >>> logits = np.array([[9, 0], [1, 0], [2, 0], [0, 3]], np.float32)
        >>> images_to_show(Predictions(logits, np.array([1, 1, 0, 1]), ("a", "b")))
        (0, 1, 2, 3)
    """
    confidence, right = kept.probabilities.max(axis=1), kept.predicted == kept.labels
    order = np.argsort(confidence, kind="stable")
    surest_mistakes = [at for at in np.argsort(-confidence, kind="stable").tolist() if not right[at]]
    return (*surest_mistakes[:OF_EACH], *[at for at in order.tolist() if right[at]][:OF_EACH])


def thumbnail(split: Split, at: int) -> bytes:
    """Return a small picture of an image: PNG of one kept in memory, JPEG of a file; empty if it cannot be read."""
    if split.images is not None:
        channels = split.images[at] if split.images.shape[1] in (1, 3) else split.images[at][:1]  # the first is shown
        image = Image.fromarray(channels.permute(1, 2, 0).squeeze(2).numpy())
    else:
        assert split.paths is not None
        try:
            image = read_rgb(split.paths[at], None if split.boxes is None else split.boxes[at].tolist())
        except UnreadableImageError:
            return b""
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, **({"format": "PNG"} if split.images is not None else {"format": "JPEG", "quality": 80}))
    return content.getvalue()
