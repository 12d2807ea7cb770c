"""Images that are no files of their own: members of archives, cells of tables. They are read where they lie."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


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
        """Return an encoded image.

        Raises:
            OSError: it cannot be read.
        """

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
