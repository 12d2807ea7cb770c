"""Table 4: object detection on the networks of Table 3."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selfdistill.data import ImageData
from selfdistill.detect.recipe import DetectRecipe
from selfdistill.experiments.paper.entry import Entry, Measure, PaperTable, Training
from selfdistill.train import Recipe
from selfdistill.train.progress import Callback

if TYPE_CHECKING:
    from selfdistill.experiments.paper.setting import Setting


@dataclass(frozen=True)
class Detector:
    """Faster R-CNN with a feature pyramid on a run's network; trained in the run's folder, and deleted with it.

    Attributes:
        schedule: 12 epochs, or 7.
    """

    schedule: Literal["1x", "0.5x"]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"coco-{self.schedule}"

    def asked(self, setting: Setting) -> dict[str, Any]:
        """What decides the numbers: the recipe, but for where things are, and for the seed, which is the run's."""
        left_out = {"data", "backbone", "seed", *DetectRecipe.NON_SEMANTIC_FIELDS}
        return {name: value for name, value in vars(self._recipe).items() if name not in left_out}

    def refusal(self, setting: Setting) -> str | None:
        """COCO needs networks that were trained on large images."""
        return None if setting.scale == "full" else "COCO is trained on at the scale full alone"

    def check(self, setting: Setting, data: ImageData) -> None:
        """Read COCO's annotations and look for its images."""
        from selfdistill.detect.coco import load_coco  # here, as below: no other table should wait for detection

        load_coco(setting.data_root / "coco")

    def measure(self, run: Path, data: ImageData, setting: Setting, progress: Callback) -> dict[str, Any]:
        """Train and measure the detector, and return its average precisions."""
        from selfdistill.detect import detect

        seed = Recipe.from_yaml(run / "recipe.yaml").seed
        return detect(self.recipe(run, setting, seed), self.folder(run), progress=progress).measured

    def folder(self, run: Path) -> Path:
        """The folder of the detector on a run's network."""
        return run / "detectors" / self.schedule

    def recipe(self, run: Path, setting: Setting, seed: int) -> DetectRecipe:
        """Return the recipe of the detector on a run's network; its paths are whole, so that they are of any folder."""
        data, backbone = (setting.data_root / "coco").absolute(), run.absolute()
        return replace(self._recipe, data=str(data), backbone=str(backbone), seed=seed)

    @property
    def _recipe(self) -> DetectRecipe:
        """What the paper says of it; the rest is as usual."""
        return DetectRecipe(schedule=self.schedule)


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
        one_seed=True,
    ),
)
