import statistics
import sys
from pathlib import Path

import pytest

from selfdistill.records import METRICS, Data, RunRecord, summarise
from selfdistill.records.metrics import accuracy_at, metric_of

NEW = (
    "adaptive_ece",
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


def evaluation() -> dict[str, object]:
    def detectors(auroc: float, fpr: float) -> dict[str, object]:
        right = {"metrics": {"auroc": auroc, "fpr_at_95_tpr": fpr}}
        return {"max softmax": {"metrics": {"auroc": 0.1, "fpr_at_95_tpr": 0.1}}, "ODIN fixed": right}

    return {
        "top1": 0.7, "top5": None, "nll": 1.0, "brier": 0.4, "ece": 0.1, "gap": -0.05, "train_top1": None,
        "adaptive_ece": 0.11, "scaled": {"ece": 0.02, "nll": 0.9}, "selective": {"aurc": 0.08},
        "robustness": {
            "eps": [0.5 / 255, 1 / 255, 2 / 255], "fgsm": [0.6, 0.5, 0.4], "pgd": [0.3, 0.2, 0.1], "paper": 0.45
        },
        "shift": {"mca": 0.55, "source": "own corruptions"},
        "ood": [
            {"name": "a", "detectors": detectors(0.8, 0.5)},
            {"name": "b", "detectors": detectors(0.6, 0.9)},
            {"name": "c", "detectors": {}},
        ],
    }  # fmt: skip


def record(method: str, seed: int, **changes: object) -> RunRecord:
    values: dict[str, object] = dict.fromkeys(RunRecord.__struct_fields__)
    values |= {
        "recipe": {"epochs": 1},
        "data": Data(name="d", classes=2, train_n=2, test_n=2, test_split_description="test folder", skipped=0),
        "log": [],
        "name": method,
        "method": method,
        "seed": seed,
    }
    return RunRecord(**(values | {"evaluation": evaluation() | changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adaptive_ece", 0.11), ("scaled_ece", 0.02), ("scaled_nll", 0.9), ("aurc", 0.08), ("fgsm_2", 0.4),
        ("pgd_2", 0.1), ("fgsm_paper", 0.45), ("mca", 0.55), ("ood_auroc", 0.7), ("ood_fpr", 0.7), ("abs_gap", 0.05),
    ],
)  # fmt: skip
def test_numbers_deep_inside(name: str, value: float) -> None:
    assert record("A()", 0).metric(name) == pytest.approx(value)


@pytest.mark.parametrize("name", NEW)
def test_records_without_them_have_none(name: str) -> None:
    older = {key: evaluation()[key] for key in ("top1", "gap")}
    assert metric_of(older, name) is None
    assert metric_of(older | dict.fromkeys(("scaled", "selective", "robustness", "shift")), name) is None
    lower = ("adaptive_ece", "scaled_ece", "scaled_nll", "aurc", "ood_fpr")
    assert METRICS[name].better == ("lower" if name in lower else "higher")


def test_a_name_that_is_no_metric() -> None:
    with pytest.raises(KeyError):
        metric_of(evaluation(), "topl")


def test_an_eps_that_was_not_measured() -> None:
    assert accuracy_at({"eps": [1 / 255], "pgd": [0.5]}, "pgd", 2 / 255) is None
    assert metric_of({"robustness": {"eps": [1 / 255], "pgd": [0.5]}}, "pgd_2") is None


def test_differences_in_what_was_measured_deep_inside() -> None:
    runs = [
        record(m, s, shift={"mca": v + s / 50, "source": "x"}) for m, v in (("A()", 0.5), ("B()", 0.6)) for s in (0, 1)
    ]
    summary = summarise(runs)
    assert summary.statistics["B()", "mca"].mean == pytest.approx(statistics.fmean([0.6, 0.62]))
    assert summary.differences["B()", "mca"].effect == "better"


@pytest.mark.parametrize(
    ("change", "metrics"),
    [
        ({"shift": {"mca": 0.9, "source": "published arrays"}}, ["mca"]),
        ({"shift": evaluation()["shift"] | {"n": 300}}, ["mca"]),  # type: ignore[operator]
        ({"ood": evaluation()["ood"][:1]}, ["ood_auroc", "ood_fpr"]),  # type: ignore[index]
        ({"ood": [evaluation()["ood"][0] | {"n": 300}, *evaluation()["ood"][1:]]}, ["ood_auroc", "ood_fpr"]),  # type: ignore[index]
        ({"robustness": evaluation()["robustness"] | {"n": 300}}, ["fgsm_2", "fgsm_paper"]),  # type: ignore[operator]
        ({"robustness": evaluation()["robustness"] | {"paper_eps": 0.1}}, ["fgsm_paper"]),  # type: ignore[operator]
        ({"robustness": evaluation()["robustness"] | {"pgd_n": 300}}, ["pgd_2"]),  # type: ignore[operator]
        ({"robustness": evaluation()["robustness"] | {"pgd_steps": 7}}, ["pgd_2"]),  # type: ignore[operator]
    ],
)
def test_what_was_measured_in_another_way_has_no_difference(change: dict[str, object], metrics: list[str]) -> None:
    runs = [record("A()", 0), record("A()", 1), record("B()", 0), record("B()", 1, **change)]
    summary = summarise(runs)
    for metric in METRICS:
        if summary.statistics.get(("B()", metric)):
            assert (("B()", metric) not in summary.differences) == (metric in metrics)


def test_a_run_without_the_measure_does_not_forbid_the_others_difference() -> None:
    runs = [record("A()", 0), record("B()", 0), record("B()", 1, shift=None)]
    assert summarise(runs).differences["B()", "mca"].n == 1


def test_the_record_needs_no_torch() -> None:
    import subprocess

    code = "import sys, selfdistill.records.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.cwd()).returncode == 0
