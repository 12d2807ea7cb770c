"""How many images and classes a training has at a scale; a run on fewer is no run of a table."""

from __future__ import annotations

from typing import NamedTuple

from selfdistill.paper import synthetic
from selfdistill.records import RunRecord


class Size(NamedTuple):
    """Of a data set."""

    train: int
    test: int
    classes: int

    def __str__(self) -> str:
        """``50,000 images and scored on 10,000, of 100 classes``."""
        return f"{self.train:,} images and scored on {self.test:,}, of {self.classes:,} classes"


PUBLISHED = {
    "cifar100": Size(50_000, 10_000, 100),
    "cub200": Size(5_994, 5_794, 200),
    "dogs": Size(12_000, 8_580, 120),
    "imagenet": Size(1_281_167, 50_000, 1000),
    "caltech101": Size(3_030, 2_945, 101),
}
"""As published; of ImageNet the validation images are the test images. Of Caltech-101 30 photographs of each class."""

PER_CLASS = {"small": 15, "medium": 30}
"""Training images of each class of CIFAR-100, by scale; all test images are scored."""


def recorded(record: RunRecord) -> Size:
    """Return what a run was trained on and scored on."""
    return Size(record.data["train_n"], record.data["test_n"], record.data["classes"])


def size_of(data: str, scale: str) -> Size:
    """Return what a scale takes of a data set.

    Example:
        >>> size_of("cifar100", "small"), size_of("dogs", "full").test
        (Size(train=1500, test=10000, classes=100), 8580)
    """
    if scale == "smoke":
        return Size(synthetic.TRAIN * synthetic.CLASSES, synthetic.TEST * synthetic.CLASSES, synthetic.CLASSES)
    size = PUBLISHED[data]
    if data == "cifar100" and scale in PER_CLASS:
        return size._replace(train=PER_CLASS[scale] * size.classes)
    return size
