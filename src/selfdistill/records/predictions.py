"""`predictions.npz` and `validation.npz` beside a record: the outputs on the test and the validation images."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from selfdistill.files import open_file, write_atomically
from selfdistill.text import escape_surrogates

PREDICTIONS = "predictions.npz"
"""Of the test images, with thumbnails of a few."""

VALIDATION = "validation.npz"
"""Of the validation images: what temperature, thresholds and prediction sets are found on."""


DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile)
"""Whatever reading a damaged .npz file raises."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's outputs on labelled images.

    Attributes:
        logits: float32 ``(N, C)``.
        labels: ``(N,)``.
        classes: the C classes' names.
        shown: positions of the images of `thumbnails`.
        thumbnails: PNG or JPEG files; empty where an image could not be read any more.
        heat_maps: the same images with what `selfdistill.evaluation.grad_cam.grad_cam` finds, JPEG; or none.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    shown: tuple[int, ...] = ()
    thumbnails: tuple[bytes, ...] = ()
    heat_maps: tuple[bytes, ...] = ()

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The posteriors, float64 ``(N, C)``.

        Example:
            >>> Predictions(np.zeros((1, 2), np.float32), np.zeros(1, np.int64), ("a", "b")).probabilities.tolist()
            [[0.5, 0.5]]
        """
        z = self.logits.astype(np.float64)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each image ``(N,)``; of equal ones the first."""
        return np.asarray(self.logits.argmax(axis=1))

    def save(self, run: Path, name: str = PREDICTIONS) -> None:
        """Write them into a run's folder, whole or not at all; the same predictions give the same bytes."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {
            "logits": self.logits,
            "labels": self.labels,
            "classes": _bytes(msgspec.json.encode([escape_surrogates(name) for name in self.classes])),
            "shown": np.array(self.shown, np.int64),
            **_joined("lengths", "thumbnails", self.thumbnails),
            **(_joined("heat_map_lengths", "heat_maps", self.heat_maps) if self.heat_maps else {}),
        }
        np.savez(content, **arrays)
        write_atomically(run / name, content.getvalue())

    @classmethod
    def load(cls, run: Path, top1: float | None, name: str = PREDICTIONS) -> Self | None:
        """Read those of a run.

        Args:
            top1: its accuracy, by its record; None: not known.

        Returns:
            None if there are none, or if they are damaged or another network's.
        """
        path = run / name
        if not path.is_file():
            return None
        try:
            with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
                found = cls._of(arrays)
        except DAMAGED:
            return None
        if not found._is_whole():
            return None
        return found if top1 is None or abs(found.accuracy - top1) < 1e-9 else None

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return float((self.predicted == self.labels).mean())

    @classmethod
    def _of(cls, arrays: Any) -> Self:
        return cls(
            logits=arrays["logits"],
            labels=arrays["labels"],
            classes=tuple(msgspec.json.decode(arrays["classes"].tobytes(), type=list[str])),
            shown=tuple(arrays["shown"].tolist()),
            thumbnails=_files(arrays, "lengths", "thumbnails"),
            heat_maps=_files(arrays, "heat_map_lengths", "heat_maps") if "heat_maps" in arrays else (),
        )

    def _is_whole(self) -> bool:
        n, classes = len(self.labels), len(self.classes)
        inside: Sequence[bool] = [0 <= at < n for at in self.shown]
        return (
            n > 0
            and self.logits.shape == (n, classes)
            and bool(np.isfinite(self.logits).all())
            and 0 <= self.labels.min() <= self.labels.max() < classes
            and all(inside)
            and len(self.shown) == len(self.thumbnails)
            and len(self.heat_maps) in (0, len(self.shown))
        )


def _joined(lengths: str, name: str, files: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    return {lengths: np.array([len(one) for one in files], np.int64), name: _bytes(b"".join(files))}


def _files(arrays: Any, lengths: str, name: str) -> tuple[bytes, ...]:
    ends = np.cumsum(arrays[lengths]).tolist()
    content = arrays[name].tobytes()
    return tuple(content[start:end] for start, end in zip([0, *ends], ends, strict=False))


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)
