"""The published CIFAR-10-C and CIFAR-100-C: arrays that stay on disk and are read slice by slice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfdistill.data.named.download import Archive, fetched
from selfdistill.evaluation.corruptions.table import CORRUPTIONS, SEVERITIES, check

_CIFAR100C = "https://zenodo.org/records/3555552"
WHERE = f"https://zenodo.org/records/2535967 (CIFAR-10-C) or {_CIFAR100C} (CIFAR-100-C)"
CIFAR100C = Archive(
    f"{_CIFAR100C}/files/CIFAR-100-C.tar?download=1",
    "CIFAR-100-C.tar",
    "11f0ed0f1191edbf9fa23466ae6021d3",
    20,  # nineteen corruptions and the labels
    inside="CIFAR-100-C",
    suffixes=(".npy",),
    most_bytes=4 * 10**9,
)
_SIZE = 32


@dataclass(frozen=True)
class PublishedCorruptions:
    """A folder of published arrays, checked; see :func:`open_published`.

    Attributes:
        folder: where the files are.
        labels: of the clean test set, in its order, int64 ``(n,)``; the same at every severity.
    """

    folder: Path
    labels: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Images at each severity of each corruption."""
        return len(self.labels)

    def check_size(self, size: int) -> None:
        """Refuse a network that takes images of another size."""
        if size != _SIZE:
            raise ValueError(
                f"{self.folder}: images of 32 x 32 pixels, but the network takes {size} x {size}; without this folder "
                "the test images are corrupted here"
            )

    def images(self, name: str, severity: int) -> NDArray[np.uint8]:
        """Images of one corruption at one severity, uint8 ``(n, 32, 32, 3)``: a read-only view of the file.

        Nothing is read before a slice of it is used. Image i is test image i at every severity.

        Raises:
            ValueError: no such corruption or severity, or the file is gone or damaged.
        """
        check(name, severity)
        block = (severity - 1) * self.n
        return _images(self.folder, name, self.n)[block : block + self.n]

    def batches(self, name: str, severity: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 images ``(B, 3, 32, 32)`` and int64 labels ``(B,)``, in the order of the test set.

        Not normalised: use the constants of the training set, and neither crop nor resize.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size}, expected at least 1")
        view = self.images(name, severity)
        for start in range(0, self.n, batch_size):
            stop = start + batch_size
            pixels = torch.from_numpy(np.array(view[start:stop]))  # a copy: torch wants memory that can be written
            yield pixels.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(self.labels[start:stop])


def fetch_cifar100c(root: Path) -> Path:
    """Return ``root/CIFAR-100-C``, downloaded (2.9 GB) and unpacked there if needed.

    Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
    (2019).
    """
    folder = root / "CIFAR-100-C"
    if not folder.is_dir():
        remedy = f"put {CIFAR100C.file} of {_CIFAR100C} into {root}, or its .npy files into {folder}"
        fetched("CIFAR-100-C", CIFAR100C, folder, remedy)
    return folder


def open_published(folder: Path, *, classes: int | None = None, per_severity: int = 10_000) -> PublishedCorruptions:
    """Open a folder of ``NAME.npy`` for the fifteen corruptions and ``labels.npy``, as published.

    Each ``NAME.npy`` is uint8 ``(50000, 32, 32, 3)``: the 10,000 test images at severity 1, then at 2 ... 5, each time
    in the order of the test set. ``labels.npy`` holds the 50,000 labels: the 10,000 five times. The four corruptions
    that are published besides (speckle_noise, gaussian_blur, spatter, saturate) are not looked at: Table 6 and its
    mean are over the fifteen. Every file's header is checked here, so that nothing is missed after an hour.

    Args:
        classes: of the network; arrays with other labels are refused (CIFAR-10-C for CIFAR-100-C).
        per_severity: images at each severity; 10,000 as published.

    Raises:
        ValueError: a file is missing, damaged or not of that layout; one line that says which and where to get it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; unpack the .npy files of {WHERE} there")
    missing = [name for name in (*CORRUPTIONS, "labels") if not (folder / f"{name}.npy").is_file()]
    if missing:
        files = ", ".join(f"{name}.npy" for name in missing)
        raise ValueError(f"{folder}: {files} missing; get them from {WHERE}")
    labels = _labels(folder / "labels.npy", per_severity)
    if classes is not None and int(labels.max()) + 1 != classes:
        raise ValueError(
            f"{folder}: labels of {int(labels.max()) + 1} classes, but the network has {classes}; get the other set "
            f"from {WHERE}"
        )
    for name in CORRUPTIONS:
        _images(folder, name, per_severity)
    return PublishedCorruptions(folder, labels)


def _labels(file: Path, per_severity: int) -> NDArray[np.int64]:
    values = _load(file)
    if values.dtype.kind not in "iu" or values.shape != (len(SEVERITIES) * per_severity,):
        raise _misshaped(file, values, f"integers ({len(SEVERITIES) * per_severity},)")
    blocks = np.asarray(values, dtype=np.int64).reshape(len(SEVERITIES), per_severity)
    if (blocks != blocks[0]).any():
        raise ValueError(f"{file}: the labels differ between severities, expected those of the test set five times")
    if int(blocks.min()) < 0:
        raise ValueError(f"{file}: label {int(blocks.min())} is negative; get the file again from {WHERE}")
    first: NDArray[np.int64] = blocks[0].copy()
    return first


def _images(folder: Path, name: str, per_severity: int) -> NDArray[np.uint8]:
    file = folder / f"{name}.npy"
    values = _load(file)
    shape = (len(SEVERITIES) * per_severity, _SIZE, _SIZE, 3)
    if values.dtype != np.uint8 or values.shape != shape:
        raise _misshaped(file, values, f"uint8 {shape}")
    return values


def _load(file: Path) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.lib.format.open_memmap(file, mode="r")  # refuses objects, which could run code
    except Exception as error:  # numpy has many errors for a damaged file
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: cannot be read as an array ({reason}); get the file again from {WHERE}") from error
    return values


def _misshaped(file: Path, values: NDArray[Any], expected: str) -> ValueError:
    return ValueError(f"{file}: {values.dtype} {values.shape}, expected {expected}; get the file again from {WHERE}")
