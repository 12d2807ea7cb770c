"""Does the detector learn? Faster R-CNN on ResNet-18 from scratch fits 16 images of COCO, in minutes without a GPU.

uv run python studies/detection.py [COCO]     trains on the first 16 training images (by id) of a folder of COCO's
                                              layout (default: data/coco), evaluates on the same 16 before and after,
                                              writes results/detection/sixteen.json and prints a table

It says that images, boxes, losses, schedule and metric fit together, and nothing of images that were not seen.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfdistill.detect.coco import load_coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import load_backbone
from selfdistill.detect.run import detect
from selfdistill.detect.task import assemble
from selfdistill.progress import progress_bar
from selfdistill.records.record import plain
from selfdistill.report.tables import Table, markdown
from selfdistill.training import random_state
from selfdistill.training.session import make_fabric

RESULT = Path(__file__).resolve().parents[1] / "results" / "detection" / "sixteen.json"

RECIPE = DetectConfig(
    data="data/coco",
    images=16,
    eval_split="train",
    image_size=320,
    model="resnet18",
    norm="trained",  # BatchNorm that was never trained cannot be frozen
    rois=64,  # of 512 proposals a few would hold an object, and their share of the loss be as small
    epochs=16,
    batch_size=2,
    lr=0.01,  # four times the usual rate for 2 images: 128 steps are few. Without clipping it diverges
    warmup_epochs=5,
    clip=2.0,
    eval_every=16,
    threads=1,
    workers=0,
)


def untrained(recipe: DetectConfig) -> dict[str, Any]:
    """Evaluate the detector that the training starts from."""
    with random_state.preserved():
        backbone = load_backbone(recipe)
        data = load_coco(recipe.data, images=recipe.images, eval_split=recipe.eval_split)
        resolved = recipe.resolve(backbone.model, trained=False)
        session = assemble(resolved, data, backbone, make_fabric(resolved, accelerator="cpu"))
        untrained: dict[str, Any] = plain(session.task.average_precision())
        return untrained


def run(recipe: DetectConfig) -> dict[str, Any]:
    """Evaluate, train, evaluate; return the record."""
    before = untrained(recipe)
    with tempfile.TemporaryDirectory() as folder, progress_bar("detection") as progress:
        record = detect(recipe, Path(folder) / "sixteen", accelerator="cpu", progress=progress)
    values: dict[str, Any] = plain(record)
    del values["recipe"]["data"]  # where the images lay on one machine
    return {"untrained": before} | values


def precision_table(record: dict[str, Any]) -> str:
    """mAP and mAP@0.5 before and after."""
    rows = [
        (name, *(f"{100 * record[when][key]:.1f}" for key in ("map", "map_50")), f"{record[when]['detections']:,}")
        for name, when in (("Untrained", "untrained"), (f"After {record['epochs']} epochs", "evaluation"))
    ]
    return markdown(Table(("Detector", "mAP (%)", "mAP@0.5 (%)", "Detections"), tuple(rows)))


def caption(record: dict[str, Any]) -> str:
    """Say what was evaluated, on what, and how long an epoch took."""
    evaluation, train = record["evaluation"], record["data"]["train"]
    seconds = statistics.median(row["seconds"] for row in record["log"])  # whatever a pause of the machine adds to one
    return (
        f"The same {evaluation['n']} images of COCO's {train['name']} ({train['boxes']} boxes) that it was trained on, "
        f"{record['recipe']['image_size']} px, seed {record['seed']}, {record['policy']}; {seconds:.0f} s an epoch "
        f"with {record['threads']} CPU thread(s)."
    )


def main() -> None:
    """Train, write and print."""
    recipe = RECIPE if len(sys.argv) < 2 else DetectConfig(**asdict(RECIPE) | {"data": sys.argv[1]})
    record = run(recipe)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{caption(record)}\n\n{precision_table(record)}")


if __name__ == "__main__":
    main()
