"""COCO's images with their boxes, for torchvision."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from faster_coco_eval import COCO
from PIL import Image
from torch import Tensor
from torchvision.datasets import CocoDetection, VisionDataset

from selfdistill.data.decode import UnreadableImageError, check_regular, open_image
from selfdistill.data.fingerprint import Fingerprint, file_ids, summarise
from selfdistill.detect.annotations import Annotations, read_annotations


class CocoImages(CocoDetection):  # type: ignore[misc]  # torchvision has no types
    """``torchvision.datasets.CocoDetection`` of annotations that were read before.

    The index is faster-coco-eval's, which the metric needs anyway, in the place of pycocotools'.

    Args:
        folder: of the image files.
        images: as in :class:`~selfdistill.detect.annotations.Annotations`.
        boxes: likewise.
    """

    def __init__(self, folder: Path, images: list[dict[str, Any]], boxes: list[dict[str, Any]]):
        VisionDataset.__init__(self, folder)
        self.coco = COCO({"images": images, "annotations": boxes})
        self.ids = sorted(self.coco.imgs)

    def _load_image(self, id: int) -> Image.Image:
        # Not data.decode.read_rgb: the boxes are those of the pixels as they are stored, not as EXIF would turn them.
        known = self.coco.imgs[id]
        path = Path(self.root) / known["file_name"]
        try:
            check_regular(path)
            with open_image(path) as file:
                image = file.convert("RGB")
        except Exception as error:  # decoders raise almost anything on a damaged file
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreadableImageError(f"{path}: {' '.join(reason.split())}") from None
        if image.size != (known["width"], known["height"]):
            has, wanted = (f"{width} x {height}" for width, height in (image.size, (known["width"], known["height"])))
            raise UnreadableImageError(f"{path}: {has} pixels, where its annotation says {wanted}")
        return image


@dataclass(frozen=True)
class Part:
    """One part of a set.

    Attributes:
        name: such as ``"train2017"``.
        images: what is decoded, with the boxes that are used.
        boxes: how many those are, crowds not counted.
        crowds: regions of many objects that are marked by one box (``iscrowd``): nothing is learned from them, and
            what is detected in them is neither right nor wrong.
        degenerate: boxes that were left out, see :data:`~selfdistill.detect.annotations.SMALLEST`.
        empty: images without a box: they are kept, as background alone.
    """

    name: str
    images: CocoImages
    boxes: int
    crowds: int
    degenerate: int
    empty: int

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Coco:
    """What a detector is trained on, and what it is evaluated on.

    Attributes:
        name: of the folder.
        train: without crowds and degenerate boxes.
        evaluation: as published.
        categories: names by id.
    """

    name: str
    train: Part
    evaluation: Part
    categories: dict[int, str]

    @property
    def classes(self) -> int:
        """How many logits a detector has: ids from 0, the background, to the largest; 91 for COCO."""
        return max(self.categories) + 1

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What says which images and boxes these are; the contents are those of the annotations."""
        names = [f"{number}: {name}" for number, name in sorted(self.categories.items())]
        parts = {"train": self.train.images, "test": self.evaluation.images}
        return summarise(["all", *names], {part: _ids(images) for part, images in parts.items()}, self.evaluation.name)


def load_coco(
    root: str | Path, *, images: int | None = None, eval_split: str = "val", eval_images: int | None = None
) -> Coco:
    """Read what a detector is trained and evaluated on.

    Args:
        root: holds ``train2017/``, ``val2017/`` and ``annotations/instances_*.json``.
        images: train on only the first so many images, by id.
        eval_split: ``"val"``, or ``"train"`` for the training images again.
        eval_images: evaluate on only the first so many images, by id.

    Raises:
        ValueError: a file or an image is missing, or the annotations are not COCO's; one line.
    """
    root = Path(root).expanduser()
    train = read_annotations(root, "train", images)
    again = min((limit for limit in (images, eval_images) if limit is not None), default=None)
    evaluation = read_annotations(root, eval_split, again if eval_split == "train" else eval_images)
    for part in (train, evaluation):
        unknown = {box["category_id"] for box in part.boxes} - set(train.categories)
        if unknown:
            raise ValueError(f"{part.folder}: a box has the category {min(unknown)}, which the training set lacks")
    parts = _part(train, train.learnable()), _part(evaluation, evaluation.boxes)
    return Coco(root.resolve().name, *parts, train.categories)


def _ids(images: CocoImages) -> tuple[Tensor, Tensor]:
    """Return a label, 0 for all, and an id of each image."""
    known = [images.coco.imgs[number] for number in images.ids]
    boxes = [str(images.coco.imgToAnns.get(number)) for number in images.ids]
    ids = file_ids([Path(images.root) / one["file_name"] for one in known], boxes)
    return torch.zeros(len(ids), dtype=torch.int64), ids


def _part(annotations: Annotations, used: list[dict[str, Any]]) -> Part:
    crowds = sum(box["iscrowd"] for box in annotations.boxes)
    boxes = sum(not box["iscrowd"] for box in used)
    return Part(
        name=annotations.folder.name,
        images=CocoImages(annotations.folder, annotations.images, used),
        boxes=boxes,
        crowds=crowds,
        degenerate=len(annotations.boxes) - crowds - boxes,
        empty=len(annotations.images) - len({box["image_id"] for box in used}),
    )
