"""Our numbers beside the logs of the published runs: bands, verdicts, and the page that lists deviations."""

import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from selfdistill.paper import TABLES, PaperConfig, TableResult, collect_result
from selfdistill.paper.pages import (
    anchors_table,
    describe_deviations,
    describe_regime,
    describe_result,
    table_title,
    write_page,
)
from selfdistill.paper.scales import PUBLISHED_SIZES, Training
from selfdistill.paper.tables import LogTarget
from selfdistill.report.tables import DASH, terminal
from tests.report.conftest import record as make_record

ANCHORS = TABLES["anchors"]
EPOCHS = 200
MADE = make_record(epochs=EPOCHS)
FIT = msgspec.structs.replace(MADE.evaluation, train_top1=1.0, gap=0.12)


@pytest.mark.parametrize(
    ("row", "column", "published"),
    [
        ("Cross-entropy", "Training CE", (0.0052, 0.0057)),
        ("SD-Dropout", "Training 9 SDD", (0.297, 0.299)),
        ("SD-Dropout, one-sided", "Training 9 SDD", (0.122,)),
        ("CS-KD + 0.1 SD-Dropout", "Training 16 KL", (0.0356,)),
        ("DDGSD", "Training CE, sum of two views", (0.0152,)),
        ("BYOT, lambda 1", "Training 9 KL, sum of three branches", (7.35,)),
        ("BYOT, lambda 1", "Top-1, last epoch", (76.98, 0.14)),
        ("BYOT, lambda 0.1", "Top-1, last epoch", (77.2, 0.2)),
        ("DML + 0.1 SD-Dropout", "Top-1, last epoch", (78.8, 0.2)),
        ("SD-Dropout", "Top-1, mean of all epochs", (70.2, 0.16)),
        ("SD-Dropout", "Top-1, mean of all epochs, other runs", (70.28, 0.29)),
        ("CS-KD", "Top-1, mean of all epochs", (71.3, 0.07)),
    ],
)
def test_a_logged_number_stands_beside_its_own_cell(row: str, column: str, published: tuple[float, ...]) -> None:
    (target,) = [spec.log_target for spec in ANCHORS.cells if (spec.row, spec.column) == (row, column)]
    assert target is not None
    assert target.numbers == published


def test_bands_follow_from_the_published_numbers() -> None:
    losses = "logged_final_train_loss_cifar100_resnet18"
    assert LogTarget(f"{losses}/cross_entropy/ce", "range").band(None) == (0.0047, 0.0062)
    assert LogTarget(f"{losses}/ddgsd/ddgsd_kl", "one").band(None) == (0.068425, 0.092575)
    mean = LogTarget("logged_mean_accuracy_cifar100_resnet18/cross_entropy", "sd")
    assert mean.band(None) == mean.band(0.1) == (68.03, 68.69)
    assert mean.band(0.2) == (67.76, 68.96)


def test_a_single_number_has_a_wider_band_than_any_range() -> None:
    widths: dict[str, list[float]] = {"range": [], "one": []}
    for target in (spec.log_target for spec in ANCHORS.cells):
        assert target is not None
        if target.kind != "sd":
            low, high = target.band(None)
            widths[target.kind].append((high - low) / (high + low))
    assert 0.13 < max(widths["range"]) < min(widths["one"]) < 0.16


def test_anchors_share_the_runs_of_the_tables(tmp_path: Path) -> None:
    config = PaperConfig("full", tmp_path)
    anchors, table1 = (
        {config.plan_run(one, 41).name for one in TABLES[name].trainings} for name in ("anchors", "table1")
    )
    assert anchors - table1 == {
        "cifar100-resnet18-sddropout-one_sided-true-seed41-full",
        "cifar100-resnet18-byot-weight-1.0-seed41-full",
        "cifar100-resnet18-byot-weight-1.0-sddropout-weight-0.1-seed41-full",
    }
    assert {config.plan_run(one, 41).recipe.eval_every for one in ANCHORS.trainings} == {1}


def write_records(config: PaperConfig, *, eval_every: int = 1) -> None:
    """Write a record of each run, in the middle of the bands except SD-Dropout's term, which is too large."""
    middle: dict[Training, dict[str, float]] = {}
    for spec in ANCHORS.cells:
        assert spec.training is not None
        assert spec.log_target is not None
        (metric,) = spec.metrics
        low, high = spec.log_target.band(None)
        scale = 100 if metric.unit == "%" else metric.factor
        middle.setdefault(spec.training, {}).setdefault(str(metric.path[1]), (low + high) / 2 / scale)
    middle[Training("SDDropout()")]["sdd"] = 0.31 / 9
    size = PUBLISHED_SIZES["cifar100"]
    for training, values in middle.items():
        for at, seed in enumerate(ANCHORS.seeds(config)):
            planned = config.plan_run(training, seed)
            terms = {name: value for name, value in values.items() if name not in ("top1", "test_top1")}
            log = [
                {"epoch": epoch, **(dict.fromkeys(terms, 9.9) if epoch < EPOCHS else terms)}
                | {"test_top1": None if epoch % eval_every else values.get("test_top1", 0.7) + (at - 1) * 1e-5}
                for epoch in range(1, EPOCHS + 1)
            ]
            run = config.runs / planned.name
            run.mkdir(parents=True)
            (run / "recipe.yaml").write_text(planned.recipe.to_yaml())
            evaluation = msgspec.structs.replace(FIT, top1=values["top1"] + (at - 1) * 1e-3, n=size.test)
            record = msgspec.structs.replace(MADE, name=planned.name, seed=seed, rows=tuple(log), evaluation=evaluation)
            record.save(run / "result.json")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> TableResult:
    config = PaperConfig("full", tmp_path_factory.mktemp("anchors"))
    write_records(config)
    return collect_result(ANCHORS, config)


def test_deviations_stand_first_on_the_page(full: TableResult, tmp_path: Path) -> None:
    sentences = describe_deviations(full)
    assert sentences == [
        "1 of the 46 numbers measured here deviates from the logs.",
        "SD-Dropout: Training 9 SDD: 0.3100 ± 0.0000, above 0.2950 to 0.3010",
    ]
    write_page(full, tmp_path)
    for suffix in ("md", "html"):
        text = (tmp_path / f"anchors.{suffix}").read_text().replace("\\", "")
        assert 0 < text.index(sentences[0]) < text.index(sentences[1]) < text.index("77.3 ")
        assert "within 3 sd" in text
    plain = json.loads((tmp_path / "anchors.json").read_text())
    by_name = {(cell["row"], cell["column"]): cell for cell in plain["cells"]}
    assert by_name["SD-Dropout", "Training 9 SDD"]["side"] == "above"
    assert by_name["SD-Dropout", "Training 9 SDD"]["band"] == [0.295, 0.301]


def test_anchors_do_not_describe_the_regime(full: TableResult) -> None:
    assert full.regimes
    assert describe_regime(full) == describe_regime(replace(full, regimes=())) == ""


def test_a_row_has_both_numbers_the_band_and_the_verdict(full: TableResult) -> None:
    table = anchors_table(full)
    assert table_title(full) == "Anchors: Losses and accuracies of the published runs' logs"
    assert table.headings == ("", "Ours", "Published", "Band", "Verdict")
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == len(ANCHORS.cells) == 46
    assert rows["Cross-entropy: Training CE"] == ("0.0054 ± 0.0000", "0.0052 to 0.0057", "0.0047 to 0.0062", "inside")
    assert rows["DDGSD: Training MMD"] == ("0.0160 ± 0.0000", "0.016", "0.0136 to 0.0184", "inside")
    assert rows["CS-KD: Top-1, last epoch"] == ("77.30 ± 0.10 %", "77.3 ± 0.3 %", "76.40 to 78.20 %", "inside")
    assert rows["SD-Dropout: Training 9 SDD"][-1] == "above"


@pytest.fixture(scope="module")
def every_fifth_epoch(tmp_path_factory: pytest.TempPathFactory) -> TableResult:
    """Anchors of one seed, whose test accuracy was measured after every fifth epoch."""
    config = PaperConfig("full", tmp_path_factory.mktemp("anchors"), seeds=(41,))
    write_records(config, eval_every=5)
    return collect_result(ANCHORS, config)


def test_the_verdict_fits_on_a_terminal(every_fifth_epoch: TableResult) -> None:
    file = io.StringIO()
    Console(width=80, file=file).print(terminal(anchors_table(every_fifth_epoch, published=False)))
    assert file.getvalue().count("inside") == 36
    assert "Verdict" in file.getvalue()


def test_a_mean_of_all_epochs_needs_all_epochs(every_fifth_epoch: TableResult) -> None:
    table = anchors_table(every_fifth_epoch)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Cross-entropy: Top-1, mean of all epochs"] == (
        "not every epoch measured",
        "68.36 ± 0.11 %",
        "68.03 to 68.69 %",
        DASH,
    )
    assert rows["Cross-entropy: Top-1, last epoch"][-1] == "inside"
    assert [note.partition(": ")[2] for note in table.notes] == ["not every epoch measured: seed 41"]
    assert describe_deviations(every_fifth_epoch)[0] == "1 of the 37 numbers measured here deviates from the logs."


def test_smaller_scales_show_our_numbers_without_verdict(full: TableResult, tmp_path: Path) -> None:
    small = replace(full, scale="small", description="small")
    assert anchors_table(small).headings == ("", "Ours")
    assert len(anchors_table(small).rows) == len(ANCHORS.cells) - 1, "ours once, not for each set of published runs"
    assert describe_deviations(small) == []
    assert describe_result(small).endswith("say nothing about this scale: ours stand alone.")
    write_page(small, tmp_path)
    for suffix in ("md", "html", "json"):
        text = (tmp_path / f"anchors.{suffix}").read_text()
        assert "Verdict" not in text
        assert "0.0057" not in text


def test_a_missing_number_gets_no_verdict(tmp_path: Path) -> None:
    result = collect_result(ANCHORS, PaperConfig("full", tmp_path))
    assert describe_deviations(result) == []
    assert {row[1] for row in anchors_table(result).rows} == {DASH}
    assert {row[-1] for row in anchors_table(result).rows} == {DASH}
