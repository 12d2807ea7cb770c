"""Images that are no files of their own: members of archives, cells of tables, decoded images of a cache.

They are read where they lie.
"""

from __future__ import annotations

import copy
import os
import warnings
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfdistill.files import POSIX, open_file, read_at

Index = NDArray[np.int64]


class Packed(Sequence["PackedImage"], ABC):
    """Encoded images by position.

    Args:
        rows: int64 ``(N,)``, which of a container's images these are.

    Attributes:
        small: they are brought to squares whole, and augmented as images in memory are.
    """

    def __init__(self, rows: NDArray[np.int64]):
        self.rows, self.small = rows, False

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> PackedImage: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> PackedImage | Self:
        return self._of(self.rows[at]) if isinstance(at, slice) else PackedImage(self, int(self.rows[at]))

    def __add__(self, other: Self) -> Self:
        return self._of(np.concatenate((self.rows, other.rows)))

    def select(self, index: Tensor) -> Self:
        """Return the images at the positions ``index`` ``(n,)``, in that order."""
        return self._of(self.rows[index.numpy()])

    @abstractmethod
    def read(self, row: int) -> bytes:
        """Return an encoded image."""

    @abstractmethod
    def describe(self, row: int) -> str:
        """Return where an image is, for messages."""

    @abstractmethod
    def identify(self, row: int) -> tuple[Any, ...]:
        """Return what says whether an image has changed: its place, and when that was written."""

    def _of(self, rows: NDArray[np.int64]) -> Self:
        other = copy.copy(self)
        other.rows = rows
        return other


class PackedImage(NamedTuple):
    """One encoded image of a container."""

    container: Packed
    row: int

    def read_bytes(self) -> bytes:
        """Return it, encoded."""
        return self.container.read(self.row)

    def __str__(self) -> str:
        return self.container.describe(self.row)


ImageFile = Path | PackedImage
"""What an image is decoded from."""


class CachedImages:
    """The images of a cache by position, as :func:`~selfdistill.data.decode.to_shorter_side` made them.

    :mod:`selfdistill.data.cache` makes the file. It is the index, int64 ``(N, 4)`` little-endian: offset in bytes,
    height and width in pixels, CRC-32 of the pixels; the SHA-256 of the index; then the pixels of one image after the
    other, uint8 ``(H, W, 3)``. It is read, not mapped: a file that somebody cuts short would end a process that has
    mapped it.

    Args:
        file: where they are.
        side: the images' shorter side in pixels; None: they are as large as their files.
        index: that of these images; another's rows are images of the same file.
        interpolation: with which they were resized.
    """

    def __init__(self, file: Path, side: int | None, index: Index, interpolation: str = "bilinear"):
        self.file, self.side, self.index, self.interpolation = file, side, index, interpolation
        self._descriptor = -1

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> Image.Image | None:
        """Return an image, or None, with a warning, where the file is gone or damaged there."""
        offset, height, width, checksum = self.index[at].tolist()
        try:
            if self._descriptor < 0:
                with open_file(self.file) as file:
                    self._descriptor = os.dup(file.fileno())
                self._close = weakref.finalize(self, os.close, self._descriptor)
            pixels = read_at(self._descriptor, 3 * height * width, offset)
        except OSError:
            pixels = b""
        if len(pixels) == 3 * height * width and zlib.crc32(pixels) == checksum:
            return Image.frombuffer("RGB", (width, height), pixels)
        self._give_up()
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedImages, (self.file, self.side, self.index, self.interpolation)

    def fits(self, side: int | None, interpolation: str) -> bool:
        """Whether they are what files are resized to, or the files' own pixels."""
        return self.side is None or (self.side, self.interpolation) == (side, interpolation)

    def select(self, index: Tensor) -> CachedImages:
        """Return the images at the positions ``index`` ``(n,)``, in that order."""
        return CachedImages(self.file, self.side, self.index[index.numpy()], self.interpolation)

    def _give_up(self) -> None:
        """Remove the damaged file, if no other process has made it anew by now: the next run makes it again."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self.file.stat()):
                if not POSIX:
                    self._close()
                    self._descriptor = -1
                self.file.unlink()
        warnings.warn(
            f"{self.file} is damaged: its images are decoded anew where they are, and the next run makes it again",
            stacklevel=3,
        )
