"""The cells of the paper's tables, and the published numbers beside them."""

from pathlib import Path

import pytest

from selfdistill.methods import parse_method
from selfdistill.paper import TABLES, PaperConfig
from selfdistill.paper.tables import PaperTable, published_numbers

NOT_TABULATED = {
    "table1_accuracy/epochs": "a setting",
    "table1_accuracy/runs": "a setting",
    "table2_ece_fraction/bins": "a setting",
    "table3_imagenet/epochs": "a setting",
    "table3_imagenet/batch_size": "a setting",
    "table3_imagenet/lambda_sdd": "a setting",
    "table13_two_fc_layers/hidden_units": "a setting",
    "table14_hyperparameters/columns_beta": "the headings of the columns",
}
"""Numbers of ``targets.json`` that stand beside no cell, by the beginning of their path, and why."""


def test_every_printed_number_stands_beside_exactly_one_cell() -> None:
    specs = [spec for table in TABLES.values() for spec in table.cells]
    targets = [spec.target for spec in specs if spec.target is not None]
    for log in (spec.log_target for spec in specs if spec.log_target is not None):
        targets += [log.target] if log.kind == "one" else [f"{log.target}/{at}" for at in (0, 1)]
    assert len(targets) == len(set(targets))
    left = set(published_numbers()) - set(targets)
    assert set(targets) <= set(published_numbers())
    explained = {path for path in left for start in NOT_TABULATED if f"{path}/".startswith(f"{start}/")}
    assert left == explained, "neither tabulated nor explained"
    unused = [start for start in NOT_TABULATED if not any(f"{path}/".startswith(f"{start}/") for path in left)]
    assert unused == []


@pytest.mark.parametrize(
    ("table", "row", "column", "printed"),
    [
        ("table1", "CUB-200-2011: BYOT", "+ SD-Dropout", 68.7),
        ("table1", "CIFAR-100: Label smoothing", "Base", 76.8),
        ("table2", "DML", "+ SD-Dropout", 0.039),
        ("table3", "SD-Dropout", "Top-5", 92.7),
        ("table4", "SD-Dropout, 1x, after epoch 7", "mAP50", 52.8),
        ("table5", "Stanford Dogs: FGSM as published, eps 0.2", "Base", 19.2),
        ("table6", "fog", "+ SD-Dropout", 63.3),
        ("table6", "mCA", "Base", 47.49),
        ("table7", "DTD: SD-Dropout", "AUPR out", 64.0),
        ("table7", "Average: Cross-entropy", "FPR at 95 % TPR", 79.0),
        ("table8", "First epoch, the head's weights", "P(Assumption 1)", 0.638),
        ("table8", "50 % of the epochs, the head's weights", "r_1", 0.2799),
        ("table9", "Stanford Dogs", "Reverse", 69.7),
        ("table10", "DenseNet-121", "+ SD-Dropout", 78.4),
        ("table11", "CUB-200-2011", "Dropout, dagger", 60.3),
        ("table12", "After layer2", "Top-1", 75.1),
        ("table13", "SD-Dropout", "Top-1", 75.9),
        ("table14", "lambda 5.0", "beta 0.7", 69.47),
        ("table14", "lambda 1.0", "beta 0.1", 75.72),
    ],
)
def test_a_printed_number_stands_beside_its_own_cell(table: str, row: str, column: str, printed: float) -> None:
    (spec,) = [spec for spec in TABLES[table].cells if (spec.row, spec.column) == (row, column)]
    assert spec.target is not None
    assert published_numbers()[spec.target] == printed


def test_no_substitute_stands_beside_a_printed_number() -> None:
    for table in TABLES.values():
        for spec in table.cells:
            if "substitute" in spec.row or "like for like" in spec.row:
                assert spec.target is None


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_table_has_unique_cells_and_a_protocol(table: PaperTable) -> None:
    places = [(spec.row, spec.column) for spec in table.cells]
    assert len(places) == len(set(places))
    assert table.cells or table.figure == "diagrams"
    assert table.protocol("small")
    for spec in table.cells:
        assert (spec.training is None) == (spec.check is not None)


def test_full_scale_protocol_stands_on_full_scale_pages_only() -> None:
    for name, words in (
        ("table1", "Stanford Dogs"),
        ("table3", "ImageNet"),
        ("table4", "train2017"),
        ("table6", "10,000"),
        ("table7", "10,000"),
        ("table9", "CUB"),
    ):
        scales = ("smoke", "small", "medium", "full")
        assert [scale for scale in scales if words in " ".join(TABLES[name].protocol(scale))] == ["full"]


def test_methods_are_those_of_the_published_runs() -> None:
    table = {(e.row, e.column): e.training for e in TABLES["table1"].cells if e.training is not None}
    lambdas = {}
    for (row, column), training in table.items():
        if column == "+ SD-Dropout" and row.startswith("CIFAR-100"):
            method = parse_method(training.method)
            parts = getattr(method, "parts", [method])
            (own,) = [part for part in parts if type(part).__name__ == "SDDropout"]
            lambdas[row.removeprefix("CIFAR-100: ")] = (own.weight, own.p, own.temperature)
    assert lambdas == {
        "Cross-entropy": (1.0, 0.5, 3.0),
        "CS-KD": (0.1, 0.5, 3.0),
        "DDGSD": (0.1, 0.5, 3.0),
        "BYOT": (0.1, 0.5, 3.0),
        "DML": (0.1, 0.5, 3.0),
        "Label smoothing": (1.0, 0.5, 3.0),
    }
    assert table["CUB-200-2011: BYOT", "Base"].network == "resnet18_byot224"
    assert table["CUB-200-2011: BYOT, like for like", "Base"].network == "resnet18"
    assert table["CIFAR-100: BYOT", "Base"].network == "resnet18"


def test_the_grid_of_table_14_is_beta_across_and_lambda_down() -> None:
    for spec in TABLES["table14"].cells:
        assert spec.training is not None
        method = parse_method(spec.training.method)
        assert (spec.row, spec.column) == (f"lambda {method.weight}", f"beta {method.p}")


def test_tables_share_their_runs(tmp_path: Path) -> None:
    config = PaperConfig("full", tmp_path)
    names = {name: {config.plan_run(one, 41).name for one in table.trainings} for name, table in TABLES.items()}
    shared = "cifar100-resnet18-sddropout-seed41-full"
    assert all(shared in names[f"table{n}"] for n in (1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 14))
    assert shared in names["figure4"]
    assert names["table9"] - names["table1"] == {
        f"{data}-resnet18-sddropout-direction-{way}-seed41-full"
        for data in ("cifar100", "cub200", "dogs")
        for way in ("forward", "reverse")
    }
    trainings = {training for table in TABLES.values() for training in table.trainings}
    folders = {config.plan_run(training, 41).name for training in trainings}
    assert len(folders) == len(trainings), "two trainings would have one folder"
