"""`write_detector_report`: what a detector was trained on and how well it finds boxes, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfdistill.detect.config import PER_IMAGE, DetectConfig
from selfdistill.report.pages import write_pages
from selfdistill.report.tables import DASH, Table

if TYPE_CHECKING:  # a report is drawn without torch
    from selfdistill.detect.record import DetectRecord

_MEASURES = (
    ("map", "mAP", "mean over IoU 0.50, 0.55 ... 0.95"),
    ("map_50", "mAP@0.5", "at IoU 0.50"),
    ("map_75", "mAP@0.75", "at IoU 0.75"),
    ("map_small", "mAP, small", "objects below 32 x 32 pixels of area"),
    ("map_medium", "mAP, medium", "objects of 32 x 32 to 96 x 96"),
    ("map_large", "mAP, large", "objects above"),
    ("recall", "Recall", "with 100 detections an image, mean over the IoUs"),
)


def write_detector_report(record: DetectRecord, out_dir: Path) -> Path:
    """Write `detector.html` and `detector.md` for one detector; the same record gives the same bytes."""
    context = {
        "title": f"Object detection on {record.data.name}: Faster R-CNN, {record.backbone.model}",
        "headline": detector_headline(record),
        "results": precision_table(record),
        "protocol": _protocol(record),
        "facts": _facts(record),
        "log": _log(record),
        "position": {},
    }
    return write_pages("detector", Path(out_dir), [], context, methods=(), former=())


def detector_headline(record: DetectRecord) -> str:
    """The two numbers of the paper's Table 4, with the images, the schedule and the seed that they belong to."""
    of = record.evaluation
    return (
        f"mAP {_percent(of.map)}, mAP@0.5 {_percent(of.map_50)} on n = {of.n:,} images of {_where(record)}; "
        f"{record.schedule}, {record.policy}, seed {record.seed}."
    )


def precision_table(record: DetectRecord) -> Table:
    """One row a measure, with what it is."""
    rows = tuple((title, _percent(getattr(record.evaluation, name)), note) for name, title, note in _MEASURES)
    return Table(("Measure", "%", "What it is"), rows)


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f}"


def _where(record: DetectRecord) -> str:
    """The images of the evaluation, and whether they are all of a part, or those of the training."""
    recipe, name = record.recipe, record.data.evaluation.name
    if recipe.eval_split == "train":
        return f"{name}, on which it was trained"
    return name if recipe.eval_images is None else f"{name}, the first by id"


def _protocol(record: DetectRecord) -> list[str]:
    """How the numbers were made."""
    evaluation, recipe = record.evaluation, record.recipe
    notes = [
        f"{evaluation.n:,} images with {evaluation.boxes:,} boxes, {evaluation.detections:,} detections; an "
        "average is over the classes that occur. A dash: no such object.",
        "What is detected in a crowd (iscrowd) counts neither as right nor as wrong; an object's size is its area as "
        "published, in the pixels of the stored image. torchmetrics with faster-coco-eval.",
        f"Images are resized to {recipe.image_size} pixels on the shorter side (at most 1333/800 of that on the "
        "longer) and shown one at a time.",
        f"Learning rate {recipe.lr:g} for {recipe.batch_size} images per step (the usual rate, 0.02 for 16, in "
        f"proportion, would be {PER_IMAGE * recipe.batch_size:g}), {_decay(recipe)}.",
        "One training of one detector: how far another with another seed would come out, it cannot tell.",
    ]
    if record.schedule.startswith("0.5x"):
        notes.append("Of the 0.5x schedule the paper says its 7 epochs alone: the drops after 5 and 6 are ours.")
    if recipe.eval_split == "train":
        notes.append("Evaluated on the training images: it says how well they are fitted, and nothing of new images.")
    return notes


def _decay(recipe: DetectConfig) -> str:
    if recipe.schedule == "cosine":
        return "falling to zero along a cosine"
    if recipe.schedule == "one_cycle":
        return "rising and falling in one cycle"
    drops = " and ".join(map(str, recipe.drop_epochs))
    return f"times {recipe.gamma:g} after epochs {drops}" if drops else "never lowered"


def _facts(record: DetectRecord) -> Table:
    """What was trained, on what, where."""
    train, start, recipe = record.data.train, record.backbone, record.recipe
    training = sum(row.seconds for row in record.log)
    of_run = (("Run", start.run), ("Method", start.method))
    rows: list[tuple[str, str]] = [
        ("Backbone", start.model),
        ("Its weights", start.weights),
        *((name, value) for name, value in of_run if value is not None),
        *([("Its test top-1", f"{start.top1:.2%} on {start.data}")] if start.top1 is not None else []),
        ("BatchNorm", f"{recipe.norm}"),
        ("Trained layers of the backbone", f"{recipe.trainable_layers} of 5"),
        ("Parameters", f"{record.parameters:,}, of which {record.trained_parameters:,} are trained"),
        ("Training images", f"{train.n:,} of {train.name}, {train.empty:,} of them without a box"),
        ("Boxes", f"{train.boxes:,}"),
        ("Left out", f"{train.crowds:,} crowds, {train.degenerate:,} boxes with less than a pixel of a side"),
        ("Training", f"{training:,.0f} s on {record.processes} x {record.device}, {recipe.precision}"),
        ("Evaluations", f"{record.seconds - training:,.0f} s"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("Date, commit", f"{record.date}, {record.commit or DASH}"),
    ]
    return Table(("What", "Value"), tuple(rows))


def _log(record: DetectRecord) -> Table:
    """One row per epoch: the rate, the losses and, if it was evaluated, the two numbers of the headline."""
    losses = ("epoch", "lr", "loss", "classifier", "box_reg", "objectness", "rpn_box_reg")
    headings = (*(name.replace("_", " ").capitalize() for name in losses), "mAP (%)", "mAP@0.5 (%)")
    rows = (
        (str(row.epoch), *(f"{getattr(row, name):.4g}" for name in losses[1:]), _percent(row.map), _percent(row.map_50))
        for row in record.log
    )
    return Table(headings, tuple(rows))
