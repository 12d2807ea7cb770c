"""Small image trees and arrays that the tests of the data room read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data import ImageData, Split


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def write_images() -> Callable[..., Path]:
    """Return a function that writes ``count`` noise images into a folder."""

    def write(folder: Path, count: int, size: tuple[int, int] = (40, 40), suffix: str = ".png") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = noise(hash_name(folder.name) + number, size[1], size[0], 3)
            Image.fromarray(pixels).save(folder / f"{number:02d}{suffix}")
        return folder

    return write


def hash_name(name: str) -> int:
    return sum(map(ord, name)) * 1000


@pytest.fixture
def write_arrays() -> Callable[..., Path]:
    """Return a function that writes an .npz file; what is given replaces the good arrays, None leaves them out."""

    def write(file: Path, count: int = 20, **changed: np.ndarray | None) -> Path:
        arrays = {"images": noise(count, count, 32, 32, 3), "labels": np.arange(count) % 4} | changed
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
        return file

    return write


@pytest.fixture
def coded() -> ImageData:
    """Return 50 images in memory whose every pixel differs between images, normalised to their own values 0 to 255."""
    images = torch.from_numpy(noise(0, 50, 3, 16, 16))
    split = Split(torch.arange(50) % 4, images=images)
    classes = ("a", "b", "c", "d")
    return ImageData("coded", split, split, classes, (0.0,) * 3, (1 / 255,) * 3, 16, "crop_flip", "the same")


@pytest.fixture
def photos(tmp_path: Path, write_images: Callable[..., Path]) -> Path:
    """Return a folder of files that are too large to be kept in memory: 2 classes, 9 + 2 images of each."""
    for name in ("cat", "dog"):
        write_images(tmp_path / "photos/train" / name, 9, (90, 70), ".jpg")
        write_images(tmp_path / "photos/test" / name, 2, (90, 70), ".jpg")
    return tmp_path / "photos"
