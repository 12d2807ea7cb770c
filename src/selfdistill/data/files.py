"""Image files decoded during a run, with transforms v2, by worker processes: what they do about signals and losses."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import Process, active_children, get_context
from multiprocessing.context import DefaultContext
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfdistill.data.augment import NO_POLICY, Crop, Policy, Request, seeded
from selfdistill.data.decode import (
    UnreadableImageError,
    cpu_count,
    read_rgb,
    to_shorter_side,
    to_square,
    to_tensor,
)
from selfdistill.data.packed import CachedImages, Packed
from selfdistill.data.sets import BILINEAR, Resizing

Key = tuple[int, int, int]
"""(epoch, index, view): with the run's seed, all that an augmentation depends on."""

_GRACE = 5
"""Seconds that a worker keeps working after SIGTERM or SIGHUP."""


class FileImages(Dataset[Tensor | str]):
    """Augmented images by :data:`Key`: uint8 ``(3, S, S)``, or a line on why the file cannot be read.

    The item is drawn from torch's generator, seeded by (seed, epoch, index, view) and put back afterwards.

    Args:
        paths: the files.
        size: S, in pixels.
        augment: ``"none"``: resized to the margin of S, then the central square; ``"crop"``: a random square
            instead; ``"crop_flip"``: mirrored half of the times too; ``"resized_crop_flip"``: 8 to 100 % of the area,
            3:4 to 4:3, resized, and mirrored half of the times.
        seed: the run's seed.
        boxes: the part of each file, as in :class:`~selfdistill.data.sets.Split`; None: all of it.
        resize: the shorter side in pixels that a file is resized to first; None: it is augmented as it is.
        cache: the files decoded and resized already; used where they are resized to its side in the same way.
        policy: what follows.
        resizing: the margin of S, how files come to it, and the interpolation.

    Small images of containers are squares, and not augmented: see :class:`SquareLoader`.
    """

    def __init__(
        self,
        paths: tuple[Path, ...] | Packed,
        *,
        size: int,
        augment: str,
        seed: int,
        boxes: Tensor | None = None,
        resize: int | None = None,
        cache: CachedImages | None = None,
        policy: Policy = NO_POLICY,
        resizing: Resizing = BILINEAR,
    ):
        self.paths, self.seed, self.boxes, self.resize = paths, seed, boxes, resize
        self.squares = isinstance(paths, Packed) and paths.small
        self.interpolation = resizing.interpolation
        self.size, self.transform = size, _transform(size, augment, policy, resizing)
        first = resize if resize is not None or augment == "resized_crop_flip" else resizing.shorter_side(size)
        self.cache = cache if cache is not None and cache.fits(first, resizing.interpolation) else None

    def __getitem__(self, key: Key) -> Tensor | str:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[Key]) -> list[Tensor | str]:
        """Return a batch; a file of which there are several views is decoded once."""
        views: dict[int, list[Key]] = {}
        for key in keys:
            views.setdefault(key[1], []).append(key)
        items = {key: item for index, alike in views.items() for key, item in self._views(index, alike)}
        return [items[key] for key in keys]

    def _views(self, index: int, keys: list[Key]) -> Iterator[tuple[Key, Tensor | str]]:
        try:
            image = self._read(index % len(self.paths))
        except UnreadableImageError as error:  # a line travels from a worker without a traceback around it
            yield from ((key, str(error)) for key in keys)
            return
        if self.squares:  # augmented a batch at a time
            item = to_tensor([to_square(image, self.size)])[0]
            yield from ((key, item) for key in keys)
            return
        for epoch, _, view in keys:
            with seeded(self.seed, epoch, index, view):
                item = self.transform(image)
            yield (epoch, index, view), item

    def _read(self, index: int) -> Image.Image:
        image = None if self.cache is None else self.cache[index]
        side = None if self.cache is None else self.cache.side
        if image is not None and side is not None:
            return image
        if image is None:
            image = read_rgb(self.paths[index], None if self.boxes is None else self.boxes[index].tolist())
        side = self.resize if side is None else side  # which is the first size in any case
        return image if side is None else to_shorter_side(image, side, self.interpolation)


class DecodingProcess(Process):
    """A worker of a DataLoader of ours."""


class DecodingContext(DefaultContext):
    """What a DataLoader starts its workers with, so that they can be told from other processes."""

    Process = DecodingProcess

    def __init__(self) -> None:
        super().__init__(get_context())


class FileLoader:
    """Batches of :class:`FileImages`, in the order asked for, whatever the number of workers.

    Args:
        images: what is loaded.
        workers: processes; 0 decodes in this one; None is one per CPU, at most 8. They live as long as the loader.
        device: a CUDA device has the batches in pinned memory.
    """

    def __init__(self, images: FileImages, *, workers: int | None, device: torch.device):
        count = min(8, cpu_count()) if workers is None else workers
        self.wanted = _Wanted()
        self.loader: DataLoader[Tensor | str] = DataLoader(
            images,
            batch_sampler=self.wanted,
            num_workers=count,
            collate_fn=_collate,
            persistent_workers=count > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=ignore_termination_signals,
            multiprocessing_context=DecodingContext() if count else None,
            generator=torch.Generator(),  # or each epoch would draw a number from the global one
        )

    def batches(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield uint8 ``(sum of B, 3, S, S)`` for each request.

        Raises:
            RuntimeError: a file cannot be read any more; one line that names it. Or a worker was lost.
        """
        self.wanted.requests = iter(requests)
        try:
            for batch in self.loader:
                if isinstance(batch, str):
                    raise RuntimeError(
                        f"{batch} (repair or replace it, or pass `skip_unreadable=True`, and start again)"
                    )
                yield batch
        except (ConnectionError, EOFError) as error:  # its batch was still to be fetched, or torch would tell
            raise RuntimeError("DataLoader worker was lost with a batch") from error
        finally:
            # What asks holds this loader. In a cycle its queues would be closed before they could tell the workers to
            # end, and each worker would be waited for for ten seconds.
            self.wanted.requests = iter(())


class SquareLoader:
    """Batches of small images that workers decode, augmented a batch at a time as those in memory are.

    Args:
        files: gives the images as they are.
        crop: how they are augmented.
        policy: what follows.
    """

    def __init__(self, files: FileLoader, crop: Crop, policy: Policy):
        self.files, self.crop, self.policy = files, crop, policy

    def batches(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield uint8 ``(sum of B, 3, S, S)`` for each request, as :class:`FileLoader` does."""
        asked: deque[Request] = deque()

        def noted() -> Iterator[Request]:
            for request in requests:
                asked.append(request)
                yield request

        for pixels in self.files.batches(noted()):
            request = asked.popleft()
            parts = pixels.split([len(index) for _, index, _ in request])
            yield torch.cat([self._part(part, *one) for part, one in zip(parts, request, strict=True)])

    def _part(self, pixels: Tensor, epoch: int, index: Tensor, view: int) -> Tensor:
        return self.policy.apply(self.crop(pixels, index, epoch, view), index, self.crop.seed, epoch, view)


def ignore_termination_signals(worker: int) -> None:
    """Let a worker process survive SIGINT, and SIGTERM or SIGHUP for some seconds, so that the run can still save."""
    # Ctrl-C, a closed terminal and a scheduler's SIGTERM reach every process at once, and the run still needs the next
    # batch before it can save. Ignoring SIGTERM for good would hold up a process that ends its workers by it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "SIGALRM"):  # Windows, where nothing but Ctrl-C is a signal to another process
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, frame: signal.alarm(_GRACE))
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))


def ignore_lost_workers() -> None:
    """Take torch's handler away, which raises in the main thread when a worker ends; Windows has none."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@contextmanager
def explained_worker_losses() -> Iterator[None]:
    """Say in one line that a decoding process was lost, and end the others: they may wait for what it held.

    Raises:
        RuntimeError: one was lost; the remedy.
    """
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if not reason.startswith("DataLoader worker"):
            raise
        if threading.current_thread() is threading.main_thread():
            ignore_lost_workers()  # torch's handler would raise for each that is ended here
        for process in active_children():
            if isinstance(process, DecodingProcess):
                process.kill()
        reason = reason.removeprefix("DataLoader worker ").partition(". ")[0].rstrip(".")
        raise RuntimeError(
            f"a decoding worker {reason}, as happens where memory runs out: run the same command again, with fewer "
            "`workers` if it did"
        ) from None


class _Wanted:
    """A batch sampler whose lists change with every epoch, so that the workers can stay."""

    requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[list[Key]]:
        while (request := next(self.requests, None)) is not None:  # a loop over them would hold them
            yield [(epoch, at, view) for epoch, index, view in request for at in index.tolist()]


def _collate(items: list[Tensor | str]) -> Tensor | str:
    images = [item for item in items if isinstance(item, Tensor)]
    return torch.stack(images) if len(images) == len(items) else next(i for i in items if isinstance(i, str))


def _transform(size: int, augment: str, policy: Policy, resizing: Resizing) -> Callable[[Image.Image], Tensor]:
    from torchvision.transforms import InterpolationMode, v2

    how = InterpolationMode(resizing.interpolation)
    side = resizing.margin(size)
    resize = v2.Resize(side if resizing.crop_mode == "center" else (side, side), how)
    steps = {
        "none": [resize, v2.CenterCrop(size)],
        "crop": [resize, v2.RandomCrop(size)],
        "crop_flip": [resize, v2.RandomCrop(size), v2.RandomHorizontalFlip()],
        "resized_crop_flip": [v2.RandomResizedCrop(size, interpolation=how), v2.RandomHorizontalFlip()],
    }[augment]
    compose: Callable[[Image.Image], Tensor] = v2.Compose(
        [*steps, *policy.of_pictures(), v2.PILToTensor(), *policy.of_pixels()]
    )
    return compose
