"""Table 4: object detection on the networks of Table 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.detect.config import DetectConfig
from selfdistill.files import refuse_link
from selfdistill.paper.scales import PaperConfig, Training
from selfdistill.paper.tables import CellMetric, CellSpec, PaperTable, RunEvaluation
from selfdistill.progress import OnProgress

Schedule = Literal["1x", "0.5x"]

_EPOCHS: dict[Schedule, int] = {"1x": 12, "0.5x": 7}


class Precision(msgspec.Struct, frozen=True):
    """Average precision on the validation images, as a fraction.

    Attributes:
        map: mean over IoU thresholds from 0.5 to 0.95; None without a detection.
        map_50: at the IoU threshold 0.5.
    """

    map: float | None
    map_50: float | None


class DetectorResult(msgspec.Struct, frozen=True):
    """What was measured of a detector on n validation images, after its epochs 7 and 12; None if it has only 7."""

    n: int
    after_7: Precision = msgspec.field(name="epoch 7")
    after_12: Precision | None = msgspec.field(name="epoch 12", default=None)


@dataclass(frozen=True)
class Detector(RunEvaluation):
    """Faster R-CNN with a feature pyramid on a run's network; it is trained in the run's folder, and deleted with it.

    It is evaluated after epoch 7 and after its last one.

    Attributes:
        schedule: 12 epochs, or 7.
    """

    schedule: Schedule
    result_type = DetectorResult

    @property
    def name(self) -> str:
        """Name of the cache file, without its suffix."""
        return f"coco-{self.schedule}"

    def cache_key(self, config: PaperConfig) -> dict[str, Any]:
        """Return what determines the numbers: the recipe without its paths and its seed, which is the run's."""
        left_out = {"data", "backbone", "seed", *DetectConfig.NON_SEMANTIC_FIELDS}
        values = ((name, value) for name, value in vars(self._recipe).items() if name not in left_out)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    def skip_reason(self, config: PaperConfig) -> str | None:
        """COCO needs networks that were trained on large images."""
        return None if config.scale == "full" else "COCO is only trained on at scale full"

    def check_data(self, config: PaperConfig, data: ImageData) -> None:
        """Load COCO's annotations, and check that its images are there."""
        from selfdistill.detect.coco import load_coco  # here and below: no other table should wait for this import

        load_coco(config.data_root / "coco")

    def evaluate(self, run: Path, data: ImageData, config: PaperConfig, progress: OnProgress) -> DetectorResult:
        """Train the detector, and return its average precisions."""
        from selfdistill.detect.run import detect

        seed = TrainConfig.from_yaml(run / "recipe.yaml").seed
        record = detect(self.recipe(run, config, seed), self.folder(run), progress=progress)
        by_epoch = {row.epoch: row for row in record.log if row.detections is not None}
        precisions = {epoch: Precision(row.map, row.map_50) for epoch, row in by_epoch.items()}
        return DetectorResult(record.evaluation.n, precisions[7], precisions.get(12))

    def folder(self, run: Path) -> Path:
        """Return the folder of the detector on a run's network."""
        return refuse_link(refuse_link(run / "detectors") / self.schedule)

    def recipe(self, run: Path, config: PaperConfig, seed: int) -> DetectConfig:
        """Return the recipe of the detector on a run's network; its paths are absolute, to be used from any folder."""
        data, backbone = (config.data_root / "coco").absolute(), run.absolute()
        return replace(self._recipe, data=str(data), backbone=str(backbone), seed=seed)

    @property
    def _recipe(self) -> DetectConfig:
        """The paper says only the schedule; the rest is the default."""
        return DetectConfig(epochs=_EPOCHS[self.schedule], eval_every=7)


_ROWS: tuple[tuple[str, Schedule, int, str | None], ...] = (
    ("1x, after epoch 7", "1x", 7, "0.5x (7 epochs)"),
    ("1x (12 epochs)", "1x", 12, "1x (12 epochs)"),
    ("0.5x, drops after 5 and 6 of 7 epochs", "0.5x", 7, None),
)
"""Name of the row, the detector, the epoch, and the printed row that it stands beside."""


def _cells() -> Iterator[CellSpec]:
    methods = (
        ("cross_entropy", "Cross-entropy", "CrossEntropy()"),
        ("sd_dropout", "SD-Dropout", "SDDropout(weight=0.1)"),
    )
    for key, name, method in methods:
        for row, schedule, epoch, printed in _ROWS:
            for column, number in (("mAP", "map"), ("mAP50", "map_50")):
                yield CellSpec(
                    f"{name}, {row}",
                    column,
                    Training(method, "imagenet", "resnet152"),
                    (CellMetric((f"after_{epoch}", number), Detector(schedule), digits=1),),
                    None if printed is None else f"table4_coco/rows/{key}/{printed}/{column}",
                )


TABLES = (PaperTable("table4", tuple(_cells()), one_seed=True),)
