"""A folder of COCO's layout that the test draws, and a detector small enough for a test."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from selfdistill.config import TrainConfig
from selfdistill.detect import network
from selfdistill.detect.config import DetectConfig
from selfdistill.training import train

CATEGORIES = [{"id": 1, "name": "red"}, {"id": 3, "name": "blue"}]
COLOURS = {1: (220, 20, 20), 3: (20, 20, 220)}
WIDTH, HEIGHT = 80, 64

# Category and box of each image's objects: the second has none, the third one that lies partly outside.
TRAIN = [[(1, (8, 8, 30, 30)), (3, (44, 20, 30, 36))], [], [(3, (-6, 30, 36, 30))], [(1, (20, 10, 40, 40))]]
VAL = [[(1, (10, 10, 40, 40))], [(3, (30, 12, 40, 44))], []]


def write_part(
    root: Path, part: str, images: list[list[tuple[int, tuple[int, ...]]]], categories: Sequence[dict[str, Any]] = ()
) -> None:
    """Draw a part's images, noise with coloured rectangles, and write its annotations."""
    folder = root / f"{part}2017"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    known: dict[str, Any] = {"images": [], "annotations": [], "categories": categories or CATEGORIES}
    generator = torch.Generator().manual_seed(len(part))
    for i, objects in enumerate(images):
        noise = torch.randint(90, 170, (HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8)
        picture, id_ = Image.fromarray(noise.numpy()), 10 * (len(images) - i)  # by id they come in reverse
        for category, (x, y, w, h) in objects:
            picture.paste(COLOURS[category], (x, y, x + w, y + h))
            known["annotations"].append(
                {
                    "id": len(known["annotations"]) + 1,
                    "image_id": id_,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h / 2,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x, y + h]],
                }
            )
        picture.save(folder / f"{id_:012}.png")
        known["images"].append({"id": id_, "file_name": f"{id_:012}.png", "width": WIDTH, "height": HEIGHT})
    (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(known))


def change(root: Path, part: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a part's annotations."""
    path = root / "annotations" / f"instances_{part}2017.json"
    known = json.loads(path.read_text())
    edit(known)
    path.write_text(json.dumps(known))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    write_part(root, "train", TRAIN)
    write_part(root, "val", VAL)
    return root


@pytest.fixture
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FasterRCNN", small_detector)


def small_detector(layers: object, classes: int, **options: Any) -> FasterRCNN:
    """16 features in the box head in the place of 1,024: of a detector's time and size it is most."""
    head, predictor = TwoMLPHead(256 * 7 * 7, 16), FastRCNNPredictor(16, classes)
    return FasterRCNN(layers, box_head=head, box_predictor=predictor, **options)


@pytest.fixture
def recipe(coco: Path) -> DetectConfig:
    return DetectConfig(
        data=str(coco),
        model="resnet18",
        image_size=64,
        rois=8,
        epochs=2,
        batch_size=2,
        lr=0.001,
        warmup_epochs=0.5,
        eval_every=2,
        threads=1,
        workers=0,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ``torchvision:resnet18``."""
    run = tmp_path_factory.mktemp("trained") / "sddropout-seed3"
    recipe = TrainConfig(
        data="digits",
        classes=2,
        per_class=2,
        test_per_class=2,
        model="torchvision:resnet18",
        epochs=1,
        batch_size=4,
        seed=3,
        threads=1,
    )
    train(recipe, run)
    return run
