"""Images for the scale "smoke": a colour a class, with noise; no data set is needed, and no number means anything."""

from pathlib import Path

import numpy as np

from selfdistill.paper.tables import SETS

CLASSES = 8
TRAIN, TEST = 8, 4
"""Images of each class."""

_SIZE = 32  # pixels


def write_images(folder: Path, data: str) -> None:
    """Write ``train.npz`` and ``test.npz``, each set its own noise, where they are not there already."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(SETS).index(data))
    colours = generator.integers(60, 196, (CLASSES, 1, 1, 3))
    for name, per_class in (("train", TRAIN), ("test", TEST)):
        labels = np.repeat(np.arange(CLASSES), per_class)
        noise = generator.normal(0, 40, (len(labels), _SIZE, _SIZE, 3))
        images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
        if not (folder / f"{name}.npz").is_file():
            np.savez_compressed(folder / f"{name}.npz", images=images, labels=labels)
