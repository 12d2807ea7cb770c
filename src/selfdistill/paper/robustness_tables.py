"""Tables 5, 6 and 7 and Fig. 3: adversarial attacks, corruptions, out-of-distribution detection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfdistill.data import ImageData
from selfdistill.evaluation.adversarial import EPSILONS
from selfdistill.evaluation.corruptions import CORRUPTIONS, fetch_cifar100c, open_published
from selfdistill.paper.classification_tables import TOP1
from selfdistill.paper.scales import DATASETS, PaperConfig, Training
from selfdistill.paper.tables import METHODS, SD_DROPOUT, CellMetric, CellSpec, PaperTable, RunEvaluation, pair_cells
from selfdistill.progress import OnProgress
from selfdistill.records import Evaluation
from selfdistill.records.record import plain
from selfdistill.runs.evaluation import EvaluationConfig, load_ood_sets, measure
from selfdistill.training import load_run

CIFAR100C = "CIFAR-100-C"
"""Folder of the published corrupted images, below ``data_root``."""

SUBSTITUTES = {"imagenet_resize": "Small ImageNet photographs", "cifar10": "CIFAR-10"}
"""Out-of-distribution datasets of our own; at the scale "smoke" pieces of two photographs replace them."""


@dataclass(frozen=True)
class SuiteEvaluation(RunEvaluation):
    """One measure of the evaluation suite, on the test images of a run.

    Attributes:
        measure: name in `selfdistill.evaluation.suite.MEASURES`.
        source: for "ood" the out-of-distribution dataset; for "shift" `CIFAR100C`, or nothing for corruptions drawn
            anew.
    """

    measure: str
    source: str = ""
    result_type = Evaluation

    @property
    def name(self) -> str:
        """Name of the cache file, without its suffix."""
        return f"{self.measure}-{self.source.lower()}" if self.source else self.measure

    def cache_key(self, config: PaperConfig) -> dict[str, Any]:
        """Return what determines the numbers, without the path of the corrupted images."""
        key: dict[str, Any] = plain(self._suite_config(config).suite)
        return key | {"corruptions": None if key["corruptions"] is None else self.source}

    def skip_reason(self, config: PaperConfig) -> str | None:
        """Published images mean nothing to networks of synthetic images, nor 32 px to networks of 16 px."""
        if config.scale == "smoke" and self.source not in ("", *SUBSTITUTES):
            return f"{self.source} is not evaluated with synthetic images"
        if config.scale in ("small", "medium") and self.source == CIFAR100C:
            return f"{CIFAR100C} has images of 32 px and the networks here see 16 px: take the scale full"
        return None

    def check_data(self, config: PaperConfig, data: ImageData) -> None:
        """Load the images that it needs besides the run's own; missing CIFAR-100-C is downloaded."""
        suite_config = self._suite_config(config)
        load_ood_sets(suite_config, data)
        if suite_config.corruptions is not None:
            open_published(fetch_cifar100c(config.data_root), classes=len(data.classes))

    def evaluate(self, run: Path, data: ImageData, config: PaperConfig, progress: OnProgress) -> Evaluation:
        """Run the suite on the run's network."""
        return measure(load_run(run), data, self._suite_config(config), train=False, progress=progress)

    def _suite_config(self, config: PaperConfig) -> EvaluationConfig:
        is_smoke = config.scale == "smoke"
        return EvaluationConfig(
            measures=(self.measure,),
            ood=() if self.measure != "ood" else ("photographs",) if is_smoke else (self.source,),
            corruptions=str(config.data_root / CIFAR100C) if self.source == CIFAR100C else None,
            max_images=8 if is_smoke else 1000,
            max_ood_images=32 if is_smoke else None,
            data_root=config.data_root,
        )


_CE = "CrossEntropy()"
_EPS = EPSILONS.index(2 / 255)
_FGSM_PAPER, _FGSM, _PGD = (
    CellMetric(("robustness", *path), SuiteEvaluation("robustness"), n_path=("robustness", n))
    for path, n in ((("paper",), "n"), (("fgsm", _EPS), "n"), (("pgd", _EPS), "pgd_n"))
)
_ATTACKS = {"FGSM as published, eps 0.2": _FGSM_PAPER, "FGSM, eps 2/255": _FGSM, "PGD-20, eps 2/255": _PGD}


def _attacks() -> Iterator[CellSpec]:
    """Yield the cells of Table 5."""
    for data in ("cifar100", "cub200", "dogs"):
        for name, metric in {"not attacked": TOP1, **_ATTACKS}.items():
            target = f"table5_fgsm_eps0.2/{data}" if metric is _FGSM_PAPER else None
            yield from pair_cells(f"{DATASETS[data]}: {name}", Training(_CE, data), SD_DROPOUT, metric, target)


def _attacked_sums() -> Iterator[CellSpec]:
    """Yield the numbers of Fig. 3."""
    for attack, metric in _ATTACKS.items():
        for key in ("cs_kd", "ddgsd", "byot", "dml"):
            name, alone, summed = METHODS[key]
            yield from pair_cells(f"{name}: {attack}", Training(alone), summed, metric)


def _corruptions() -> Iterator[CellSpec]:
    """Yield the cells of Table 6."""
    published, n = SuiteEvaluation("shift", CIFAR100C), ("shift", "n")
    mean = CellMetric(("shift", "mca"), published, n_path=n)
    training, keys = Training(_CE), (0, 1)
    for name in CORRUPTIONS:
        metric, target = CellMetric(("shift", "accuracy", name), published, n_path=n), f"table6_cifar100c/rows/{name}"
        yield from pair_cells(name.replace("_", " "), training, SD_DROPOUT, metric, target, keys=keys)
    yield from pair_cells("mCA", training, SD_DROPOUT, mean, "table6_cifar100c/mCA", keys=keys)
    own = replace(mean, evaluation=SuiteEvaluation("shift"))
    yield from pair_cells("mCA of own corruptions (a substitute)", training, SD_DROPOUT, own)


_OOD = {"lsun": ("LSUN", "lsun_resize"), "isun": ("iSUN", "isun"), "dtd": ("DTD", "dtd"), "svhn": ("SVHN", "svhn")}
_OOD_COLUMNS = {
    "FPR at 95 % TPR": "fpr_at_95_tpr",
    "Detection error": "detection_error",
    "AUROC": "auroc",
    "AUPR in": "aupr_in",
    "AUPR out": "aupr_out",
    "Detection error at 95 % TPR": "detection_error_at_95_tpr",  # as the text has it; not what is printed
}


def _ood() -> Iterator[CellSpec]:
    """Yield the cells of Table 7."""
    rows = {
        **{name: ((source,), key) for key, (name, source) in _OOD.items()},
        "Average": (tuple(source for _, source in _OOD.values()), "average"),
        **{f"{name} (a substitute)": ((source,), None) for source, name in SUBSTITUTES.items()},
    }
    for detector, suffix in (("ODIN released", ""), ("ODIN fixed", ", eps 0.0014")):
        for key, method_name, method in (
            ("cross_entropy", "Cross-entropy", _CE),
            ("sd_dropout", "SD-Dropout", SD_DROPOUT),
        ):
            for row, (sources, printed) in rows.items():
                for at, (column, metric) in enumerate(_OOD_COLUMNS.items()):
                    is_printed = printed is not None and not suffix and at < 5
                    yield CellSpec(
                        f"{row}{suffix}: {method_name}",
                        column,
                        Training(method),
                        tuple(_odin(source, detector, metric) for source in sources),
                        f"table7_ood_odin/{key}/{printed}/{at}" if is_printed else None,
                    )


def _odin(source: str, detector: str, metric: str) -> CellMetric:
    path = ("ood", 0, "detectors", detector, "metrics")
    return CellMetric((*path, metric), SuiteEvaluation("ood", source), n_path=(*path, "n_in"))


TABLES = (
    PaperTable("table5", tuple(_attacks())),
    PaperTable("table6", tuple(_corruptions())),
    PaperTable("table7", tuple(_ood())),
    PaperTable("figure3", tuple(_attacked_sums()), figure="bars"),
)
