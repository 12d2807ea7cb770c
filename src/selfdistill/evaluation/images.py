"""The images of one measurement, any number of passes over them, and a network's logits and features on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, Split, eval_batches
from selfdistill.data.augment import Normalize
from selfdistill.data.loading import pixel_batches
from selfdistill.evaluation.gradient import checked, plain
from selfdistill.head import find_head
from selfdistill.network import call, check_logits, eager, evaluation_mode, logits_of
from selfdistill.tap import Head, Tap

Tick = Callable[[int], None]
"""Called with the number of images just done; an image counts once for each forward pass."""

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_CACHE_LIMIT = 2 * 2**30  # bytes


@dataclass(frozen=True)
class Images:
    """Labelled images, the same in each pass and always in the same order.

    Attributes:
        split: the images.
        data: the set whose mean, standard deviation and size the network was trained with.
        device: where batches go.
        batch_size: images per batch, >= 1.
        workers: processes that decode files.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=5)
        >>> images = Images(data.test, data, device="cpu", batch_size=200)
        >>> [len(y) for _, y in images.batches()], len(images.spaced(100)), len(images.part(350))
        ([200, 159], 100, 9)
    """

    split: Split
    data: ImageData
    device: torch.device | str
    batch_size: int = 512
    workers: int = 0

    def __len__(self) -> int:
        return len(self.split)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield x, float32 ``(B, 3, S, S)`` and normalised, and y ``(B,)``."""
        return eval_batches(self.split, self.data, batch_size=self.batch_size, device=self.device, workers=self.workers)

    def pixels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same before normalisation: uint8 ``(B, 3, S, S)``, and y ``(B,)``."""
        return pixel_batches(
            self.split, self.data, batch_size=self.batch_size, device=self.device, workers=self.workers
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Uint8 ``(B, 3, S, S)`` to what the network takes."""
        return Normalize(self.data.mean, self.data.std, device=self.device)(pixels)

    def part(self, start: int, stop: int | None = None) -> Images:
        """The images from position ``start`` up to ``stop``, in their order."""
        return replace(self, split=self.split.select(torch.arange(len(self))[start:stop]))

    def spaced(self, most: int) -> Images:
        """At most ``most`` images, evenly spaced."""
        return replace(self, split=self.split.spaced(most))

    def cached(self) -> Images:
        """The same with the files decoded once and cached in memory, if that takes at most 2 GiB."""
        size = self.data.image_size
        if self.split.images is not None or len(self) * 3 * size * size > _CACHE_LIMIT:
            return self
        pixels = torch.cat([part.cpu() for part, _ in self.pixels()])
        return replace(self, split=Split(self.split.labels, images=pixels))


def predict(
    model: nn.Module, batches: Iterable[tuple[Any, Tensor]], *, precision: str = "32-true"
) -> tuple[Tensor, Tensor]:
    """All logits of a model, in eval mode and without gradients.

    Args:
        model: a tensor is passed as `model(x)`, a mapping as `model(**x)`; any output that
            `selfdistill.tap.logits_of` understands.
        batches: pairs (x, y) already on the model's device.
        precision: one of `PRECISIONS`.

    Returns:
        Logits (N, C), float32, and labels (N,), int64, both on the CPU and in the order of the batches.

    Raises:
        ValueError: no batch, or an unknown precision.
        NonFiniteError: an image has no largest finite logit.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> logits, labels = predict(model, [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))])
        >>> logits.shape, logits.dtype, model.training
        (torch.Size([4, 2]), torch.float32, True)
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: {precision!r}, expected {' or '.join(PRECISIONS)}")
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluation_mode(model), torch.inference_mode():
        for x, y in batches:
            context: AbstractContextManager[Any] = nullcontext()
            if precision != "32-true":
                context = torch.autocast(y.device.type, dtype=PRECISIONS[precision])
            with context:
                output = call(model, x)
            logits.append(logits_of(output).float().cpu())
            check_logits(logits[-1], "images of a batch")
            labels.append(y.cpu())
    if not logits:
        raise ValueError("batches: nothing to predict, they hold no images")
    return torch.cat(logits), torch.cat(labels)


@dataclass(frozen=True, eq=False)
class Reading:
    """What one pass over a set reads.

    Attributes:
        logits: z = h(f(x)), (N, C), float32, on the CPU.
        features: f(x) as the head reads it, (N, D) or maps (N, D, 1, 1), float32, on the CPU.
        labels: y, (N,), on the CPU.
        head: h, on the model's device.
    """

    logits: Tensor
    features: Tensor
    labels: Tensor
    head: Head


def read_features(model: nn.Module, batches: Iterable[tuple[Any, Tensor]], *, head: str | None = None) -> Reading:
    """Logits and features of any model in one pass over a set, in evaluation mode, float32 and without gradients.

    Args:
        model: any classifier; a hook reads its head's input and is taken away again.
        batches: pairs (x, y) already on the model's device, x a tensor or a mapping.
        head: the head's dotted name; None: found by `selfdistill.head.find_head` on the first batch.

    Raises:
        ValueError: no batch, no head, or a logit that is not finite.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> reading = read_features(model, [(torch.zeros(4, 8), torch.zeros(4))])
        >>> reading.features.shape, bool((reading.head(reading.features) == reading.logits).all())
        (torch.Size([4, 16]), True)
    """
    tap: Tap | None = None
    logits, features, labels = [], [], []
    try:
        for x, y in batches:
            if tap is None:
                tap = Tap(eager(model), find_head(model, x) if head is None else head)
            with (
                evaluation_mode(model),
                torch.inference_mode(False),
                torch.no_grad(),  # after it: leaving inference mode switches gradients on
                torch.autocast(y.device.type, enabled=False),
            ):
                (outputs,) = tap.outputs(model, x)
            logits.append(checked(outputs.logits.flatten(1)).cpu())
            features.append(plain(outputs.features).cpu())
            labels.append(y.cpu())
    finally:
        if tap is not None:
            tap.close()
    if tap is None:
        raise ValueError("batches: they hold no image to read")
    with torch.inference_mode(False):
        return Reading(torch.cat(logits), torch.cat(features), torch.cat(labels), tap.head)
