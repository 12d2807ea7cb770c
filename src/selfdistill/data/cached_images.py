"""Decoded images in one file, each with its checksum; :mod:`selfdistill.data.cache` makes it."""

import os
import warnings
import weakref
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfdistill.files import POSIX, open_file, read_at

Index = NDArray[np.int64]


class CachedImages:
    """The images of a cache by position, as :func:`~selfdistill.data.decode.to_shorter_side` made them.

    The file is the index, int64 ``(N, 4)`` little-endian: offset in bytes, height and width in pixels, CRC-32 of the
    pixels; the SHA-256 of the index; then the pixels of one image after the other, uint8 ``(H, W, 3)``. It is read,
    not mapped: a file that somebody cuts short would end a process that has mapped it.

    Args:
        file: where they are.
        side: the images' shorter side in pixels.
        index: that of these images; another's rows are images of the same file.
    """

    def __init__(self, file: Path, side: int, index: Index):
        self.file, self.side, self.index = file, side, index
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
        return CachedImages, (self.file, self.side, self.index)

    def select(self, index: Tensor) -> "CachedImages":
        """Return the images at the positions ``index`` ``(n,)``, in that order."""
        return CachedImages(self.file, self.side, self.index[index.numpy()])

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
