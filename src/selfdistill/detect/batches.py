"""Batches of images with their boxes: decoded by workers, mirrored, in an order that a seed gives."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import wrap_dataset_for_transforms_v2
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from selfdistill.data.decode import UnreadableImageError
from selfdistill.data.files import DecodingContext, ignore_termination_signals
from selfdistill.data.randomness import hash_key
from selfdistill.data.steps import Steps
from selfdistill.detect.coco import CocoImages

Key = tuple[int, int]
"""(epoch, index): with the run's seed, all that an image's mirroring depends on."""

Target = dict[str, Tensor]
"""Of one image with n boxes: ``boxes`` ``(n, 4)`` as left, top, right, bottom in its pixels, ``labels`` int64 ``(n,)``,
``area`` ``(n,)`` in pixels, ``iscrowd`` int64 ``(n,)``."""

_KEYS = ("boxes", "labels", "area", "iscrowd", "image_id")


class Batch(NamedTuple):
    """Images of different shapes, each float32 ``(3, H, W)`` in [0, 1], and their targets."""

    images: list[Tensor]
    targets: list[Target]


class BoxedImages(Dataset[Any]):
    """Images by :data:`Key`, uint8 ``(3, H, W)``, each with its target; or a line on why a file cannot be read.

    What is random is drawn from torch's generator, seeded by (seed, epoch, index) and put back afterwards.

    Args:
        images: what is decoded.
        flip: mirror half of them, boxes and all.
        clamp: cut boxes at the image's edge.
        seed: the run's seed.
    """

    def __init__(self, images: CocoImages, *, flip: bool = False, clamp: bool = False, seed: int = 0):
        self.images = wrap_dataset_for_transforms_v2(images, target_keys=_KEYS)
        self.seed = seed
        mirrored = [v2.RandomHorizontalFlip()] if flip else []
        clamped = [v2.ClampBoundingBoxes()] if clamp else []
        self.transform = v2.Compose([v2.ToImage(), *mirrored, *clamped])

    def __getitem__(self, key: Key) -> tuple[Tensor, Target] | str:
        epoch, index = key
        try:
            image, known = self.images[index]
        except UnreadableImageError as error:  # a line travels from a worker without a traceback around it
            return str(error)
        boxes = known.get("boxes", BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=image.size[::-1]))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(hash_key(self.seed, epoch, index) >> 1)
            image, boxes = self.transform(image, boxes)
        target = {
            "boxes": boxes.as_subclass(Tensor),
            "labels": torch.as_tensor(known.get("labels", []), dtype=torch.int64),
            "area": torch.tensor(known.get("area", []), dtype=torch.float32),
            "iscrowd": torch.tensor(known.get("iscrowd", []), dtype=torch.int64),
        }
        return image.as_subclass(Tensor), target


class BoxLoader:
    """The training batches of one process, as a function of (seed, epoch, step) alone.

    Args:
        images: to train on.
        flip: mirror half of them.
        batch_size: images of one optimiser step, over all processes.
        seed: the run's seed.
        device: where the batches go.
        workers: processes that decode; 0 decodes in this one.
        rank: this process, in ``[0, world_size)``.
        world_size: the number of processes.

    Attributes:
        steps: optimiser steps of an epoch.
    """

    def __init__(
        self,
        images: CocoImages,
        *,
        flip: bool,
        batch_size: int,
        seed: int,
        device: torch.device,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        labels = torch.zeros(len(images), dtype=torch.int64)  # no groups of one class: which is which does not matter
        self._shares = Steps(labels, batch_size=batch_size, passes=1, seed=seed, rank=rank, world_size=world_size)
        self.steps = self._shares.count
        self.device = device
        self._keys = _KeySampler()
        boxed = BoxedImages(images, flip=flip, clamp=True, seed=seed)
        self._loader = _loader(boxed, self._keys, workers, device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch]]:
        """Yield this process's batch of each step of an epoch, from a step on."""
        shares = self._shares.passes(epoch, start)
        self._keys.of_batches = [[(epoch, at) for at in share.index.tolist()] for share in shares]
        return ((batch,) for batch in _on_device(self._loader, self.device))


def in_order(images: CocoImages, *, device: torch.device, workers: int) -> Iterator[Batch]:
    """Yield every image with its target, as published, one at a time: no detection depends on other images' shapes."""
    keys = _KeySampler([[(0, at)] for at in range(len(images))])
    return _on_device(_loader(BoxedImages(images), keys, workers, device), device)


class _KeySampler:
    """A batch sampler whose lists change with every epoch, so that the workers can stay."""

    def __init__(self, of_batches: Sequence[list[Key]] = ()):
        self.of_batches = of_batches

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.of_batches)


def _loader(images: BoxedImages, keys: _KeySampler, workers: int, device: torch.device) -> DataLoader[Any]:
    return DataLoader(
        images,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=list,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=ignore_termination_signals,
        multiprocessing_context=DecodingContext() if workers else None,
        generator=torch.Generator(),  # or each epoch would draw a number from the global one
    )


def _on_device(batches: DataLoader[Any], device: torch.device) -> Iterator[Batch]:
    for items in batches:
        for item in items:
            if isinstance(item, str):
                raise RuntimeError(f"{item} (repair it, or take it out of the annotations, and start again)")
        images = [image.to(device, non_blocking=True).float() / 255 for image, _ in items]
        targets = [{name: value.to(device, non_blocking=True) for name, value in target.items()} for _, target in items]
        yield Batch(images, targets)
