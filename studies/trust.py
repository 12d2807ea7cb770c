"""Is the better network also the better calibrated, more robust and more honest one?

uv run python studies/trust.py     trains and measures what is missing (CIFAR-100 in data/cifar100, and two sets of
                                        other images in data/ood)
uv run python docs/make.py              writes the page and the figures from the records
"""

import json
from dataclasses import replace
from statistics import fmean

from archive import RESULTS
from setting import Setting

from selfdistill.config import TrainConfig
from selfdistill.records import METRICS, Difference, RunRecord, summarise
from selfdistill.report.tables import Column, Table, column_of, interval, markdown
from selfdistill.runs.evaluation import EvaluationConfig

SETTING = Setting(
    "CIFAR-100, 20 x 250, 80 epochs",
    "trust",
    TrainConfig(
        data="cifar100",
        classes=20,
        per_class=250,
        model="resnet10_cifar",
        width=16,
        batch_size=64,
        epochs=80,
        channels_last=True,
        eval_every=5,
    ),
    ("CrossEntropy()", "SDDropout(weight=0.1)", "SDDropout()"),
    evaluation=EvaluationConfig(ood=("data/ood/imagenet_resize", "data/ood/cifar10_test_2000.npz")),
)

COLUMNS = (
    column_of("top1", digits=1),
    column_of("nll"),
    column_of("ece"),
    column_of("adaptive_ece"),
    column_of("scaled_ece", title="ECE after temperature scaling"),
    column_of("scaled_nll", title="NLL after temperature scaling"),
    column_of("gap"),
    column_of("aurc", unit="%", scale=100, digits=1),
    column_of("fgsm_2"),
    column_of("pgd_2"),
    column_of("fgsm_paper"),
    column_of("mca", title="Own corruptions, mCA", digits=1),
)
"""What is compared, beside the out-of-distribution detectors."""


def measures_table(records: list[RunRecord]) -> str:
    """One row a measure: cross-entropy, and each method's difference to it with its 95 % interval."""
    summary = summarise(records)
    first, *others = summary.methods
    rows = [
        (
            column.heading,
            column.cell(summary.statistics[first, column.metric]),
            *(_changed(column, summary.differences[method, column.metric]) for method in others),
        )
        for column in COLUMNS
    ]
    return markdown(Table(("Measure", first, *others), tuple(rows)))


def detection_table(records: list[RunRecord]) -> str:
    """One row per set and detector: the mean AUROC over the seeds, in %, for each method."""
    by_method: dict[str, list[RunRecord]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    rows = [
        (
            one.name,
            detector,
            *(f"{100 * fmean(_auroc(run, at, detector) for run in runs):.1f}" for runs in by_method.values()),
        )
        for at, one in enumerate(records[0].evaluation.ood)
        for detector in one.detectors
    ]
    return markdown(Table(("Set", "Detector", *by_method), tuple(rows)))


def spread_table(records: list[RunRecord]) -> str:
    """One row per method: the sd of the posterior over dropout masks, on the test images and on each set."""
    by_method: dict[str, list[RunRecord]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    names = [one.name for one in records[0].evaluation.ood]
    rows = []
    for method, runs in by_method.items():
        of_sets = [
            [found for run in runs if (found := run.evaluation.ood[at].disagreement)] for at in range(len(names))
        ]
        test = fmean(one.in_distribution for one in of_sets[0])
        rows.append((method, f"{test:.5f}", *(f"{fmean(one.ood for one in found):.5f}" for found in of_sets)))
    return markdown(Table(("Method", "test images", *names), tuple(rows)))


def findings(records: list[RunRecord]) -> str:
    """Say for each method which measures are better, worse and undecided by the 95 % intervals."""
    summary = summarise(records)
    sentences = []
    for method in summary.methods[1:]:
        effects: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
        for column in COLUMNS:
            if METRICS[column.metric].better:
                effects[summary.differences[method, column.metric].effect].append(column.title)
        parts = [f"{word} in {', '.join(names)}" for word, names in effects.items() if names and word != "unclear"]
        if effects["unclear"]:
            parts.append(f"undecided in {', '.join(effects['unclear'])}")
        sentences.append(f"- `{method}` against {summary.methods[0]}: {'; '.join(parts)}.")
    return "\n".join(sentences)


def measured_how(records: list[RunRecord]) -> str:
    """Say on how many images each number stands."""
    evaluation = records[0].evaluation
    attacks, shift = evaluation.robustness, evaluation.shift
    assert attacks is not None
    assert shift is not None
    others = ", ".join(f"{one.name} ({one.n:,} images, {one.prepared})" for one in evaluation.ood)
    return (
        f"PGD and the corruptions ({shift.source}, {shift.n:,} images at each severity) see "
        f"{attacks.pgd_n:,} of the {attacks.n:,} test images, FGSM all of them. "
        f"Out-of-distribution sets: {others}."
    )


def cost_table() -> str:
    """What `benchmarks/suite.py` measured: the suite's time beside that of the bare passes that it needs."""
    record = json.loads((RESULTS / "benchmarks" / "suite.json").read_text())
    rows = [
        (row["measure"], f"{row['seconds']:.2f}", f"{row['bare']:.2f}", f"{row['seconds'] / row['bare']:.2f}")
        for row in record["rows"]
    ]
    setting = record["setting"]
    table = markdown(
        Table(("Measure", "Suite, s", "Bare passes, s", "Ratio"), (*rows, ("all", "", "", f"{record['ratio']:.2f}")))
    )
    return (
        f"{table}\n\n{setting['model']}, width {setting['width']}, {setting['images']} images of {setting['size']} px, "
        f"batches of {setting['batch_size']}, {record['device']}, {record['threads']} threads, torch "
        f"{record['versions']['torch']}, commit {record['commit'][:9]}, {record['date'][:10]}."
    )


def _auroc(run: RunRecord, at: int, detector: str) -> float:
    return run.evaluation.ood[at].detectors[detector].metrics.auroc


def _changed(column: Column, difference: Difference) -> str:
    signed = replace(column, signed=True)
    assert difference.mean is not None
    return f"{signed.number(difference.mean)} ({interval(signed, difference)})"


if __name__ == "__main__":
    SETTING.train()
