"""Make and find caches: image files decoded and resized once, in one file with checksums."""

import hashlib
import os
import re
import shutil
import warnings
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from selfdistill.data.decode import (
    UnreadableImageError,
    cpu_count,
    encoded,
    open_image,
    read_rgb,
    sides_for,
    to_shorter_side,
)
from selfdistill.data.packed import CachedImages, ImageFile, Index
from selfdistill.data.sets import ImageData, Split
from selfdistill.files import lock, open_file, open_lock, remove_leftovers
from selfdistill.progress import track

_FORMAT = 2  # of the file, and of how its pixels are made
_ROW, _CHECKSUM = 4 * 8, 32  # bytes of an image in the index, and of the index's checksum
_WHOLE = 2**30  # bytes of decoded files that are kept unasked
_AHEAD = 128  # images that are decoded before they are written, at most

Box = list[int] | None


class _TooLargeError(Exception):
    """Decoded images would take more bytes than they may."""


def with_cache(data: ImageData, side: int | None, folder: Path, most: int | None = None) -> ImageData:
    """Return a set whose files are decoded once: resized, they are kept in ``folder``, and found there the next time.

    The training images are kept, and the test images where they are resized to the same side before their centre is
    cut out, the margin of S; without a side all images, as large as they are. A set in memory is returned as it is.

    A cache belongs to the files' paths, sizes and times of change, and to the side: where one of these is another, a
    new one is made, and the old one stays. Only a damaged cache is ever deleted; whoever needs the room may, at any
    time. Each image has a checksum that is compared whenever it is read; a damaged one is decoded from its own file.

    Args:
        side: the shorter side of the kept images in pixels, at least 1; None: they are not resized.
        most: bytes that a new cache may take; None: all that are free. One that is there is used.

    Raises:
        ValueError: a file cannot be decoded.
        OSError: the cache cannot be written, or there is too little room for it.
    """
    interpolation = data.resizing.interpolation
    if data.train.is_small or (data.train.cache is not None and data.train.cache.fits(side, interpolation)):
        return data
    interpolation = "bilinear" if side is None else interpolation
    names = ["train"]
    if side in (None, data.resizing.shorter_side(data.image_size)):
        names += ["test"] if data.val is None else ["test", "val"]
    splits: list[Split] = [getattr(data, name) for name in names]
    paths = [path for split in splits for path in split.paths or ()]
    boxes: list[Box] = [box for split in splits for box in _boxes(split)]
    name = re.sub(r"[^\w.-]+", "-", data.name)
    images = cached_images(paths, boxes, side=side, name=name, folder=folder, interpolation=interpolation, most=most)
    index = torch.arange(len(paths)).split([len(split) for split in splits])
    kept: dict[str, Any] = {
        name: replace(split, cache=images.select(at)) for name, split, at in zip(names, splits, index, strict=True)
    }
    return replace(data, **kept)


def decoded_once(data: ImageData, folder: Path) -> ImageData:
    """Return a set whose files are decoded once, as `with_cache` keeps them unless that takes more than 1 GiB.

    What is trained on and scored is the same to the bit.

    Raises:
        ValueError: a file cannot be decoded.
    """
    if data.train.cache is not None or data.train.is_small:
        return data
    try:
        return with_cache(data, None, folder, most=_WHOLE)
    except _TooLargeError:
        return data
    except OSError as error:
        warnings.warn(f"photographs are decoded in each epoch: {error}", stacklevel=2)
        return data


def cached_images(
    paths: Sequence[ImageFile],
    boxes: Sequence[Box],
    *,
    side: int | None,
    name: str,
    folder: Path,
    interpolation: str = "bilinear",
    most: int | None = None,
) -> CachedImages:
    """Return image files, or a rectangle of each, resized to a shorter side if any; decoded if they are not kept yet.

    Several processes may ask at once: one decodes, the others wait for it. A cache is there whole or not at all.

    Args:
        boxes: of each file the rectangle, as :func:`~selfdistill.data.decode.read_rgb` takes it; None: all of it.
        side: in pixels.
        interpolation: see :class:`~selfdistill.data.sets.Resizing`.
        most: as for `with_cache`.

    Raises:
        ValueError: a file cannot be decoded.
        OSError: the cache cannot be written, or there is too little room for it.
    """
    file = folder / f"{name}-{_key(paths, boxes, side, interpolation)}.pixels"
    try:
        index = _read_index(file, len(paths))
        if index is None:
            if most is not None:
                _check_size(paths, boxes, side, most)
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                index = _read_index(file, len(paths))  # another process may have been at it
                if index is None:
                    _check_room(folder, paths, boxes, side)
                    with closing(_decoded(paths, boxes, side, interpolation)) as images:
                        index = _write(file, images, len(paths))
        return CachedImages(file, side, index, interpolation)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"decoded images cannot be kept in {folder}: {reason}; choose another `data_root`, or do "
            "without `cache=True`"
        ) from None


def _boxes(split: Split) -> Iterable[Box]:
    return [None] * len(split) if split.boxes is None else split.boxes.tolist()


def _key(paths: Sequence[ImageFile], boxes: Sequence[Box], side: int | None, interpolation: str) -> str:
    """Name what a cache holds; a decoder of another version may decode a little differently."""
    how = () if interpolation == "bilinear" else (interpolation,)  # so that older caches are found
    digest = hashlib.sha256(repr((_FORMAT, PIL.__version__, side, *how)).encode())
    for path, box in zip(paths, boxes, strict=True):
        try:
            if isinstance(path, Path):
                known = path.stat()
                identity: tuple[Any, ...] = str(path.absolute()), known.st_size, known.st_mtime_ns
            else:
                identity = path.container.identify(path.row)
        except OSError as error:
            raise _unreadable(f"{path}: {error.strerror}") from None
        digest.update(repr((*identity, box)).encode())
    return digest.hexdigest()[:16]


def _read_index(file: Path, count: int) -> Index | None:
    """Return the index of a cache, or None: it is not there, it is damaged, or somebody cut it short."""
    try:
        with open_file(file) as head:
            content, checksum = head.read(count * _ROW), head.read(_CHECKSUM)
            size = os.fstat(head.fileno()).st_size
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).digest() != checksum:
        return None
    index = np.frombuffer(content, "<i8").astype(np.int64).reshape(count, 4)
    return index if size == index.nbytes + _CHECKSUM + 3 * int((index[:, 1] * index[:, 2]).sum()) else None


def _write(file: Path, images: Iterable[NDArray[np.uint8]], count: int) -> Index:
    """Write a cache under another name, and give it its own when it is whole and on the disk."""
    index = np.zeros((count, 4), "<i8")
    temporary = file.with_name(f".{file.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as out:
            out.write(bytes(index.nbytes + _CHECKSUM))
            for at, image in enumerate(images):
                index[at] = out.tell(), *image.shape[:2], zlib.crc32(image.data)
                out.write(image.data)
            out.seek(0)
            out.write(index.tobytes() + hashlib.sha256(index.tobytes()).digest())
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return index.astype(np.int64)


def _decoded(
    paths: Sequence[ImageFile], boxes: Sequence[Box], side: int | None, interpolation: str
) -> Generator[NDArray[np.uint8], None, None]:
    """Yield the images ``(H, W, 3)`` in order; several threads decode a few ahead."""

    def decode(path: ImageFile, box: Box) -> NDArray[np.uint8]:
        image = read_rgb(path, box)
        return np.asarray(image if side is None else to_shorter_side(image, side, interpolation))

    pool = ThreadPoolExecutor(min(8, cpu_count()))
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    try:
        for path, box in track(zip(paths, boxes, strict=True), "decoding images once", len(paths)):
            waiting.append(pool.submit(decode, path, box))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except UnreadableImageError as error:
        raise _unreadable(str(error)) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _check_size(paths: Sequence[ImageFile], boxes: Sequence[Box], side: int | None, most: int) -> None:
    needed = 0
    for path, box in zip(paths, boxes, strict=True):
        needed += _bytes(path, box, side)
        if needed > most:
            raise _TooLargeError


def _check_room(folder: Path, paths: Sequence[ImageFile], boxes: Sequence[Box], side: int | None) -> None:
    parts = track(zip(paths, boxes, strict=True), "measuring images", len(paths))
    needed = sum(_bytes(path, box, side) for path, box in parts)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{len(paths):,} images take {needed:,} bytes, and {free:,} are free there")


def _bytes(path: ImageFile, box: Box, side: int | None) -> int:
    """Bytes of one image in a cache, by its file's head; a turned picture takes as many."""
    try:
        with open_image(encoded(path)) as file:
            left, top, right, bottom = box or (0, 0, *file.size)
            size = min(right, file.width) - max(left, 0), min(bottom, file.height) - max(top, 0)
        width, height = size if side is None else sides_for(size, side)
    except Exception:  # decoders raise almost anything on a damaged file; its reason is told when it is decoded
        return 0
    return 3 * width * height


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, and clear away what writers that were killed left in it."""
    with open_lock(folder / ".lock") as file:
        if _locked(file, folder):
            remove_leftovers(folder)
        yield


def _locked(file: BinaryIO, folder: Path) -> bool:
    """Wait for a lock; False: the file system has none, two may do the same work, and each leaves a whole file."""
    try:
        if not lock(file):
            # Only to tell of it: the one item is there once the lock is.
            for _ in track([None], f"another process writes in {folder}", 0):
                lock(file, wait=True)
    except OSError:
        return False
    return True


def _unreadable(reason: str) -> UnreadableImageError:
    return UnreadableImageError(f"{reason} (repair or replace it, or pass `skip_unreadable=True`)")
