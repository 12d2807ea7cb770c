"""From a set of images to the batches of a run: views, partners, the previous batch anew, and the scored images."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from selfdistill.data.arrays import to_channels
from selfdistill.data.augment import (
    AUGMENTS,
    NO_POLICY,
    Crop,
    FeatureLoader,
    MemoryLoader,
    Normalize,
    Policy,
    Request,
)
from selfdistill.data.files import FileImages, FileLoader, SquareLoader
from selfdistill.data.same_class import PAIR_VIEW, PairSampler
from selfdistill.data.sets import ImageData, Split
from selfdistill.data.steps import Pass, Steps
from selfdistill.errors import ArgumentError
from selfdistill.method import Batch, Needs
from selfdistill.text import suggest

PREVIOUS_VIEW = -2
"""The view number of the previous batch's images, so that they are augmented anew."""

GROUP_VIEWS = 1 << 10
"""Added to a view's number for a group's second image, twice for its third: the same image may stand there again."""


class TrainLoader:
    """The training batches of one process of a run.

    Which images per step has is a function of (seed, epoch, step) alone, see :class:`~selfdistill.data.steps.Steps`: a
    part of the epoch's permutation, or with ``needs.group`` a part of half, a third, ... that size, each image of it
    followed by others of its class, which are ordinary images of the batch. An image's augmentation depends on (seed,
    epoch, index, view) alone. The previous batch is that of this rank's pass before, be it of the same step or of
    another epoch, under a view of its own; only the training's first pass has none.

    Sets in memory are moved to the device once and augmented there; files are decoded by workers.

    Args:
        data: the set; ``data.train`` is used.
        needs: views, partners, groups, indices and previous batches that the method asks for.
        batch_size: images of one optimiser step, over all ranks; a multiple of ``group * world_size * passes``.
        passes: batches that this rank accumulates in one optimiser step.
        seed: the run's seed.
        augment: one of ``augment.AUGMENTS``; None: the set's own.
        policy: what is done to an image after that.
        resize: the shorter side in pixels that files are resized to before that, at least the images' side; None: they
            are augmented as they are.
        device: where the batches are wanted.
        workers: processes that decode files (None: one per CPU, at most 8); not used for sets in memory. The images
            do not depend on it.
        rank: this process, in ``[0, world_size)``.
        world_size: the number of processes.
        channels_last: the memory format of the images.
        balanced: draw all classes equally often, as :class:`~selfdistill.data.steps.Steps` says.
        features: of each image some augmented views ``(V, N, ...)``, which take the images' place: one is drawn.

    Attributes:
        steps: optimiser steps of an epoch, ``ceil(N / B)``, where B = ``batch_size / group`` counts a step's anchors;
            one less where the last one would be of a single image, which is joined to the step before.

    Raises:
        ValueError: an argument out of range, an augmentation that the set does not allow, or a method that needs
            partners or groups of a set without two images of a class.

    Example:
        >>> from selfdistill.data import load_data
        >>> loader = TrainLoader(load_data("digits", per_class=5), Needs(views=2), batch_size=32, seed=0, device="cpu")
        >>> loader.steps, [tuple(batch.x.shape) for (batch,) in loader.epoch(0)]
        (2, [(32, 3, 32, 32), (18, 3, 32, 32)])
    """

    def __init__(
        self,
        data: ImageData,
        needs: Needs,
        *,
        batch_size: int,
        passes: int = 1,
        seed: int,
        augment: str | None = None,
        policy: Policy = NO_POLICY,
        resize: int | None = None,
        device: torch.device | str,
        workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool = False,
        balanced: bool = False,
        features: Tensor | None = None,
    ):
        self.needs, self.passes = needs, passes
        self.device = torch.device(device)
        self._images: MemoryLoader | FileLoader | SquareLoader | FeatureLoader
        if features is None:
            self._images = _train_images(data, augment, policy, seed, resize, self.device, workers, balanced)
        else:
            self._images = FeatureLoader(features.to(self.device), seed)
        # Where indices and labels are held: beside the images.
        home = torch.device("cpu") if isinstance(self._images, FileLoader | SquareLoader) else self.device
        self._labels = data.train.labels.to(home)
        self._steps = Steps(
            self._labels,
            group=needs.group,
            batch_size=batch_size,
            passes=passes,
            seed=seed,
            rank=rank,
            world_size=world_size,
            balanced=balanced,
        )
        self.steps = self._steps.count
        self._pair_sampler = PairSampler(data.train.labels, needs.pair, seed, device=home) if needs.pair else None
        self._normalize = Normalize(data.mean, data.std, device=self.device, channels_last=channels_last)
        self._takes_pixels = features is None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, ...]]:
        """Yield this rank's ``passes`` batches of each step, from step ``start`` on.

        Raises:
            ValueError: ``start`` is not in ``[0, steps]``.
            RuntimeError: an image file cannot be read any more.
        """
        if not 0 <= start <= self.steps:
            raise ValueError(f"start={start}: an epoch has {self.steps} steps")
        return self._epoch(epoch, start)

    def _epoch(self, epoch: int, start: int) -> Iterator[tuple[Batch, ...]]:
        passes = self._steps.passes(epoch, start)
        before: list[Pass | None] = [None] * len(passes)
        if self.needs.previous:
            before = [self._steps.before(epoch, start), *passes][: len(passes)]
        images = self._images.batches(map(self._request, passes, before))
        batches = (self._batch(*made) for made in zip(passes, before, images, strict=True))
        for _ in range(start, self.steps):
            yield tuple(next(batches) for _ in range(self.passes))

    def _request(self, now: Pass, before: Pass | None) -> Request:
        request = [part for view in range(self.needs.views) for part in self._parts(now.epoch, now.draw, view)]
        if self._pair_sampler is not None:
            partners = self._pair_sampler(now.epoch, now.index)
            request += self._parts(now.epoch, partners + (now.draw - now.index), PAIR_VIEW)
        if before is not None:
            request += self._parts(before.epoch, before.draw, PREVIOUS_VIEW)
        return request

    def _parts(self, epoch: int, drawn: Tensor, view: int) -> Request:
        """Ask for one view of some images: the anchors, then the second image of every group, and so on."""
        group = self.needs.group
        return [(epoch, drawn[nth::group], view + nth * GROUP_VIEWS) for nth in range(group)]

    def _batch(self, now: Pass, before: Pass | None, pixels: Tensor) -> Batch:
        alike = self.needs.views + (self._pair_sampler is not None)  # as many images of each
        sizes = [len(now.index)] * alike + ([] if before is None else [len(before.index)])
        parts = [self._finish(part) for part in torch.split(pixels.to(self.device, non_blocking=True), sizes)]
        return Batch(
            x=parts[0],
            y=self._y(now),
            views=tuple(parts[1 : self.needs.views]),
            pair=parts[self.needs.views] if self._pair_sampler is not None else None,
            index=now.index.to(self.device, non_blocking=True) if self.needs.index else None,
            previous=None if before is None else (parts[-1], self._y(before)),
        )

    def _finish(self, pixels: Tensor) -> Tensor:
        """Put each anchor's group behind it again (see :meth:`_parts`), and normalise."""
        group = self.needs.group
        apart = pixels.view(group, -1, *pixels.shape[1:])
        together = apart.transpose(0, 1).flatten(0, 1)
        return self._normalize(together) if self._takes_pixels else together

    def _y(self, one: Pass) -> Tensor:
        return self._labels[one.index].to(self.device, non_blocking=True)


def view_batches(
    data: ImageData,
    view: int,
    *,
    augment: str | None,
    policy: Policy,
    resize: int | None,
    batch_size: int,
    device: torch.device | str,
    workers: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all training images in order under one augmentation each, that of seed 0's epoch number ``view``.

    Args:
        view: 0, 1, ...
        augment: as for :class:`TrainLoader`, like the rest.
    """
    normalize = Normalize(data.mean, data.std, device=torch.device(device))
    chunks = torch.split(torch.arange(len(data.train)), batch_size)
    images = _train_images(data, augment, policy, 0, resize, torch.device("cpu"), workers)
    for index, pixels in zip(chunks, images.batches([(view, index, 0)] for index in chunks), strict=True):
        yield normalize(pixels.to(device, non_blocking=True)), data.train.labels[index].to(device)


def eval_batches(
    split: Split,
    data: ImageData,
    *,
    batch_size: int,
    device: torch.device | str,
    workers: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the whole split in order, without augmentation: x float32 ``(B, C, S, S)`` normalised, y ``(B,)``.

    Files: the shorter side to the set's margin of S, then the central square, whatever the training resizes them to
    before. A cache of that side is used.

    Args:
        split: ``data.train`` or ``data.test``.
        workers: as for :class:`TrainLoader`.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits")
        >>> [len(y) for _, y in eval_batches(data.test, data, batch_size=200, device="cpu")]
        [200, 159]
    """
    normalize = Normalize(data.mean, data.std, device=torch.device(device))
    for pixels, labels in pixel_batches(split, data, batch_size=batch_size, device=device, workers=workers):
        yield normalize(pixels), labels


def pixel_batches(
    split: Split,
    data: ImageData,
    *,
    batch_size: int,
    device: torch.device | str,
    workers: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `eval_batches` yields before it is normalised: uint8 ``(B, C, S, S)``, and y ``(B,)``.

    Images in colour become grey where the set is grey.
    """
    device = torch.device(device)
    chunks = torch.split(torch.arange(len(split)), batch_size)
    images: Iterable[Tensor]
    if split.images is not None:
        images = torch.split(split.images, batch_size)
    else:
        files = FileLoader(_file_images(split, data, "none", 0, None), workers=workers, device=device)
        images = files.batches([(0, index, 0)] for index in chunks)
    for pixels, labels in zip(images, torch.split(split.labels, batch_size), strict=True):
        pixels = to_channels(pixels.to(device, non_blocking=True), data.channels)
        yield pixels, labels.to(device, non_blocking=True)


def _train_images(
    data: ImageData,
    augment: str | None,
    policy: Policy,
    seed: int,
    resize: int | None,
    device: torch.device,
    workers: int | None,
    repeats: bool = False,
) -> MemoryLoader | FileLoader | SquareLoader:
    augment = data.augment if augment is None else augment
    _check(data, augment, resize, workers, policy)
    crop = Crop(pad=0 if augment == "none" else data.image_size // 8, flip=augment == "crop_flip", seed=seed)
    if data.train.images is not None:
        return MemoryLoader(data.train.images.to(device), crop, policy, repeats=repeats)
    images = _file_images(data.train, data, augment, seed, resize, policy)
    files = FileLoader(images, workers=workers, device=device)
    return SquareLoader(files, crop, policy) if data.train.is_small else files


def _file_images(
    split: Split, data: ImageData, augment: str, seed: int, resize: int | None, policy: Policy = NO_POLICY
) -> FileImages:
    assert split.paths is not None  # a Split without images has paths
    return FileImages(
        split.paths,
        size=data.image_size,
        augment=augment,
        seed=seed,
        boxes=split.boxes,
        resize=resize,
        cache=split.cache,
        policy=policy,
        resizing=data.resizing,
    )


def _check(data: ImageData, augment: str, resize: int | None, workers: int | None, policy: Policy) -> None:
    if data.channels not in (1, 3) and policy.auto != "none":
        raise ArgumentError("auto_augment", f"is for images of 1 or 3 channels, and {data.name} has {data.channels}")
    if augment not in AUGMENTS:
        raise ArgumentError("augment", f"must not be {augment!r}; {suggest(augment, AUGMENTS)}")
    in_memory = f"which is for image files decoded while training, and {data.name} is of small images"
    if data.train.is_small and augment == "resized_crop_flip":
        raise ArgumentError("augment", f"is {augment!r}, {in_memory}: use 'none', 'crop' or 'crop_flip'")
    if data.train.is_small and resize is not None:
        raise ArgumentError("resize", f"is {resize}, {in_memory}")
    if resize is not None and resize < data.image_size:
        raise ArgumentError("resize", f"must be at least the images' {data.image_size} pixels, not {resize}")
    if workers is not None and workers < 0:
        raise ArgumentError("workers", f"must be at least 0, not {workers}")
