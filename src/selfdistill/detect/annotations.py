"""COCO's annotations of boxes: read, checked, and which of them a detector can learn from."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfdistill.data.decode import check_regular
from selfdistill.data.named.listed import check_inside
from selfdistill.text import quote

YEAR = "2017"
SMALLEST = 1.0
"""A box of which less than so many pixels a side lie in the image is degenerate: nothing can be learned from it."""

MOST_CATEGORIES = 10_000
"""A detector has a logit and four coordinates for each id up to the largest: a stray one would take all memory."""

_MOST_BYTES = 2**32  # of annotations; COCO's have 450 MB
_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Annotations:
    """What ``instances_*.json`` says.

    Attributes:
        folder: of the image files.
        images: ``id``, ``file_name``, ``width`` and ``height`` (pixels) of each, by id.
        boxes: ``id``, ``image_id``, ``category_id``, ``bbox`` (left, top, width, height, in pixels), ``area`` (of the
            object, in pixels) and ``iscrowd`` of each.
        categories: names by id; the ids may have gaps: COCO's 80 are numbered from 1 to 90.
    """

    folder: Path
    images: list[dict[str, Any]]
    boxes: list[dict[str, Any]]
    categories: dict[int, str]

    def learnable(self) -> list[dict[str, Any]]:
        """Return the boxes that are learned from: no crowd, and at least a pixel of each side in the image.

        Example:
            >>> sides = [0, 0, 9, 9], [3, 3, 5, 0.2], [-4, 0, 4, 9]
            >>> boxes = [{"image_id": 7, "iscrowd": 0, "bbox": box} for box in sides]
            >>> read = Annotations(Path(), [{"id": 7, "width": 10, "height": 10}], boxes, {})
            >>> [box["bbox"] for box in read.learnable()]
            [[0, 0, 9, 9]]
        """
        sizes = {one["id"]: (one["width"], one["height"]) for one in self.images}
        learnable = []
        for one in self.boxes:
            (left, top, wide, high), (width, height) = one["bbox"], sizes[one["image_id"]]
            inside = min(left + wide, width) - max(left, 0), min(top + high, height) - max(top, 0)
            if not one["iscrowd"] and min(inside) >= SMALLEST:
                learnable.append(one)
        return learnable


def read_annotations(root: Path, part: str, limit: int | None = None) -> Annotations:
    """Read a part of a folder that has COCO's layout.

    Args:
        root: holds ``train2017/``, ``val2017/`` and ``annotations/instances_*.json``.
        part: ``"train"`` or ``"val"``.
        limit: only the first so many images, by id.

    Raises:
        ValueError: a file or an image is missing, or it is not what COCO's holds; one line.
    """
    path, folder = root / "annotations" / f"instances_{part}{YEAR}.json", root / f"{part}{YEAR}"
    known = _load(path, root)
    try:
        categories = {one["id"]: str(one["name"]) for one in known["categories"]}
        images = [_image(one) for one in known["images"]]
        images = sorted(images, key=lambda one: one["id"])[:limit]
        ids = {one["id"] for one in images}
        boxes = [_box(one) for one in known["annotations"] if one["image_id"] in ids]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: an image, a box or a category is not as COCO's are ({quote(error)})") from None
    if not images or not categories:
        raise ValueError(f"{path}: no image or no category in it")
    for number in categories:
        if type(number) is not int or not 1 <= number <= MOST_CATEGORIES:
            raise ValueError(
                f"{path}: a category has the id {str(number)[:80]}; ids are whole numbers from 1, for 0 is the "
                f"background, to {MOST_CATEGORIES:,}"
            )
    _check_images(folder, path, images)
    return Annotations(folder, images, boxes, categories)


def _load(path: Path, root: Path) -> dict[str, Any]:
    try:
        check_regular(path, _MOST_BYTES)
        with path.open(encoding="utf-8") as file:
            known = json.load(file, object_hook=_without_outline)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{path} is missing: {root} holds train{YEAR}/, val{YEAR}/ and annotations/instances_*.json, as in the "
            f"archives of https://cocodataset.org/#download"
        ) from None
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are both ValueErrors
        raise ValueError(f"{path}: damaged, not JSON ({error}); copy it again") from None
    if not isinstance(known, dict) or not all(isinstance(known.get(name), list) for name in _LISTS):
        raise ValueError(f"{path}: not COCO's annotations, which are lists of {', '.join(_LISTS)}")
    return known


def _without_outline(values: dict[str, Any]) -> dict[str, Any]:
    """Drop an object's outline while it is read: of COCO's 450 MB of JSON it is most, and boxes need none."""
    values.pop("segmentation", None)
    return values


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{quote(value)} is not a whole number")
    return value


def _image(one: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(one["file_name"], str):
        raise TypeError(f"the file name {quote(one['file_name'])} is not a text")
    if not min(one["width"], one["height"]) >= 1:
        raise ValueError(f"{quote(one['file_name'])} is {quote(one['width'])} x {quote(one['height'])} pixels")
    return {name: one[name] for name in ("id", "file_name", "width", "height")}


def _box(one: dict[str, Any]) -> dict[str, Any]:
    """Return what is needed of a box; sets made by others often leave out its area and that it is not a crowd."""
    left, top, width, height = map(float, one["bbox"])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError(f"a box is {quote(one['bbox'])}")
    return {
        "id": one["id"],
        "image_id": one["image_id"],
        "category_id": _number(one["category_id"]),
        "bbox": [left, top, width, height],
        "area": float(one.get("area", width * height)),
        "iscrowd": int(one.get("iscrowd", 0)),
    }


def _check_images(folder: Path, path: Path, images: Sequence[dict[str, Any]]) -> None:
    try:
        there = set(os.listdir(folder))  # noqa: PTH208 - one call for 118,287 names
    except OSError:
        raise ValueError(f"{folder} is missing: the images that {path} is about") from None
    names = [one["file_name"] for one in images]
    check_inside(names, path)
    missing = [name for name in names if name not in there and not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {len(missing):,} of the images of {path.name}; the first: {missing[0]}")
