"""Real digits as image files, for tests of folders."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("zero", "one", "two")


def write_digits(root: Path, *, train: int, test: int, size: int = 32) -> Path:
    """Write so many images of each of three digits to ``root/train/<class>`` and ``root/test/<class>``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label, name in enumerate(NAMES):
        images = digits.images[digits.target == label]
        for part, start, count in (("train", 0, train), ("test", train, test)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number, image in enumerate(images[start : start + count]):
                pixels = Image.fromarray((image * 15).astype(np.uint8))
                pixels.resize((size, size)).convert("RGB").save(folder / f"{number:03}.png")
    return root
