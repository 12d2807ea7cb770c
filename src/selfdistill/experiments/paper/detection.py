"""Table 4: object detection on the networks of Table 3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfdistill.data import ImageData
from selfdistill.detect.recipe import DetectRecipe
from selfdistill.experiments.paper.entry import Entry, Measure, PaperTable, Training
from selfdistill.train import Recipe

if TYPE_CHECKING:
    from selfdistill.experiments.paper.setting import Setting


@dataclass(frozen=True)
class Detector:
    """Faster R-CNN with a feature pyramid on a run's network; trained in ``out/detectors``.

    Attributes:
        schedule: 12 epochs, or 7.
    """

    schedule: Literal["1x", "0.5x"]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"coco-{self.schedule}"

    def asked(self, setting: Setting) -> dict[str, Any]:
        """What decides the numbers: the recipe's own defaults are the usual ones."""
        return {"schedule": self.schedule}

    def refusal(self, setting: Setting) -> str | None:
        """COCO needs networks that were trained on large images."""
        return None if setting.scale == "full" else "COCO is trained on at --scale full alone"

    def check(self, setting: Setting, data: ImageData) -> None:
        """Read COCO's annotations and look for its images."""
        from selfdistill.detect.coco import load_coco  # here, as below: no other table should wait for detection

        load_coco(setting.data_root / "coco")

    def measure(self, run: Path, data: ImageData, setting: Setting) -> dict[str, Any]:
        """Train and measure the detector, and return its average precisions."""
        from selfdistill.experiments.detecting import run_detector

        out = setting.out / "detectors" / f"{run.name}-{self.schedule}"
        record, _ = run_detector(self.recipe(run, setting), out, devices=1, nodes=1, accelerator="auto")
        assert record is not None
        return record.measured

    def recipe(self, run: Path, setting: Setting) -> DetectRecipe:
        """Return the recipe of the detector on a run's network; its seed is the run's."""
        return DetectRecipe(
            data=str(setting.data_root / "coco"),
            backbone=str(run),
            schedule=self.schedule,
            seed=Recipe.from_yaml(run / "recipe.yaml").seed,
        )


def _entries() -> tuple[Entry, ...]:
    rows = (("cross_entropy", "Cross-entropy", "CrossEntropy()"), ("sd_dropout", "SD-Dropout", "SDDropout(weight=0.1)"))
    schedules: tuple[tuple[str, Literal["1x", "0.5x"]], ...] = (("0.5x (7 epochs)", "0.5x"), ("1x (12 epochs)", "1x"))
    return tuple(
        Entry(
            f"{name}, {length}",
            column,
            Training(method, "imagenet", "resnet152"),
            (Measure((at,), Detector(schedule), digits=1),),
            f"table4_coco/rows/{key}/{length}/{column}",
        )
        for key, name, method in rows
        for length, schedule in schedules
        for column, at in (("mAP", "map"), ("mAP50", "map_50"))
    )


TABLES = (
    PaperTable(
        "table4",
        "Object detection on COCO, Faster R-CNN on the networks of Table 3",
        _entries(),
        (
            "Trained on train2017, measured on val2017, last epoch; SD-Dropout acts in the network's own training "
            "alone. Batches of 16, rate 0.02, drops after 8 and 11 of 12 epochs, and after 5 and 6 of 7, where the "
            "paper says nothing. Epochs are those of the network on ImageNet.",
        ),
    ),
)
