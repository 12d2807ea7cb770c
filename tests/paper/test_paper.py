"""The paper's tables: what they are made of, and a few of them made for real at the smallest scale."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.datasets import CIFAR100

from selfdistill.cli import main
from selfdistill.config import TrainConfig
from selfdistill.config.schedule import learning_rate
from selfdistill.data import ImageData, load_data
from selfdistill.detect import DetectConfig
from selfdistill.evaluate.corruptions import published
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.paper import (
    TABLES,
    Line,
    Result,
    Scale,
    Setting,
    gather,
    reproduce,
    tables_named,
)
from selfdistill.paper.detection_table import Detector
from selfdistill.paper.figures import figures_of
from selfdistill.paper.gradient_tables import network_at
from selfdistill.paper.listing import commands_of, needs_of, run_seconds
from selfdistill.paper.pages import (
    absences,
    facts,
    regime_table,
    regime_words,
    reproduced_table,
    wide_table,
    write_reproduced,
)
from selfdistill.paper.robustness_tables import Suite
from selfdistill.paper.scales import Training, check_run, full_recipe, kept_epochs, size_of, write_images
from selfdistill.paper.tables import PaperTable
from selfdistill.paper.targets import NOT_TABULATED, _leaves, numbers
from selfdistill.report.tables import DASH, MINUS
from selfdistill.runs.executor_config import ExecutorConfig
from selfdistill.runs.grid import is_trained
from selfdistill.train import load_run
from tests.published import write_cifar
from tests.report.conftest import record

TRAININGS = list(
    dict.fromkeys(training for name, table in TABLES.items() if name != "caltech101" for training in table.trainings)
)
SPEC = Path(__file__).parents[3] / "shared" / "spec" / "paper_targets.json"

Make = Callable[[str], Result]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tables of this module: they share their runs."""
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def make(out: Path) -> Make:
    return lambda name: reproduce(TABLES[name], Setting("smoke", out))


def line_of(result: Result, row: str, column: str) -> Line:
    (found,) = [line for line in result.lines if (line.row, line.column) == (row, column)]
    return found


# The printed numbers.


def test_every_printed_number_stands_beside_exactly_one_cell() -> None:
    entries = [entry for table in TABLES.values() for entry in table.entries]
    targets = [entry.target for entry in entries if entry.target is not None]
    for logged in (entry.logged for entry in entries if entry.logged is not None):
        targets += [logged.target] if logged.kind == "one" else [f"{logged.target}/{at}" for at in (0, 1)]
    assert len(targets) == len(set(targets))
    left = set(numbers()) - set(targets)
    assert set(targets) <= set(numbers())
    explained = {path for path in left for start in NOT_TABULATED if f"{path}/".startswith(f"{start}/")}
    assert left == explained, "neither tabulated nor explained"
    unused = [start for start in NOT_TABULATED if not any(f"{path}/".startswith(f"{start}/") for path in left)]
    assert unused == []


def test_the_printed_numbers_are_those_of_the_specification() -> None:
    if not SPEC.is_file():
        pytest.skip(f"{SPEC} is not there")
    there = dict(_leaves("", json.loads(SPEC.read_text())))
    assert there.items() <= numbers().items(), "more of the logs' numbers are ours"


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
    (entry,) = [entry for entry in TABLES[table].entries if (entry.row, entry.column) == (row, column)]
    assert entry.target is not None
    assert numbers()[entry.target] == printed


def test_no_substitute_stands_beside_a_printed_number() -> None:
    for table in TABLES.values():
        for entry in table.entries:
            if "substitute" in entry.row or "like for like" in entry.row:
                assert entry.target is None


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_table_names_each_cell_once_and_says_how_it_is_made(table: PaperTable) -> None:
    places = [(entry.row, entry.column) for entry in table.entries]
    assert len(places) == len(set(places))
    assert table.entries or table.figure == "diagrams"
    assert table.protocol
    for entry in table.entries:
        assert (entry.training is None) == (entry.check is not None)


def test_a_page_speaks_of_its_own_scale(tmp_path: Path) -> None:
    for name, words in (("table1", "Stanford Dogs"), ("table6", "10,000"), ("table7", "10,000"), ("table9", "CUB")):
        said = {scale: gather(TABLES[name], Setting(scale, tmp_path)).protocol for scale in ("small", "full")}
        assert words not in " ".join(said["small"])
        assert words in " ".join(said["full"])


# The recipes.


def test_caltech101_is_trained_from_scratch_at_64_px(tmp_path: Path) -> None:
    setting = Setting("medium", tmp_path, tmp_path / "data")
    training = Training("SDDropout()", "caltech101")
    recipe = setting.cell(training, 41).recipe
    assert (recipe.data, recipe.model, recipe.weights) == (
        str(tmp_path / "data" / "caltech101"),
        "torchvision:resnet18",
        "none",
    )
    assert (recipe.image_size, recipe.batch_size, recipe.epochs, recipe.lr) == (64, 32, 100, 0.1)
    assert (recipe.width, recipe.features, recipe.per_class) == (None, None, None)
    assert setting.refusal(training) is None
    assert {Setting(scale, tmp_path).refusal(training) for scale in ("small", "full")} == {
        "Caltech-101 is trained on at the scale medium alone"
    }


@pytest.mark.parametrize("training", TRAININGS, ids=lambda one: f"{one.data}-{one.network}-{one.method}")
def test_a_full_recipe_is_the_papers(training: Training, tmp_path: Path) -> None:
    recipe = Setting("full", tmp_path).cell(training, 42).recipe
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert TrainConfig.from_yaml(tmp_path / "recipe.yaml") == recipe
    assert (recipe.seed, recipe.momentum, recipe.weight_decay, recipe.gamma) == (42, 0.9, 1e-4, 0.1)
    assert (recipe.nesterov, recipe.warmup_epochs, recipe.weights, recipe.schedule) == (False, 0, "none", "step")
    assert (recipe.precision, recipe.width, recipe.classes, recipe.per_class) == ("32-true", None, None, None)
    assert recipe.lr is not None
    imagenet = training.data == "imagenet"
    assert (recipe.epochs, recipe.lr) == ((90, 0.1) if imagenet else (200, 0.1))
    assert recipe.batch_size == {"cifar100": 128, "imagenet": 256}.get(training.data, 32)
    assert recipe.batch_size // recipe.accumulate == (128 if training.data == "cifar100" else 32)  # what BatchNorm sees
    assert recipe.image_size == (32 if training.data == "cifar100" else 224)
    drops = [30, 60] if imagenet else [100, 150]
    for times, epoch in enumerate(drops, start=1):
        before, after = (
            learning_rate(at, epochs=recipe.epochs, lr=recipe.lr, milestones=recipe.milestones)
            for at in (epoch - 0.01, epoch)
        )
        assert before == pytest.approx(recipe.lr * 0.1 ** (times - 1))
        assert after == pytest.approx(recipe.lr * 0.1**times)
    assert repr(parse_method(recipe.method)) == recipe.method


@pytest.mark.parametrize("network", sorted({(one.data == "cifar100", one.network) for one in TRAININGS}))
def test_a_full_recipe_names_a_network_that_there_is(network: tuple[bool, str]) -> None:
    small, name = network
    training = next(one for one in TRAININGS if (one.data == "cifar100", one.network) == (small, name))
    model = full_recipe(training).model
    assert model is not None
    weights = sum(weight.numel() for weight in build(model, 100).parameters())
    expected = {"resnet18": 11.2e6, "resnet34": 21.3e6, "densenet121": 7.0e6, "resnet18_byot224": 11.2e6}
    assert weights == pytest.approx({**expected, "resnet152": 58.3e6}[name], rel=0.02)


def test_the_methods_are_those_of_the_published_runs() -> None:
    table = {(e.row, e.column): e.training for e in TABLES["table1"].entries if e.training is not None}
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
    for entry in TABLES["table14"].entries:
        assert entry.training is not None
        method = parse_method(entry.training.method)
        assert (entry.row, entry.column) == (f"lambda {method.weight}", f"beta {method.p}")


def test_tables_share_their_runs(tmp_path: Path) -> None:
    setting = Setting("full", tmp_path)
    names = {name: {setting.cell(one, 41).name for one in table.trainings} for name, table in TABLES.items()}
    shared = "cifar100-resnet18-sddropout-seed41-full"
    assert all(shared in names[f"table{n}"] for n in (1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 14))
    assert shared in names["figure4"]
    assert names["table9"] - names["table1"] == {
        f"{data}-resnet18-sddropout-direction-{way}-seed41-full"
        for data in ("cifar100", "cub200", "dogs")
        for way in ("forward", "reverse")
    }
    cells = {cell.name: cell for one in TRAININGS for cell in [setting.cell(one, 41)]}
    assert len(cells) == len(TRAININGS), "two trainings would have one folder"


@pytest.mark.parametrize(("scale", "per_class", "width"), [("small", 15, 16), ("medium", 30, 32)])
def test_the_scales_of_few_images_per_class(tmp_path: Path, scale: Scale, per_class: int, width: int) -> None:
    setting = Setting(scale, tmp_path)
    recipe = setting.cell(Training("SDDropout()", network="densenet121"), 43).recipe
    assert (recipe.classes, recipe.per_class, recipe.image_size) == (None, per_class, 16)
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.milestones) == (200, 32, 0.1, (0.5, 0.75))
    assert (recipe.width, recipe.features) == (width // 2, 512)
    assert (recipe.precision, recipe.channels_last) == ("bf16-mixed", True)
    assert setting.cell(Training("CrossEntropy()"), 41).recipe.width == width
    assert size_of("cifar100", scale) == (100 * per_class, 10_000, 100)
    assert TABLES["table1"].seeds(setting) == (41, 42, 43)
    assert TABLES["table14"].seeds(setting) == (41,)
    for table in TABLES.values():
        expected = (41,) if table.name in ("table3", "table4", "table14") else (41, 42, 43)
        assert table.seeds(Setting("full", tmp_path)) == expected
    assert TABLES["table14"].seeds(Setting(scale, tmp_path, seeds=(1, 2))) == (1, 2)
    result = reproduce(tables_named("table3")[0], setting)
    assert {line.absent for line in result.lines} == {"ImageNet is trained on at the scale full alone"}
    assert list(tmp_path.iterdir()) == []


def test_weights_are_kept_where_table_8_looks(tmp_path: Path) -> None:
    assert kept_epochs(200) == (1, 50, 100, 150, 200)
    assert Setting("full", tmp_path).cell(Training("SDDropout()"), 41).recipe.keep_epochs == (1, 50, 100, 150, 200)
    assert Setting("full", tmp_path).cell(Training("CrossEntropy()"), 41).recipe.keep_epochs == ()


# Made for real, with synthetic images.


def test_a_table_is_made_and_a_second_time_nothing_is_run(
    make: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make("table12")
    assert [len(line.values) for line in result.lines] == [1] * 8
    assert {line.epochs for line in result.lines} == {2}
    run = out / "runs" / "cifar100-resnet18-sddropout-seed41-smoke"
    record = json.loads((run / "result.json").read_text())
    after_pooling = line_of(result, "After layer4 and the pooling", "Top-1")
    assert after_pooling.values == {41: pytest.approx(100 * record["evaluation"]["top1"])}
    assert (after_pooling.printed, after_pooling.images) == (77.0, 32)
    assert {run["name"]: run["recipe_hash"] for run in result.runs}[record["name"]] == record["recipe_hash"]

    def no(*_: object, **__: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr("selfdistill.paper.run.run_grid", no)
    monkeypatch.setattr("selfdistill.paper.run.load", no)
    assert make("table12") == result


def test_attacks_corruptions_and_unknown_images(make: Make, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make("table5")
    measured = out / "runs" / "cub200-resnet18-crossentropy-seed41-smoke" / "measured" / "robustness.json"
    robustness = json.loads(measured.read_text())["evaluation"]["robustness"]
    fgsm = line_of(result, "CUB-200-2011: FGSM as published, eps 0.2", "Base")
    assert fgsm.values[41] == pytest.approx(100 * robustness["paper"])
    at = line_of(result, "CUB-200-2011: FGSM, eps 2/255", "Base")
    assert at.values[41] == pytest.approx(100 * robustness["fgsm"][robustness["eps"].index(2 / 255)])
    assert at.printed is None

    shift = make("table6")
    own = line_of(shift, "mCA of own corruptions (a substitute)", "Base")
    assert (own.images, len(own.values)) == (8, 1)
    assert line_of(shift, "fog", "Base").values == {}
    assert "synthetic" in line_of(shift, "fog", "Base").absent

    ood = make("table7")
    auroc = line_of(ood, "CIFAR-10 (a substitute): SD-Dropout", "AUROC")
    assert 0 <= auroc.values[41] <= 100
    assert line_of(ood, "LSUN: SD-Dropout", "AUROC").absent == "lsun_resize is not looked at with synthetic images"

    monkeypatch.setattr("selfdistill.paper.run.measure_part", None)
    assert make("table5") == result, "measured again"


def test_several_measure_at_a_time(make: Make, out: Path) -> None:
    """In processes of their own, with the numbers of one."""
    one = make("figure4")
    files = list(out.glob("runs/*/measured/gradients-*.json"))
    for file in files:
        file.unlink()
    two = reproduce(TABLES["figure4"], Setting("smoke", out), ExecutorConfig(jobs=2))
    assert len(files) == len(list(out.glob("runs/*/measured/gradients-*.json"))) == 6
    assert [line.values for line in two.lines] == [line.values for line in one.lines]


def test_what_is_asked_is_the_same_when_it_was_written_and_read(tmp_path: Path) -> None:
    """Or everything would be measured again each time."""
    parts = {m.part for table in TABLES.values() for one in table.entries for m in one.measures if m.part is not None}
    assert len(parts) == len({part.name for part in parts}) > 15
    for part in parts:
        asked = part.asked(Setting("full", tmp_path))
        assert json.loads(json.dumps(asked)) == asked


def test_where_the_corruptions_are_changes_nothing(tmp_path: Path) -> None:
    part = Suite("shift", "CIFAR-100-C")
    asked = [part.asked(Setting("full", tmp_path, Path(root))) for root in ("data", "/elsewhere/data")]
    assert asked[0] == asked[1]
    assert asked[0] != Suite("shift").asked(Setting("full", tmp_path))


def test_what_is_asked_differently_is_measured_again(make: Make, out: Path) -> None:
    make("table6")
    file = out / "runs" / "cifar100-resnet18-crossentropy-seed41-smoke" / "measured" / "shift.json"
    there = json.loads(file.read_text())
    file.write_text(json.dumps(there | {"asked": there["asked"] | {"max_images": 4}, "seconds": -1}))
    make("table6")
    assert json.loads(file.read_text())["seconds"] > 0


def test_the_networks_on_the_way(make: Make, out: Path) -> None:
    result = make("table8")
    start, end = (line_of(result, f"{when}, the head's weights", "r") for when in ("Start", "End"))
    assert start.values[41] != end.values[41]
    assert [start.printed, end.printed] == [None, 0.1292]
    run = out / "runs" / "cifar100-resnet18-sddropout-seed41-smoke"
    data = load_data(str(out / "images" / "cifar100"))
    weights = [next(network_at(run, data, share).parameters()) for share in (0, 0.5, 1)]
    assert not weights[0].equal(weights[1])
    assert not weights[1].equal(weights[2])
    assert weights[2].equal(next(load_run(run).model.parameters()))
    (run / "model@1.safetensors").rename(run / "elsewhere")
    with pytest.raises(ValueError, match=r"model@1\.safetensors is missing: delete .*smoke and run it again$"):
        network_at(run, data, 0.5)
    (run / "elsewhere").rename(run / "model@1.safetensors")


@pytest.mark.parametrize("name", ["lemma1", "lemma2", "proposition1", "figure2", "figure4"])
def test_the_other_pages(make: Make, name: str, tmp_path: Path) -> None:
    result = make(name)
    assert all(line.values for line in result.lines if "where both hold" not in line.row)
    page = write_reproduced(result, tmp_path)
    assert page == tmp_path / f"{name}.html"
    assert bool(figures_of(result)) == name.startswith("figure")
    if name == "lemma2":
        assert line_of(result, "with l' > 0", "Count").values == line_of(result, "Points of rho", "Count").values
    if name == "lemma1":
        assert all(line.values[41] < 1e-10 for line in result.lines)


def test_a_page_and_its_json_say_what_was_found(make: Make, tmp_path: Path) -> None:
    result = make("table12")
    write_reproduced(result, tmp_path)
    text, page = ((tmp_path / f"table12.{suffix}").read_text() for suffix in ("md", "html"))
    for written in (text, page):
        assert "synthetic images" in written
        assert "75.7]" in written.replace("\\", "")
        assert "no difference is taken" in written
    plain = json.loads((tmp_path / "table12.json").read_text())
    assert [line["printed"] for line in plain["lines"]] == [74.8, 74.8, 75.1, 75.7, 77.0, None, None, None]
    assert {line["difference"] for line in plain["lines"]} == {None}
    assert plain["runs"][0]["seed"] == 41


# What the report makes of numbers.


def full_result(**changed: object) -> Result:
    line = Line("A", "Top-1", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 200, 10_000, "path", 76.5, "")
    lines = (line, Line("B", "Top-1", "%", 2, {}, 3, 200, None, "path", 50.0, "no data: get it there"))
    values = {"table": "table1", "title": "Title", "scale": "full", "said": "full", "protocol": ("How.",)}
    return Result(**{**values, "figure": "", "lines": lines, "runs": (), "reliability": {}, **changed})  # type: ignore[arg-type]


def test_the_full_scale_has_a_difference_and_a_spread() -> None:
    table = reproduced_table(full_result())
    assert table.headings == ("Row", "Column", "Ours", "Seeds", "Printed", "Difference")
    assert table.rows[0] == ("A", "Top-1", "77.00 ± 1.00 %", "3 of 3", "76.5 %", "+0.50")
    assert table.rows[1] == ("B", "Top-1", "no data", "0 of 3", "50.0 %", DASH)
    assert table.notes == ("B: no data: get it there",)
    assert full_result().to_dict()["lines"][0]["difference"] == 0.5


def test_below_the_full_scale_there_is_none() -> None:
    result = full_result(scale="small")
    assert "Difference" not in reproduced_table(result).headings
    assert result.to_dict()["lines"][0]["difference"] is None


def write_regime_runs(setting: Setting, *, train_top1: float, gap: float, train_ce: float) -> None:
    """Write two methods' records on CIFAR-100: cross-entropy's training accuracy and gap, SD-Dropout's training CE."""
    for method, ce in (("CrossEntropy()", 0.01), ("SDDropout()", train_ce)):
        for seed in (41, 42, 43):
            run = setting.runs / setting.cell(Training(method), seed).name
            made = record(method, seed, recipe={"batch_size": 32}, epochs=200)
            evaluation = made.evaluation | {"train_top1": train_top1, "gap": gap}
            data = made.data | {"train_n": 1500}
            run.mkdir(parents=True)
            replace(made, evaluation=evaluation, data=data, log=[{"ce": 9.0}, {"ce": ce}]).save(run / "result.json")


@pytest.mark.parametrize(
    ("train_top1", "gap", "train_ce", "is_papers"),
    [(1.0, 0.12, 0.13, True), (0.98, 0.12, 0.13, False), (1.0, 0.09, 0.13, False), (1.0, 0.12, 0.6, False)],
)
def test_regime_is_the_papers_only_where_networks_fit(
    tmp_path: Path, train_top1: float, gap: float, train_ce: float, is_papers: bool
) -> None:
    setting = Setting("small", tmp_path)
    write_regime_runs(setting, train_top1=train_top1, gap=gap, train_ce=train_ce)
    result = gather(TABLES["table14"], setting)
    (regime,) = result.regimes
    assert (regime.networks, regime.steps) == ("CIFAR-100, ResNet-18", 200 * 47)
    assert regime.cross_entropy == pytest.approx((train_top1, 0.01, gap))
    assert regime.sd_dropout.train_ce == pytest.approx(train_ce)
    assert result.in_papers_regime is is_papers
    assert regime_words(result).startswith("In the paper's regime" if is_papers else "Cannot be tested here")
    assert len(regime_table(result).rows[0]) == len(regime_table(result).headings)


def test_regime_is_unknown_without_both_methods(tmp_path: Path) -> None:
    result = gather(TABLES["table9"], Setting("small", tmp_path))
    assert (result.regimes, result.in_papers_regime) == ((), False)
    assert "not known" in regime_words(result)
    assert regime_words(gather(TABLES["lemma2"], Setting("small", tmp_path))) == ""


def test_the_table_in_the_papers_own_shape() -> None:
    a = Line("A", "Top-1", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 200, 10_000, "path", 76.5, "")
    b = replace(a, row="B", values={41: 50.0}, images=1000, absent="not measured")
    norm = replace(b, column="Norm", unit="", digits=3, printed=None)
    missing = replace(b, row="C", values={}, images=None, absent="no data: get it there")
    full = wide_table(full_result(lines=(a, b, norm, missing)))
    assert full.headings == ("", "Top-1 (%)", "Norm", "Images")
    assert full.rows == (
        ("A", "77.00 ± 1.00 [76.5; +0.50]", "", "10,000"),
        ("B", f"50.00, n = 1 [76.5; {MINUS}26.50]", "50.000, n = 1", "1,000"),
        ("C", "no data [76.5]", "", DASH),
    )
    small = wide_table(full_result(lines=(a, b, norm, missing), scale="small"))
    assert [row[:2] for row in small.rows] == [("A", "77.00 ± 1.00 [76.5]"), ("B", "50.00, n = 1 [76.5]")]
    assert small.notes == full.notes == ("B: not measured", "C: no data: get it there")
    drawn = replace(b, row="Drawn", values={0: 5.0}, epochs=None, printed=None)
    assert wide_table(full_result(lines=(a, drawn))).rows[1][1] == "5.00", (
        "without a network there are no seeds to miss"
    )
    assert reproduced_table(full_result(lines=(drawn,))).rows[0][3] == DASH
    alike = wide_table(full_result(lines=(a, replace(a, column="Other", unit=""))))
    assert alike.headings == ("", "Top-1 (%)", "Other")


def test_reasons_are_said_once() -> None:
    lines = [Line(row, "c", "%", 2, {}, 1, 1, None, None, None, "why") for row in "ABABCD"]
    assert absences(lines) == ["A, B and 2 more: why"]


@pytest.mark.parametrize(
    ("figure", "rows", "panels"),
    [
        ("heat", [("lambda 1.0", "beta 0.1"), ("lambda 1.0", "beta 0.3"), ("lambda 5.0", "beta 0.1")], 1),
        ("bars", [(f"DML: {attack}", way) for attack in ("FGSM", "PGD") for way in ("Base", "With")], 2),
        ("curves", [(f"{when}, all", column) for when in ("Start", "End") for column in ("Cosine", "L1")], 2),
    ],
)
def test_figures(figure: str, rows: list[tuple[str, str]], panels: int, tmp_path: Path) -> None:
    lines = tuple(Line(*row, "%", 2, {41: float(at)}, 1, 1, 1, None, None, "") for at, row in enumerate(rows))
    result = full_result(figure=figure, lines=lines, table="table14")
    (found,) = figures_of(result)
    assert len(found.panels) == panels
    write_reproduced(result, tmp_path)
    assert (tmp_path / "figures" / f"table14-{figure}.svg").is_file()
    assert figures_of(full_result(figure=figure, lines=())) == []


def test_figures_show_how_the_seeds_differ() -> None:
    def axes_of(kind: str, lines: list[Line], panel: int) -> Axes:
        (found,) = figures_of(full_result(figure=kind, lines=tuple(lines)))
        drawn = Figure()
        found.panels[panel].draw(drawn)
        return drawn.axes[0]

    line = Line("DML: FGSM", "Base", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 1, 1, None, None, "")
    bars = axes_of("bars", [line], 0)
    (whisker,) = bars.containers[-1].errorbar.lines[2]  # type: ignore[attr-defined]
    assert whisker.get_segments()[0].tolist() == [[0.0, 76.0], [0.0, 78.0]], "mean plus and minus the sd"
    norms = [
        replace(line, row=f"{when}, all", column=column)
        for when in ("Start", "50 % of the epochs")
        for column in ("Cosine", "L1, forward", "L1, reverse")
    ]
    cosine, drawn = axes_of("curves", norms, 0), axes_of("curves", norms, 1)
    assert [len(axes.lines) for axes in (cosine, drawn)] == [3 + 1, 2 * (3 + 1)]
    assert [axes.get_yscale() for axes in (cosine, drawn)] == ["linear", "log"]
    assert [text.get_text() for text in drawn.get_xticklabels()] == ["Start", "50 %"]


def test_norms_that_differ_little_have_plain_numbers_beside_them() -> None:
    line = Line("Start, all", "L1, forward", "", 2, {41: 2.8}, 1, 1, 1, None, None, "")
    lines = (line, replace(line, column="L1, reverse", values={41: 3.9}))
    (found,) = figures_of(full_result(figure="curves", lines=lines))
    drawn = Figure()
    found.panels[-1].draw(drawn)
    axis = drawn.axes[0].yaxis
    low, high = axis.get_view_interval()
    seen = [
        label.get_text()
        for at, label in zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
        if low <= at <= high
    ]
    assert seen
    assert all(float(text) > 0 for text in seen)
    assert {label.get_text() for label in axis.get_ticklabels(minor=True)} <= {""}


def test_the_heading_names_the_seeds() -> None:
    line = Line("A", "Top-1", "%", 2, {41: 76.0, 42: 77.0, 43: 78.0}, 3, 200, 10_000, None, None, "")
    fewer, none = replace(line, values={42: 1.0}), replace(line, values={}, images=None, absent="not measured")
    for lines, said in (
        ((line, none), "Mean ± sd of the seeds 41, 42 and 43."),
        ((line, fewer), "Mean ± sd of the seeds 41, 42 and 43 as far as they were run."),
        ((fewer,), "Seed 42."),
    ):
        assert facts(full_result(lines=lines)).endswith(said)
    assert facts(full_result(lines=(replace(line, epochs=None),))) == "No network is needed."


# Images that are not there, folders of others.


def test_what_can_have_no_number_is_not_trained(tmp_path: Path) -> None:
    result = reproduce(TABLES["table4"], Setting("smoke", tmp_path))
    assert {line.absent for line in result.lines} == {"COCO is trained on at the scale full alone"}
    assert not (tmp_path / "runs").exists()


def test_no_data_says_how_to_get_it(tmp_path: Path) -> None:
    result = reproduce(TABLES["table3"], Setting("full", tmp_path / "out", tmp_path / "data"))
    (reason,) = {line.absent for line in result.lines}
    assert reason.startswith("no data: ")
    assert str(tmp_path / "data" / "imagenet") in reason
    assert reproduced_table(result).rows[0][2] == "no data"


def test_a_part_whose_images_are_missing_leaves_the_rest(
    out: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("table6")
    monkeypatch.setattr(Suite, "refusal", lambda self, setting: None)
    nowhere = replace(published.CIFAR100C, address=(tmp_path / "nowhere").as_uri())
    monkeypatch.setattr(published, "CIFAR100C", nowhere)
    result = reproduce(TABLES["table6"], Setting("smoke", out, tmp_path))
    fog, own = line_of(result, "fog", "Base"), line_of(result, "mCA of own corruptions (a substitute)", "Base")
    assert re.match(
        r"no data: CIFAR-100-C is not in .* could not be downloaded .*: put CIFAR-100-C.tar of http", fog.absent
    )
    assert own.absent == ""


def test_a_folder_of_another_recipe_is_refused(make: Make, out: Path) -> None:
    make("table12")
    cell = Setting("smoke", out).cell(Training("CrossEntropy()"), 41)
    file = out / "runs" / cell.name / "recipe.yaml"
    text = file.read_text()
    file.write_text(text.replace("epochs: 2 ", "epochs: 3 "))
    with pytest.raises(ValueError, match=r"smoke belongs to another recipe: epochs \(3 there, 2 here\); choose"):
        make("table12")
    file.write_text(text)
    check_run(out / "runs" / cell.name, cell.recipe, size_of("cifar100", "smoke"))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"per_class": 100}, r"per_class \(100 there, None here\)"),
        ({"test_per_class": 5}, r"test_per_class \(5 there, None here\)"),
        ({"classes": 20}, r"classes \(20 there, 100 here\)"),
        ({"width": 16}, r"width \(16 there, None here\)"),
        ({"features": 8, "clip": 1.0}, r"features \(8 there, None here\), clip \(1.0 there, None here\)"),
    ],
)
def test_a_part_of_the_images_or_of_the_network_is_no_run_of_the_paper(
    changed: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """Such as a printed command with an option at its end leaves."""
    setting = Setting("full", tmp_path)
    cell = setting.cell(Training("CrossEntropy()"), 41)
    run = setting.runs / cell.name
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(replace(cell.recipe, **({"classes": 100, "threads": 4} | changed)).to_yaml())
    with pytest.raises(ValueError, match=rf"full belongs to another recipe: {told}; choose another `out`, or delete"):
        commands_of([TABLES["table12"]], setting)
    (run / "recipe.yaml").write_text(replace(cell.recipe, classes=100, threads=4, workers=8).to_yaml())
    check_run(run, cell.recipe, size_of("cifar100", "full"))


def test_a_run_of_other_images_is_refused(make: Make, out: Path) -> None:
    make("table12")
    cell = Setting("smoke", out).cell(Training("CrossEntropy()"), 41)
    size = size_of("cifar100", "smoke")
    assert size == (64, 32, 8)
    with pytest.raises(ValueError, match=r"trained on 64 images and scored on 32, of 8 classes, not on 65 images and"):
        check_run(out / "runs" / cell.name, cell.recipe, size._replace(train=65))


def test_a_set_that_is_not_whole_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "data", CIFAR100, monkeypatch)
    result = reproduce(TABLES["table13"], Setting("full", tmp_path / "out", tmp_path / "data"))
    (reason,) = {line.absent for line in result.lines}
    assert re.fullmatch(
        r"no data: cifar100 has \d+ training and \d+ test images of 100 classes, not 50,000 training and 10,000 test "
        r"images of 100",
        reason,
    )
    assert not (tmp_path / "out").exists()


def test_synthetic_images_differ_between_sets_and_are_written_once(tmp_path: Path) -> None:
    for name in ("cifar100", "cub200"):
        write_images(tmp_path / name, name)
    sets: list[ImageData] = [load_data(str(tmp_path / name)) for name in ("cifar100", "cub200")]
    assert [(len(one.train), len(one.test), len(one.classes)) for one in sets] == [(64, 32, 8)] * 2
    assert not np.array_equal(sets[0].train.images, sets[1].train.images)
    before = (tmp_path / "cifar100" / "train.npz").stat().st_mtime_ns
    write_images(tmp_path / "cifar100", "cifar100")
    assert (tmp_path / "cifar100" / "train.npz").stat().st_mtime_ns == before


# The list and the commands.


def test_the_list_says_what_is_done_and_what_a_run_takes(make: Make, out: Path, tmp_path: Path) -> None:
    make("table12")
    timed: dict[Training, float] = {}
    done = needs_of(TABLES["table12"], Setting("smoke", out), timed=timed)
    assert [(need.trained, need.wanted, need.seconds) for need in done] == [(1, 1, None)] * 8
    assert timed == {}
    fresh = needs_of(TABLES["table13"], Setting("smoke", tmp_path), timed=timed)
    assert [(need.trained, need.wanted) for need in fresh] == [(0, 1)] * 2
    assert all(0 < need.seconds_left < 60 for need in fresh)
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_run_is_in_proportion_to_its_epochs_and_steps(tmp_path: Path) -> None:
    setting = Setting("smoke", tmp_path)
    recipe = setting.cell(Training("CrossEntropy()"), 41).recipe
    once = run_seconds(Training("CrossEntropy()"), recipe, setting)
    longer = TrainConfig(**{**vars(recipe), "epochs": 200})
    assert run_seconds(Training("CrossEntropy()"), longer, setting) > 20 * once


def test_the_commands_make_the_runs_that_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setting = Setting("smoke", tmp_path)
    tables = [TABLES["table12"], TABLES["table9"]]
    commands = commands_of(tables, setting)
    assert len(commands) == len(set(commands)) == 8 + 4 + 4 + 2
    words = shlex.split(commands[0])
    assert words[:2] == ["selfdistill", "train"]
    with pytest.raises(SystemExit) as end:
        main(words[1:])
    assert end.value.code == 0
    capsys.readouterr()
    cell = setting.cell(Training("CrossEntropy()"), 41)
    assert is_trained(cell, setting.runs)
    assert len(commands_of(tables, setting)) == len(commands) - 1
    written = yaml.safe_load((tmp_path / "recipes" / f"{cell.name}.yaml").read_text())
    assert (written["seed"], written["method"]) == (41, "CrossEntropy()")


def test_the_commands_train_the_detectors_too(tmp_path: Path) -> None:
    setting = Setting("full", tmp_path / "out", tmp_path / "data", seeds=(41,))
    trainings, detectors = (
        [line for line in commands_of([TABLES["table4"]], setting) if line.split()[1] == name]
        for name in ("train", "detect")
    )
    assert (len(trainings), len(detectors)) == (2, 4)
    words = shlex.split(next(line for line in detectors if line.endswith("0.5x")))
    run = setting.runs / setting.cell(Training("CrossEntropy()", "imagenet", "resnet152"), 41).name
    assert words[-1] == str(run / "detectors" / "0.5x")
    recipe = DetectConfig.from_yaml(Path(words[3]))
    assert (recipe.backbone, recipe.epochs, recipe.seed) == (str(run), 7, 41)
    assert recipe == Detector("0.5x").recipe(run, setting, 41)


# The command line.


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tabel12"], "'table12'"),
        (["Table 15"], "'Table 15'"),
        (["Tabel 12"], "'table12'"),
        (["nonsense"], "'nonsense'"),
        (["table1", "--list", "--print-commands"], "--list and --print-commands"),
        (["table1", "--seeds", str(2**63)], "--seeds"),
        (["table1", "--seeds", "1", "1"], "--seeds"),
        (["table1", "--scale", "huge"], "--scale"),
        (["table1", "--jobs", "0"], "--jobs"),
        (["figure1", "--jobs", "0"], "--jobs"),
        (["table1", "--ray", "auto", "--cpus", "0"], "--cpus"),
        ([], "TABLE"),
    ],
)
def test_mistakes(
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *words])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("selfdistill: error: ")
    assert named in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_list_is_of_all_where_no_table_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("selfdistill.paper.listing.run_seconds", lambda *_: 60.0)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "--list", "--scale", "smoke", "--out", str(tmp_path)])
    told = capsys.readouterr()
    assert end.value.code == 0, told.err
    assert [name for name in TABLES if f"{name}: " not in told.out] == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_print_and_nothing_measured_are_told(
    make: Make, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("table12")
    for words, code, said in (
        (["table12", "--scale", "smoke", "--out", out, "--print-commands"], 0, "No run is missing"),
        (
            ["table3", "--out", tmp_path],
            2,
            "error: no cell has a number: ImageNet is trained on at",
        ),
        (["table3", "--out", tmp_path / "table3.md" / "x"], 2, "table3.md is a file, not a folder: choose another --o"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["reproduce", *map(str, words)])
        assert end.value.code == code
        assert said in capsys.readouterr().err


def test_the_command(make: Make, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("table12")
    for words, wanted in (
        (["--out", out], ["75.7 %", "Scale smoke", f"Page: {out / 'table12.html'}"]),
        (["--out", out, "--list"], ["1 of 1", "No run is missing."]),
    ):
        with pytest.raises(SystemExit) as end:
            main(["reproduce", "table12", "--scale", "smoke", *map(str, words)])
        told = capsys.readouterr()
        assert end.value.code == 0, told.err
        assert all(text in told.out for text in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.entries])
def test_every_table_at_the_smallest_scale(name: str, tmp_path: Path) -> None:
    result = reproduce(TABLES[name], Setting("smoke", tmp_path))
    for line, entry in zip(result.lines, TABLES[name].entries, strict=True):
        parts = [measure.part for measure in entry.measures if measure.part is not None]
        refused = [part.refusal(Setting("smoke", tmp_path)) for part in parts]
        undefined = "where both hold" in line.row  # no component may be such
        assert bool(line.values) == (not any(refused)) or undefined, line
    write_reproduced(result, tmp_path)
