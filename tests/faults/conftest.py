"""Commands in this process, images and a finished run as for the command line, and folders of photographs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import finished, pictures, refused, run, whole_run

__all__ = ["finished", "pictures", "refused", "run", "whole_run", "write_photos"]

WritePhotos = Callable[..., Path]


@pytest.fixture
def write_photos() -> WritePhotos:
    """Return a function that writes so many images into each of some folders below a root, and returns the root."""

    def write(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (32, 32)) -> Path:
        for number, (name, count) in enumerate(counts.items()):
            folder = root / name
            folder.mkdir(parents=True)
            for nth in range(count):
                pixels = np.random.default_rng(1000 * number + nth).integers(0, 255, (size[1], size[0], 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{nth:03}.png")
        return root

    return write
