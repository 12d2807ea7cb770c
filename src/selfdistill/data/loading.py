"""From a set of images to the batches of a run: views, partners, shares of a step, and the scored images."""

import difflib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from selfdistill.data.augment import AUGMENTS, Crop, MemoryLoader, Normalize, Request
from selfdistill.data.files import FileImages, FileLoader
from selfdistill.data.partners import PAIR_VIEW, Partners
from selfdistill.data.randomness import generator, hash_key
from selfdistill.data.sets import ImageData, Split
from selfdistill.method import Batch, Needs

_PERMUTATION = 1 << 20  # a stream of (seed, epoch) that no view's number reaches


class TrainLoader:
    """The training batches of one process of a run.

    Step s of epoch e trains on ``order[s * batch_size : (s + 1) * batch_size]``, where ``order`` is a permutation that
    depends on (seed, epoch) alone. The step's images are cut into ``world_size * passes`` contiguous shares, of which
    rank r takes ``passes`` in a row. The last step is shorter; where there are several shares it is filled up to equal
    ones from the epoch's beginning. An image's augmentation depends on (seed, epoch, index, view) alone.

    Sets in memory are moved to the device once and augmented there; files are decoded by workers.

    Args:
        data: the set; ``data.train`` is used.
        needs: views, partners and indices that the method asks for.
        batch_size: images of one optimiser step, over all ranks; a multiple of ``world_size * passes``.
        passes: batches that this rank accumulates in one optimiser step.
        seed: the run's seed.
        augment: one of ``augment.AUGMENTS``; None: the set's own.
        device: where the batches are wanted.
        workers: processes that decode files (None: one a processor, at most 8); not used for sets in memory. The images
            do not depend on it.
        rank: this process, in ``[0, world_size)``.
        world_size: the number of processes.
        channels_last: the memory format of the images.

    Attributes:
        steps: optimiser steps of an epoch, ``ceil(N / batch_size)``.

    Raises:
        ValueError: an argument out of range, an augmentation that the set does not allow, or a method that needs
            partners on a set without two images of a class.

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
        device: torch.device | str,
        workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        channels_last: bool = False,
    ):
        augment = data.augment if augment is None else augment
        _check(data, augment, batch_size, passes, workers, rank, world_size)
        self.needs, self.seed = needs, seed
        self.batch_size, self.passes, self.rank, self.shares = batch_size, passes, rank, world_size * passes
        self.steps = -(-len(data.train) // batch_size)
        self.device = torch.device(device)
        self._images: MemoryLoader | FileLoader
        if data.train.images is not None:
            flip = augment == "crop_flip"
            crop = Crop(pad=0 if augment == "none" else data.image_size // 8, flip=flip, seed=seed)
            self._images = MemoryLoader(data.train.images.to(self.device), crop)
            home = self.device  # where indices and labels are held
        else:
            self._images = _file_loader(data.train, data.image_size, augment, seed, workers, self.device)
            home = torch.device("cpu")
        self._labels = data.train.labels.to(home)
        self._partners = Partners(data.train.labels, needs.pair, seed, device=home) if needs.pair else None
        self._normalize = Normalize(data.mean, data.std, device=self.device, channels_last=channels_last)

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
        order = torch.randperm(len(self._labels), generator=generator(hash_key(self.seed, epoch, _PERMUTATION))).to(
            self._labels.device
        )
        shares = [share for step in range(start, self.steps) for share in self._share(order, step)]
        images = self._images.batches(self._request(epoch, index) for index in shares)
        batches = (self._batch(index, pixels) for index, pixels in zip(shares, images, strict=True))
        for _ in range(start, self.steps):
            yield tuple(next(batches) for _ in range(self.passes))

    def _share(self, order: Tensor, step: int) -> tuple[Tensor, ...]:
        """Return the positions of this rank's passes of a step."""
        index = order[step * self.batch_size : (step + 1) * self.batch_size]
        missing = -len(index) % self.shares
        if missing:
            index = torch.cat((index, order.repeat(-(-missing // len(order)))[:missing]))
        return index.chunk(self.shares)[self.rank * self.passes : (self.rank + 1) * self.passes]

    def _request(self, epoch: int, index: Tensor) -> Request:
        request = [(epoch, index, view) for view in range(self.needs.views)]
        if self._partners is not None:
            request.append((epoch, self._partners(epoch, index), PAIR_VIEW))
        return request

    def _batch(self, index: Tensor, pixels: Tensor) -> Batch:
        parts = torch.split(self._normalize(pixels.to(self.device, non_blocking=True)), len(index))
        views = self.needs.views
        return Batch(
            x=parts[0],
            y=self._labels[index].to(self.device, non_blocking=True),
            views=tuple(parts[1:views]),
            pair=parts[views] if self._partners is not None else None,
            index=index.to(self.device, non_blocking=True) if self.needs.index else None,
        )


def eval_batches(
    split: Split,
    data: ImageData,
    *,
    batch_size: int,
    device: torch.device | str,
    workers: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the whole split in order, without augmentation: x float32 ``(B, 3, S, S)`` normalised, y ``(B,)``.

    Files: the shorter side to S * 256/224 pixels, then the central square.

    Args:
        split: ``data.train`` or ``data.test``.
        data: the set, for its size, mean and deviation.
        batch_size: images at a time.
        device: where they are wanted.
        workers: as for :class:`TrainLoader`.

    Example:
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits")
        >>> [len(y) for _, y in eval_batches(data.test, data, batch_size=200, device="cpu")]
        [200, 159]
    """
    device = torch.device(device)
    normalize = Normalize(data.mean, data.std, device=device)
    chunks = torch.split(torch.arange(len(split)), batch_size)
    images: Iterable[Tensor]
    if split.images is not None:
        images = torch.split(split.images, batch_size)
    else:
        images = _file_loader(split, data.image_size, "none", 0, workers, device).batches(
            [(0, index, 0)] for index in chunks
        )
    for pixels, labels in zip(images, torch.split(split.labels, batch_size), strict=True):
        yield normalize(pixels.to(device, non_blocking=True)), labels.to(device, non_blocking=True)


def _file_loader(
    split: Split, size: int, augment: str, seed: int, workers: int | None, device: torch.device
) -> FileLoader:
    assert split.paths is not None  # a Split without images has paths
    return FileLoader(FileImages(split.paths, size=size, augment=augment, seed=seed), workers=workers, device=device)


def _check(
    data: ImageData, augment: str, batch_size: int, passes: int, workers: int | None, rank: int, world_size: int
) -> None:
    if augment not in AUGMENTS:
        near = difflib.get_close_matches(augment, AUGMENTS, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"augment={augment!r} is unknown{meant}: use one of {', '.join(AUGMENTS)}")
    if data.train.images is not None and augment == "resized_crop_flip":
        raise ValueError(
            f"augment={augment!r} is for image files decoded while training, and {data.name} is in memory: "
            "use 'none', 'crop' or 'crop_flip'"
        )
    if passes < 1 or world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"passes={passes}, rank={rank}, world_size={world_size}: no such share of a step")
    if batch_size < 1 or batch_size % (passes * world_size):
        raise ValueError(
            f"batch_size={batch_size}: a positive multiple of world_size x passes = {world_size} x {passes} is needed"
        )
    if workers is not None and workers < 0:
        raise ValueError(f"workers={workers}: at least 0 is needed")
