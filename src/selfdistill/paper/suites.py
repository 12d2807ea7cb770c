"""The parts that the suite measures: attacks (Table 5), corruptions (Table 6), unknown images (Table 7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfdistill.data import ImageData
from selfdistill.evaluate.corruptions import fetch_cifar100c, open_published
from selfdistill.records import RunRecord
from selfdistill.runs.evaluation import EvaluationConfig, as_updates, load_ood_sets, measure
from selfdistill.train import load_run
from selfdistill.train.progress import Callback

if TYPE_CHECKING:
    from selfdistill.paper.scales import Setting

PUBLISHED = "CIFAR-100-C"
"""The folder of the published arrays, below ``data_root``."""


SUBSTITUTES = {"imagenet_resize": "Small ImageNet photographs", "cifar10": "CIFAR-10"}
"""Sets of other images that the paper did not use; at the scale "smoke" pieces of two photographs stand for them."""


@dataclass(frozen=True)
class Suite:
    """One measure of `selfdistill.evaluate.suite.MEASURES`.

    Attributes:
        measure_: which.
        source: for "ood" the set of other images; for "shift" `PUBLISHED`, or nothing for own corruptions.
    """

    measure_: str
    source: str = ""

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.measure_}-{self.source.lower()}" if self.source else self.measure_

    def asked(self, setting: Setting) -> dict[str, Any]:
        """What decides the numbers; not where the arrays are."""
        asked = self._asked(setting).to_dict()
        return asked | {"corruptions": None if asked["corruptions"] is None else self.source}

    def refusal(self, setting: Setting) -> str | None:
        """Published images would mean nothing to networks of synthetic images, nor 32 px to networks of 16."""
        if setting.scale == "smoke" and self.source not in ("", *SUBSTITUTES):
            return f"{self.source} is not looked at with synthetic images"
        if setting.scale in ("small", "medium") and self.source == PUBLISHED:
            return f"{PUBLISHED} has images of 32 px and the networks here see 16 px: take the scale full"
        return None

    def check(self, setting: Setting, data: ImageData) -> None:
        """Load what is needed besides the run's own images."""
        asked = self._asked(setting)
        load_ood_sets(asked, data.image_size)
        if asked.corruptions is not None:
            open_published(fetch_cifar100c(setting.data_root), classes=len(data.classes))

    def measure(self, run: Path, data: ImageData, setting: Setting, progress: Callback) -> dict[str, Any]:
        """Return the evaluation as a dict."""
        tell = as_updates(RunRecord.load(run / "result.json"), progress)
        return measure(load_run(run), data, self._asked(setting), train=False, progress=tell).to_dict()

    def _asked(self, setting: Setting) -> EvaluationConfig:
        return EvaluationConfig(
            measures=(self.measure_,),
            ood=() if self.measure_ != "ood" else ("photographs",) if setting.scale == "smoke" else (self.source,),
            corruptions=setting.data_root / PUBLISHED if self.source == PUBLISHED else None,
            max_images=8 if setting.scale == "smoke" else 1000,
            max_ood_images=32 if setting.scale == "smoke" else None,
            data_root=setting.data_root,
        )
