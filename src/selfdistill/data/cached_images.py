"""Decoded images in one memory-mapped file; :mod:`selfdistill.data.cache` makes it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Index = NDArray[np.int64]


class CachedImages:
    """The images of a cache by position, as :func:`~selfdistill.data.decode.to_shorter_side` made them.

    The file is the index, int64 ``(N, 3)`` little-endian: offset in bytes, height and width in pixels; then the pixels
    of one image after the other, uint8 ``(H, W, 3)``.

    Args:
        file: where they are; it is mapped, not read.
        side: the images' shorter side in pixels.
        index: that of these images; another's rows are images of the same file.
        pixels: the mapped file, where it is mapped already.
    """

    def __init__(self, file: Path, side: int, index: Index, pixels: NDArray[np.uint8] | None = None):
        self.file, self.side, self.index = file, side, index
        self._pixels = np.asarray(np.memmap(file, np.uint8, "r")) if pixels is None else pixels

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: int) -> Image.Image:
        offset, height, width = self.index[at].tolist()
        return Image.fromarray(self._pixels[offset : offset + 3 * height * width].reshape(height, width, 3))

    def __reduce__(self) -> tuple[Any, ...]:  # or the pixels would travel to each worker
        return CachedImages, (self.file, self.side, self.index)

    def select(self, index: Tensor) -> "CachedImages":
        """Return the images at the positions ``index`` ``(n,)``, in that order."""
        return CachedImages(self.file, self.side, self.index[index.numpy()], self._pixels)
