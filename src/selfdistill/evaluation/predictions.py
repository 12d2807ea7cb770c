"""The predictions that a run keeps, with pictures of its surest mistakes and of its least sure right answers."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from selfdistill.data import ImageData, Split
from selfdistill.data.decode import UnreadableImageError, read_rgb
from selfdistill.data.sets import spaced_positions
from selfdistill.evaluation.grad_cam import grad_cam
from selfdistill.evaluation.images import Images
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
    return replace(kept, shown=shown, thumbnails=tuple(thumbnail(data.test, at) for at in shown))


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


def with_grad_cam(
    kept: Predictions, model: nn.Module, data: ImageData, *, device: torch.device, layer: str | None = None
) -> Predictions:
    """Return the predictions with a second picture of each image shown: what the network saw, and where in it.

    Args:
        kept: a run's predictions of the test images, with some thumbnails.
        model: the run's network, on ``device``.
        data: the run's images.
        layer: see `selfdistill.evaluation.grad_cam.grad_cam`.

    Raises:
        ValueError: the network is not convolutional, or its layer is not known.
    """
    from matplotlib import colormaps

    shown = Images(data.test.select(torch.tensor(kept.shown)), data, device, batch_size=len(kept.shown))
    predicted = torch.from_numpy(kept.predicted[list(kept.shown)]).to(device)
    pictures = []
    for pixels, _ in shown.pixels():
        cams = grad_cam(model, shown.normalise(pixels), predicted, layer=layer).cpu().numpy()
        for image, cam in zip(pixels.cpu(), cams, strict=True):
            heat = Image.fromarray((255 * colormaps["turbo"](cam)[..., :3]).astype(np.uint8))
            pictures.append(_encoded(Image.blend(_picture(image).convert("RGB"), heat, 0.5), "JPEG"))
    return replace(kept, heat_maps=tuple(pictures))


def thumbnail(split: Split, at: int) -> bytes:
    """Return a small picture of an image: PNG of one kept in memory, JPEG of a file; empty if it cannot be read."""
    if split.images is not None:
        return _encoded(_picture(split.images[at]), "PNG")
    assert split.paths is not None
    try:
        return _encoded(read_rgb(split.paths[at], None if split.boxes is None else split.boxes[at].tolist()), "JPEG")
    except UnreadableImageError:
        return b""


def _picture(pixels: Tensor) -> Image.Image:
    """Uint8 ``(K, H, W)``; of other numbers of channels than 1 and 3 the first is shown."""
    channels = pixels if len(pixels) in (1, 3) else pixels[:1]
    return Image.fromarray(channels.permute(1, 2, 0).squeeze(2).numpy())


def _encoded(image: Image.Image, kind: str) -> bytes:
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, kind, **({"quality": 80} if kind == "JPEG" else {}))
    return content.getvalue()
