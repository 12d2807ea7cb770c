"""What is read of COCO's layout, what of it is learned from, and what becomes of boxes on the way to a step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from selfdistill.detect.batches import BoxedImages, BoxLoader, in_order
from selfdistill.detect.coco import load_coco
from tests.detect.conftest import COLOURS, HEIGHT, WIDTH, change

CPU = torch.device("cpu")


def loader(root: Path, **options: Any) -> BoxLoader:
    usual: dict[str, Any] = {"flip": True, "batch_size": 2, "seed": 0, "device": CPU, "workers": 0}
    return BoxLoader(load_coco(root).train.images, **usual | options)


def test_the_parts(coco: Path) -> None:
    data = load_coco(coco)
    assert (data.name, data.categories, data.classes) == ("tiny", {1: "red", 3: "blue"}, 4)
    assert (data.train.name, len(data.train), data.train.boxes, data.train.empty) == ("train2017", 4, 4, 1)
    assert (data.evaluation.name, len(data.evaluation), data.evaluation.boxes, data.evaluation.empty) == (
        "val2017",
        3,
        2,
        1,
    )
    assert data.train.images.ids == [10, 20, 30, 40]


def test_crowds_and_degenerate_boxes_are_not_learned_from_and_stay_in_what_is_measured(coco: Path) -> None:
    def spoil(known: dict[str, Any]) -> None:
        image = known["images"][0]["id"]
        own = {"image_id": image, "category_id": 1, "area": 5.0}
        known["annotations"] += [
            own | {"id": 91, "bbox": [0, 0, 50, 50], "iscrowd": 1},
            own | {"id": 92, "bbox": [5, 5, 30, 0.5], "iscrowd": 0},
            own | {"id": 93, "bbox": [5, 5, 0, 0], "iscrowd": 0},
            own | {"id": 94, "bbox": [WIDTH - 0.5, 5, 30, 30], "iscrowd": 0},  # beyond the image but for half a pixel
        ]

    change(coco, "train", spoil)
    change(coco, "val", spoil)
    data = load_coco(coco)
    assert (data.train.boxes, data.train.crowds, data.train.degenerate) == (4, 1, 3)
    assert (data.evaluation.boxes, data.evaluation.crowds, data.evaluation.degenerate) == (5, 1, 0)
    learned = [target for ((_, targets),) in loader(coco).epoch(0) for target in targets]
    assert sum(len(target["boxes"]) for target in learned) == 4
    assert all(not target["iscrowd"].any() for target in learned)
    for target in learned:
        assert (target["boxes"][:, 2:] - target["boxes"][:, :2] >= 1).all()
    *_, (_, (target,)) = in_order(data.evaluation.images, device=CPU, workers=0)
    assert target["iscrowd"].tolist() == [0, 1, 0, 0, 0]
    assert target["area"].tolist() == [800.0, 5.0, 5.0, 5.0, 5.0]
    assert target["boxes"][4].tolist() == [WIDTH - 0.5, 5, WIDTH + 29.5, 35]


def test_what_a_set_may_leave_out(coco: Path) -> None:
    change(coco, "val", lambda known: [(box.pop("area"), box.pop("iscrowd")) for box in known["annotations"]])
    *_, (_, (target,)) = in_order(load_coco(coco).evaluation.images, device=CPU, workers=0)
    assert (target["area"].tolist(), target["iscrowd"].tolist()) == ([1600.0], [0])


def test_an_image_without_boxes_has_an_empty_target(coco: Path) -> None:
    (image,), (target,) = next(in_order(load_coco(coco).evaluation.images, device=CPU, workers=0))
    assert (image.shape, image.dtype) == ((3, HEIGHT, WIDTH), torch.float32)
    assert {name: (value.shape, value.dtype) for name, value in target.items()} == {
        "boxes": ((0, 4), torch.float32),
        "labels": ((0,), torch.int64),
        "area": ((0,), torch.float32),
        "iscrowd": ((0,), torch.int64),
    }


def test_a_mirrored_box_covers_the_same_object(coco: Path) -> None:
    plain = BoxedImages(load_coco(coco).train.images, clamp=True)
    flipped = BoxedImages(load_coco(coco).train.images, flip=True, clamp=True)
    seen = set()
    for epoch in range(8):
        for index in (0, 1, 3):
            image, target = flipped[epoch, index]
            still, said = plain[epoch, index]
            mirrored = not torch.equal(image, still)
            seen.add(mirrored)
            assert torch.equal(image, still.flip(-1) if mirrored else still)
            left, top, right, bottom = said["boxes"].unbind(1)
            by_hand = torch.stack((WIDTH - right, top, WIDTH - left, bottom), dim=1) if mirrored else said["boxes"]
            assert torch.equal(target["boxes"], by_hand)
            for box, label in zip(target["boxes"].int().tolist(), target["labels"].tolist(), strict=True):
                inside = image[:, box[1] : box[3], box[0] : box[2]]
                assert (inside == torch.tensor(COLOURS[label]).view(3, 1, 1)).float().mean() > 0.99
    assert seen == {True, False}
    (_, target) = plain[0, 1]
    assert target["boxes"].tolist() == [[0, 30, 30, 60]]  # -6 is beyond the edge


def as_lists(batches: Any) -> list[Any]:
    return [
        [(image.sum().item(), target["boxes"].tolist()) for image, target in zip(*batch, strict=True)]
        for (batch,) in batches
    ]


def test_an_epoch_is_a_function_of_seed_and_epoch_alone(coco: Path) -> None:
    whole = loader(coco)
    first, second = as_lists(whole.epoch(0)), as_lists(whole.epoch(1))
    assert first != second
    torch.rand(3)
    assert as_lists(loader(coco, workers=1).epoch(0)) == first
    assert as_lists(loader(coco).epoch(1, start=1)) == second[1:]
    assert as_lists(loader(coco, seed=1).epoch(0)) != first
    shares = [as_lists(loader(coco, rank=rank, world_size=2).epoch(0)) for rank in (0, 1)]
    assert [one + two for one, two in zip(*shares, strict=True)] == first
    before = torch.get_rng_state()
    as_lists(whole.epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_some_images_alone(coco: Path) -> None:
    data = load_coco(coco, images=2, eval_images=1)
    assert (data.train.images.ids, data.evaluation.images.ids) == ([10, 20], [10])
    again = load_coco(coco, images=3, eval_split="train")
    assert (again.evaluation.name, again.evaluation.images.ids) == ("train2017", [10, 20, 30])
    assert load_coco(coco, images=2, eval_split="train", eval_images=3).evaluation.images.ids == [10, 20]


def no_folder(root: Path) -> None:
    (root / "val2017").rename(root / "elsewhere")


def no_file(root: Path) -> None:
    (root / "annotations/instances_val2017.json").unlink()


def no_json(root: Path) -> None:
    (root / "annotations/instances_train2017.json").write_text("{")


def no_image(root: Path) -> None:
    (root / "train2017" / f"{20:012}.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_folder, r"val2017 is missing: the images that .*instances_val2017.json is about"),
        (
            no_file,
            r"instances_val2017.json is missing: .* holds train2017/, val2017/ and annotations/.* of https://cocodataset",
        ),
        (no_json, r"instances_train2017.json: damaged, not JSON"),
        (no_image, r"train2017 lacks 1 of the images of instances_train2017.json; the first: 000000000020.png"),
        (
            lambda root: change(root, "train", lambda known: known.pop("images")),
            "not COCO's annotations, which are lists",
        ),
        (lambda root: change(root, "train", lambda known: known["images"].clear()), "no image or no category in it"),
        (
            lambda root: change(root, "train", lambda known: known["annotations"][0].pop("bbox")),
            r"an image, a box or a category is not as COCO's are \(KeyError\('bbox'\)\)",
        ),
        (
            lambda root: change(root, "train", lambda known: known["categories"][0].update(id=0)),
            "a category has the id 0; ids are whole numbers from 1, for 0 is the background, to 10,000",
        ),
        (
            lambda root: change(root, "val", lambda known: known["annotations"][0].update(category_id=7)),
            "val2017: a box has the category 7, which the training set lacks",
        ),
    ],
)
def test_what_is_not_coco_is_one_line(coco: Path, spoil: Any, message: str) -> None:
    spoil(coco)
    with pytest.raises(ValueError, match=message) as error:
        load_coco(coco)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(coco: Path, workers: int) -> None:
    path = coco / "train2017" / f"{20:012}.png"
    path.write_bytes(b"no image")
    with pytest.raises(RuntimeError, match=rf"{path.name}: cannot identify image file.*\(repair it, or take it out"):
        list(loader(coco, workers=workers).epoch(0))
    Image.new("RGB", (9, 7)).save(path)
    with pytest.raises(RuntimeError, match=rf"{path.name}: 9 x 7 pixels, where its annotation says 80 x 64"):
        list(loader(coco, workers=workers).epoch(0))


def test_the_pixels_are_those_that_the_boxes_are_of(coco: Path) -> None:
    """An orientation that a camera stored is not applied: boxes are of the pixels as they are stored."""
    path = coco / "val2017" / f"{10:012}.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)
    (image,), _ = next(in_order(load_coco(coco).evaluation.images, device=CPU, workers=0))
    assert image.shape == (3, HEIGHT, WIDTH)
