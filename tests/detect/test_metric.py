"""COCO's average precision against cases worked out by hand, and against the definition written down anew."""

import numpy as np
import pytest
import torch
from torch import Tensor

from selfdistill.detect.task import average_precision

Found = dict[str, Tensor]


def found(*boxes: tuple[float, ...]) -> Found:
    """Detections, each (left, top, right, bottom, score, label)."""
    rows = torch.tensor(boxes).reshape(-1, 6)
    return {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].long()}


def there(*boxes: tuple[float, ...], crowd: tuple[int, ...] = (), area: tuple[float, ...] = ()) -> Found:
    """Boxes, each (left, top, right, bottom, label)."""
    rows = torch.tensor(boxes).reshape(-1, 5)
    own = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    return {
        "boxes": rows[:, :4],
        "labels": rows[:, 4].long(),
        "iscrowd": torch.tensor(crowd or (0,) * len(rows)),
        "area": torch.tensor(area) if area else own,
    }


def test_right_wrong_right_and_one_missed() -> None:
    # Precision 1 up to recall 1/3 (34 of the 101 recalls 0, 0.01 ... 1), then 2/3 up to recall 2/3 (33), then 0.
    images = [
        (found((0, 0, 40, 40, 0.9, 1), (60, 60, 90, 90, 0.8, 1)), there((0, 0, 40, 40, 1))),
        (found((5, 5, 50, 50, 0.7, 1)), there((5, 5, 50, 50, 1), (60, 5, 99, 50, 1))),
    ]
    measured = average_precision(images)
    by_hand = (34 * 1 + 33 * 2 / 3) / 101
    assert measured.map == pytest.approx(by_hand, abs=1e-6)
    assert measured.map_50 == pytest.approx(by_hand, abs=1e-6)
    assert measured.recall == pytest.approx(2 / 3, abs=1e-6)
    assert (measured.n, measured.boxes, measured.detections) == (2, 3, 3)


def test_an_iou_of_0_72_is_right_at_five_of_ten_thresholds() -> None:
    # 0.50, 0.55, 0.60, 0.65 and 0.70.
    measured = average_precision([(found((0, 0, 40, 28.8, 0.9, 1)), there((0, 0, 40, 40, 1)))])
    assert (measured.map, measured.map_50, measured.map_75) == (pytest.approx(0.5), pytest.approx(1), pytest.approx(0))


def test_classes_that_occur_are_averaged_whatever_their_counts() -> None:
    # Class 1: two of two found. Class 90: none of one. Class 5 does not occur, and what is called so costs nothing.
    box = (0.0, 0.0, 40.0, 40.0)
    images = [
        (found((*box, 0.9, 1), (*box, 0.9, 5)), there((*box, 1))),
        (found((*box, 0.8, 1)), there((*box, 1), (50, 50, 90, 90, 90))),
    ]
    assert average_precision(images).map == pytest.approx(1 / 2)


def test_crowds_are_neither_right_nor_wrong() -> None:
    dets = found((0, 0, 20, 20, 0.9, 1), (30, 30, 60, 60, 0.8, 1), (70, 70, 99, 99, 0.7, 1))
    boxes = ((0.0, 0.0, 65.0, 65.0, 1.0), (70.0, 70.0, 99.0, 99.0, 1.0))
    as_crowd = average_precision([(dets, there(*boxes, crowd=(1, 0)))])
    assert (as_crowd.map, as_crowd.boxes) == (pytest.approx(1), 1)
    # Were it no crowd: wrong, wrong, right, one missed; precision 1/3 at the 51 recalls up to 1/2.
    as_box = average_precision([(dets, there(*boxes))])
    assert (as_box.map, as_box.boxes) == (pytest.approx(51 / 3 / 101, abs=1e-6), 2)


def test_an_objects_size_is_its_area_and_not_its_boxs() -> None:
    box = (0.0, 0.0, 100.0, 100.0)
    by_box = average_precision([(found((*box, 0.9, 1)), there((*box, 1)))])
    assert (by_box.map_small, by_box.map_medium, by_box.map_large) == (None, None, pytest.approx(1))
    by_area = average_precision([(found((*box, 0.9, 1)), there((*box, 1), area=(500.0,)))])
    assert (by_area.map_small, by_area.map_medium, by_area.map_large) == (pytest.approx(1), None, None)


def test_images_without_boxes_and_without_detections() -> None:
    box = (0.0, 0.0, 40.0, 40.0)
    images = [(found(), there()), (found((*box, 0.9, 1)), there((*box, 1))), (found(), there((*box, 2)))]
    measured = average_precision(images)
    assert (measured.map, measured.n, measured.boxes, measured.detections) == (pytest.approx(0.5), 3, 2, 1)
    # A wrong box, in an image where nothing is, that is surer than the right one: precision 1/2 at every recall.
    images[0] = (found((*box, 0.95, 1)), there())
    assert average_precision(images).map == pytest.approx(0.25)


def test_nothing_to_be_found_is_no_number() -> None:
    measured = average_precision([(found((0, 0, 9, 9, 0.9, 1)), there())])
    assert (measured.map, measured.map_50, measured.recall) == (None, None, None)


def iou(a: Tensor, b: Tensor) -> float:
    wide = float(min(a[2], b[2]) - max(a[0], b[0]))
    high = float(min(a[3], b[3]) - max(a[1], b[1]))
    inter = max(wide, 0) * max(high, 0)
    return inter / (float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - inter)


def literal(images: list[tuple[Found, Found]], label: int, threshold: float) -> float:
    """Match each detection, the surest first, with the best box that is left; precision at 101 recalls."""
    dets = [
        (float(score), i, box)
        for i, (one, _) in enumerate(images)
        for box, score, kind in zip(one["boxes"], one["scores"], one["labels"], strict=True)
        if kind == label
    ]
    left = {i: [box for box, kind in zip(t["boxes"], t["labels"], strict=True) if kind == label]
            for i, (_, t) in enumerate(images)}  # fmt: skip
    total, right, precisions, recalls = sum(map(len, left.values())), 0, [], []
    for rank, (_, i, box) in enumerate(sorted(dets, key=lambda one: -one[0]), start=1):
        overlaps = [iou(box, other) for other in left[i]]
        if overlaps and max(overlaps) >= threshold:
            left[i].pop(int(np.argmax(overlaps)))
            right += 1
        precisions.append(right / rank)
        recalls.append(right / total)
    return float(
        np.mean(
            [
                max((p for p, r in zip(precisions, recalls, strict=True) if r >= wanted), default=0.0)
                for wanted in np.linspace(0, 1, 101)
            ]
        )
    )


def test_against_the_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    images = []
    for _ in range(12):
        corners = 60 * torch.rand(4, 2, generator=generator)
        boxes = torch.cat((corners, corners + 20 + 20 * torch.rand(4, 2, generator=generator)), dim=1)
        labels = torch.randint(1, 3, (4,), generator=generator)
        near = boxes + 2 * torch.randn(4, 4, generator=generator)
        scores = torch.rand(4, generator=generator)
        wrong = torch.rand(4, generator=generator) < 0.2
        kinds = torch.where(wrong, 3 - labels, labels)
        target = {"boxes": boxes, "labels": labels, "iscrowd": torch.zeros(4).long(), "area": torch.full((4,), 900.0)}
        images.append(({"boxes": near, "scores": scores, "labels": kinds}, target))
    measured = average_precision(images)
    at = {t: np.mean([literal(images, label, t) for label in (1, 2)]) for t in np.arange(0.5, 0.96, 0.05).round(2)}
    assert 0.05 < at[0.75] < at[0.5] < 0.95
    assert measured.map_50 == pytest.approx(at[0.5], abs=1e-5)
    assert measured.map_75 == pytest.approx(at[0.75], abs=1e-5)
    assert measured.map == pytest.approx(np.mean(list(at.values())), abs=1e-5)
