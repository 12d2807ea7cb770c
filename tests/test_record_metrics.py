import statistics

import msgspec
import pytest

from selfdistill.records import METRICS, TOO_FEW_IMAGES, Data, Evaluation, RunRecord, summarise
from selfdistill.records.evaluation import (
    OWN,
    PUBLISHED,
    CorruptionAccuracy,
    OODDetector,
    OODMetrics,
    OODResult,
    Reliability,
    RiskCoverage,
    Robustness,
    RocCurve,
    Scaled,
    ScoreHistogram,
)
from selfdistill.records.metrics import accuracy_at
from tests.changing import changed

NEW = (
    "adaptive_ece",
    "classwise_ece",
    "scaled_ece",
    "scaled_nll",
    "aurc",
    "fgsm_2",
    "pgd_2",
    "fgsm_paper",
    "mca",
    "ood_auroc",
    "ood_fpr",
)


def detector(auroc: float, fpr: float) -> OODDetector:
    metrics = OODMetrics(
        fpr_at_95_tpr=fpr, detection_error=0.0, detection_error_at_95_tpr=0.0, auroc=auroc, aupr_in=0.0, aupr_out=0.0,
        balanced_aupr_in=0.0, balanced_aupr_out=0.0, n_in=2, n_out=2,
    )  # fmt: skip
    return OODDetector(metrics, RocCurve((), ()), ScoreHistogram((), (), ()), 0.0014)


def ood_result(name: str, *right: OODDetector) -> OODResult:
    detectors = {"max softmax": detector(0.1, 0.1)} | dict.fromkeys(["ODIN fixed"][: len(right)], *right)
    return OODResult(name, 2, "as they are", detectors, (1, 1), 1000.0, None)


QUALITY = Evaluation(
    n=2, top1=0.7, top5=None, nll=1.0, brier=0.4, ece=0.1, bins=10, confidence=0.65, gap=-0.05,
    reliability=Reliability((), (), (), ()), per_class=(),
)  # fmt: skip
WHOLE = msgspec.structs.replace(
    QUALITY,
    adaptive_ece=0.11,
    classwise_ece=0.012,
    scaled=Scaled(temperatures=(1.0, 1.0), n=2, nll=0.9, ece=0.02, gap=0.0, bins=10),
    selective=RiskCoverage((), (), 0.08, 2),
    robustness=Robustness(
        n=2, clean=0.7, eps=(0.5 / 255, 1 / 255, 2 / 255), fgsm=(0.6, 0.5, 0.4), paper_eps=0.2, paper=0.45,
        vanished=0.0, pgd_n=2, pgd_steps=20, pgd_clean=0.7, pgd=(0.3, 0.2, 0.1), pgd_fgsm=(0.6, 0.5, 0.4),
    ),
    shift=CorruptionAccuracy(source=OWN, n=2, mca=0.55, per_severity=(), accuracy={}),
    ood=(ood_result("a", detector(0.8, 0.5)), ood_result("b", detector(0.6, 0.9)), ood_result("c")),
)  # fmt: skip


def record(method: str, seed: int, evaluation: Evaluation = WHOLE) -> RunRecord:
    values: dict[str, object] = dict.fromkeys(RunRecord.__struct_fields__)
    values |= {
        "recipe_values": {"epochs": 1},
        "data": Data(name="d", classes=2, train_n=2, test_n=2, test_split_description="test folder", skipped=0),
        "rows": (),
        "name": method,
        "method": method,
        "seed": seed,
        "evaluation": evaluation,
    }
    return RunRecord(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adaptive_ece", 0.11), ("classwise_ece", 0.012), ("scaled_ece", 0.02), ("scaled_nll", 0.9), ("aurc", 0.08),
        ("fgsm_2", 0.4), ("pgd_2", 0.1), ("fgsm_paper", 0.45), ("mca", 0.55), ("ood_auroc", 0.7), ("ood_fpr", 0.7),
        ("abs_gap", 0.05),
    ],
)  # fmt: skip
def test_numbers_deep_inside(name: str, value: float) -> None:
    assert record("A()", 0).metric(name) == pytest.approx(value)


@pytest.mark.parametrize("name", NEW)
def test_records_without_them_have_none(name: str) -> None:
    assert METRICS[name].read(QUALITY) is None
    lower = ("adaptive_ece", "classwise_ece", "scaled_ece", "scaled_nll", "aurc", "ood_fpr")
    assert METRICS[name].better == ("lower" if name in lower else "higher")


def test_a_name_that_is_no_metric() -> None:
    with pytest.raises(KeyError):
        record("A()", 0).metric("topl")


def test_an_eps_that_was_not_measured() -> None:
    assert WHOLE.robustness is not None
    assert accuracy_at(WHOLE.robustness, "pgd", 8 / 255) is None
    other = changed(WHOLE, (0.5 / 255, 1 / 255, 3 / 255), "robustness", "eps")
    assert METRICS["pgd_2"].read(other) is None


def test_differences_in_what_was_measured_deep_inside() -> None:
    runs = [
        record(m, s, changed(changed(WHOLE, v + s / 50, "shift", "mca"), 100, "shift", "n"))
        for m, v in (("A()", 0.5), ("B()", 0.6))
        for s in (0, 1)
    ]
    summary = summarise(runs)
    assert summary.statistics["B()", "mca"].mean == pytest.approx(statistics.fmean([0.6, 0.62]))
    assert summary.differences["B()", "mca"].effect == "better"
    runs[-1] = changed(runs[-1], 99, "evaluation", "shift", "n")
    assert ("B()", "mca") not in summarise(runs).differences
    runs = [changed(run, 99, "evaluation", "shift", "n") for run in runs]
    of_few = summarise(runs).differences["B()", "mca"]
    assert (of_few.verdict, of_few.effect, of_few.n) == (TOO_FEW_IMAGES, "unclear", 2)


@pytest.mark.parametrize(
    ("path", "value", "metrics"),
    [
        (("shift", "source"), PUBLISHED, ["mca"]),
        (("shift", "n"), 300, ["mca"]),
        (("ood",), WHOLE.ood[:1], ["ood_auroc", "ood_fpr"]),
        (("ood", 0, "n"), 300, ["ood_auroc", "ood_fpr"]),
        (("robustness", "n"), 300, ["fgsm_2", "fgsm_paper"]),
        (("robustness", "paper_eps"), 0.1, ["fgsm_paper"]),
        (("robustness", "pgd_n"), 300, ["pgd_2"]),
        (("robustness", "pgd_steps"), 7, ["pgd_2"]),
    ],
)
def test_what_was_measured_in_another_way_has_no_difference(
    path: tuple[str | int, ...], value: object, metrics: list[str]
) -> None:
    other = record("B()", 1, changed(WHOLE, value, *path))
    summary = summarise([record("A()", 0), record("A()", 1), record("B()", 0), other])
    for metric in METRICS:
        if summary.statistics.get(("B()", metric)):
            assert (("B()", metric) not in summary.differences) == (metric in metrics)


def test_a_run_without_the_measure_does_not_forbid_the_others_difference() -> None:
    runs = [record("A()", 0), record("B()", 0), record("B()", 1, changed(WHOLE, None, "shift"))]
    assert summarise(runs).differences["B()", "mca"].n == 1
