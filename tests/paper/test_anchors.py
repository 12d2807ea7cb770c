"""The anchors: our log's terms as the authors logged theirs, the bands, and the page that says what deviates."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from selfdistill import SelfDistiller
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.paper import TABLES, Result, Setting, gather, tables_named
from selfdistill.paper.pages import anchors_table, deviations, facts, regime_words, title_of, write_reproduced
from selfdistill.paper.scales import PUBLISHED, Training
from selfdistill.paper.tables import Entry
from selfdistill.paper.targets import Logged
from selfdistill.records import RunRecord
from selfdistill.report.tables import DASH, terminal
from selfdistill.train.meters import Loss, Meters
from tests.nets import CLASSES
from tests.reference import algorithm_1, byot, cs_kd, ddgsd, sd_dropout

ANCHORS = TABLES["anchors"]
EPOCHS = 200
FIT = {"train_top1": 1.0, "gap": 0.12}


def cell(row: str, column: str) -> Entry:
    (found,) = [entry for entry in ANCHORS.entries if (entry.row, entry.column) == (row, column)]
    return found


# The terms, as the authors' code logged them: T squared in, lambda out.


class Net:
    """A ResNet in float64, its images, and the pieces of a step that a term is written down from."""

    def __init__(self) -> None:
        self.model: Any = build("resnet10_cifar", CLASSES, width=4).double()
        self.x, self.other = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64)
        self.y = torch.arange(6) % CLASSES
        self.method: Any = None

    def stages(self, x: Tensor) -> list[Tensor]:
        model = self.model
        maps = [model.layer1(model.relu(model.bn1(model.conv1(x))))]
        for layer in (model.layer2, model.layer3, model.layer4):
            maps.append(layer(maps[-1]))
        return maps

    def features(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean((2, 3))

    def z(self, x: Tensor) -> Tensor:
        return self.model.fc(self.features(x))

    def views(self) -> tuple[Tensor, Tensor]:
        """The features of both views, which pass at once."""
        f_a, f_b = self.features(torch.cat([self.x, self.other])).chunk(2)
        return f_a, f_b

    def branches(self) -> list[Tensor]:
        parts = self.method.parts
        (own,) = [part for part in parts if hasattr(part, "branches")]
        return [branch(stage)[0] for branch, stage in zip(own.branches, self.stages(self.x), strict=False)]


def masks(count: int) -> Sequence[Tensor]:
    """Return the masks that the library draws under the seed 7 for six images, ``(6, 32)`` each."""
    torch.manual_seed(7)
    return F.dropout(torch.ones(6 * count, 32, dtype=torch.float64), 0.5).chunk(count)


def logged_ce(net: Net) -> Tensor:
    return algorithm_1.ce_loss(net.z(net.x), net.y.tolist())


def logged_sdd(net: Net) -> Tensor:
    feature, (u, v) = net.features(net.x), masks(2)
    z_u, z_v = net.model.fc(feature * u), net.model.fc(feature * v)
    return 9 * (algorithm_1.kl_div_loss(z_u, z_v, 3.0) + algorithm_1.kl_div_loss(z_v, z_u, 3.0))


def logged_one_sided(net: Net) -> Tensor:
    return 9 * sd_dropout.one_sided(net.model.fc, net.features(net.x), masks(1)[0], 3.0)


def logged_cs_kd(net: Net) -> Tensor:
    return 16 * cs_kd.kl_to_partner(net.z(net.x), net.z(net.other), 4.0)


def logged_two_ce(net: Net) -> Tensor:
    return sum((ddgsd.cross_entropy(net.model.fc(f), net.y.tolist()) for f in net.views()), torch.zeros(()))


def logged_ddgsd(net: Net) -> Tensor:
    z_a, z_b = (net.model.fc(f) for f in net.views())
    return 9 * (ddgsd.divergence(z_a, z_b, 3.0) + ddgsd.divergence(z_b, z_a, 3.0))


def logged_mmd(net: Net) -> Tensor:
    return ddgsd.mean_discrepancy(*net.views())


def logged_across_views(net: Net) -> Tensor:
    return 9 * sd_dropout.across_views(net.model.fc, *net.views(), *masks(2), 3.0)


def logged_byot(net: Net) -> Tensor:
    return 9 * sum((byot.from_deepest(net.z(net.x), z_i, 3.0) for z_i in net.branches()), torch.zeros(()))


def logged_branch_ce(net: Net) -> Tensor:
    return sum((byot.nll(z_i, net.y.tolist()) for z_i in net.branches()), torch.zeros(()))


CE, SDD = {"Training CE": logged_ce}, {"Training 9 SDD": logged_sdd}
CSKD = CE | {"Training 16 KL": logged_cs_kd}
DDGSD = {
    "Training CE, sum of two views": logged_two_ce,
    "Training 9 KL, both ways": logged_ddgsd,
    "Training MMD": logged_mmd,
}
BYOT = CE | {
    "Training 9 KL, sum of three branches": logged_byot,
    "Training CE, sum of three branches": logged_branch_ce,
}
LITERAL: dict[str, dict[str, Callable[[Net], Tensor]]] = {
    "Cross-entropy": CE,
    "SD-Dropout": CE | SDD,
    "SD-Dropout, one-sided": CE | {"Training 9 SDD": logged_one_sided},
    "CS-KD": CSKD,
    "CS-KD + 0.1 SD-Dropout": CSKD | SDD,
    "DDGSD": DDGSD,
    "DDGSD + 0.1 SD-Dropout": DDGSD | {"Training 9 SDD": logged_across_views},
    "BYOT, lambda 1": BYOT,
    "BYOT, lambda 1, + 0.1 SD-Dropout": BYOT | SDD,
}


@pytest.mark.parametrize("row", LITERAL)
def test_our_log_gives_the_terms_that_the_authors_logged(row: str) -> None:
    entries = [entry for entry in ANCHORS.entries if entry.row == row and entry.column.startswith("Training")]
    assert {entry.column for entry in entries} == set(LITERAL[row])
    (training,) = {entry.training for entry in entries}
    assert training is not None
    net = Net()
    net.method = parse_method(training.method)
    distiller = SelfDistiller(net.model, net.method, example_input=net.x)
    needs = net.method.needs
    torch.manual_seed(7)
    output = distiller(
        net.x,
        net.y,
        views=[net.other] if needs.views > 1 else (),
        pair=net.other if needs.pair else None,
    )
    meters = Meters(torch.device("cpu"))
    meters.add(Loss(output.loss, output.terms, {}, len(net.y)), step=0)
    log = {name: [float("nan"), value] for name, value in meters.means().terms.items()}
    with torch.no_grad():
        for entry in entries:
            (measure,) = entry.measures
            assert measure.of({"log": log}) == pytest.approx(LITERAL[row][entry.column](net).item(), rel=1e-9), entry


def test_every_published_loss_has_a_literal_formula() -> None:
    columns = {row: {one.column for one in ANCHORS.entries if one.row == row} for row in LITERAL}
    assert all(of_row >= set(LITERAL[row]) for row, of_row in columns.items())
    losses = {one.row for one in ANCHORS.entries if one.column.startswith("Training")}
    assert losses == set(LITERAL)


# What stands beside them.


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
    logged = cell(row, column).logged
    assert logged is not None
    assert logged.numbers == published


def test_a_band_is_made_of_what_was_published() -> None:
    losses = "logged_final_train_loss_cifar100_resnet18"
    assert Logged(f"{losses}/cross_entropy/ce", "range").band(None) == (0.0047, 0.0062)
    assert Logged(f"{losses}/ddgsd/ddgsd_kl", "one").band(None) == (0.068425, 0.092575)
    mean = Logged("logged_mean_accuracy_cifar100_resnet18/cross_entropy", "sd")
    assert mean.band(None) == mean.band(0.1) == (68.03, 68.69)
    assert mean.band(0.2) == (67.76, 68.96)


def test_a_single_number_has_a_wider_band_than_any_range() -> None:
    widths: dict[str, list[float]] = {"range": [], "one": []}
    for logged in (entry.logged for entry in ANCHORS.entries):
        assert logged is not None
        if logged.kind != "sd":
            low, high = logged.band(None)
            widths[logged.kind].append((high - low) / (high + low))
    assert 0.13 < max(widths["range"]) < min(widths["one"]) < 0.16


def test_the_anchors_share_the_runs_of_the_tables(tmp_path: Path) -> None:
    setting = Setting("full", tmp_path)
    anchors, table1 = ({setting.cell(one, 41).name for one in TABLES[name].trainings} for name in ("anchors", "table1"))
    assert anchors - table1 == {
        "cifar100-resnet18-sddropout-one_sided-true-seed41-full",
        "cifar100-resnet18-byot-weight-1.0-seed41-full",
        "cifar100-resnet18-byot-weight-1.0-sddropout-weight-0.1-seed41-full",
    }
    assert {setting.cell(one, 41).recipe.eval_every for one in ANCHORS.trainings} == {1}


# The page, of records that were made up.


def write_records(setting: Setting, *, eval_every: int = 1) -> None:
    """Write a record of each run, in the middle of the bands but for SD-Dropout's term, which is too large."""
    middle: dict[Training, dict[str, float]] = {}
    for entry in ANCHORS.entries:
        assert entry.training is not None
        assert entry.logged is not None
        (measure,) = entry.measures
        low, high = entry.logged.band(None)
        scale = 100 if measure.unit == "%" else measure.factor
        name = str(measure.path[1] if measure.path[0] == "log" else measure.path[0])
        middle.setdefault(entry.training, {}).setdefault(name, (low + high) / 2 / scale)
    middle[Training("SDDropout()")]["sdd"] = 0.31 / 9
    size = PUBLISHED["cifar100"]
    for training, values in middle.items():
        for at, seed in enumerate(ANCHORS.seeds(setting)):
            planned = setting.cell(training, seed)
            terms = {name: value for name, value in values.items() if name not in ("top1", "test_top1")}
            log = [
                {"epoch": epoch, **(dict.fromkeys(terms, 9.9) if epoch < EPOCHS else terms)}
                | {"test_top1": None if epoch % eval_every else values.get("test_top1", 0.7) + (at - 1) * 1e-5}
                for epoch in range(1, EPOCHS + 1)
            ]
            run = setting.runs / planned.name
            run.mkdir(parents=True)
            (run / "recipe.yaml").write_text(planned.recipe.to_yaml())
            record = RunRecord(
                schema=1, name=planned.name, method=training.method, seed=seed, recipe_hash="0" * 16,
                recipe={"batch_size": 128},
                data={"train_n": size.train, "test_n": size.test, "classes": size.classes}, epochs=EPOCHS,
                policy="last epoch", best=None, log=log,
                evaluation=FIT | {"top1": values["top1"] + (at - 1) * 1e-3, "n": size.test},
                seconds=1.0, seconds_per_epoch=1.0, images_per_second=1.0, parameters=1, extra_parameters=0,
                peak_memory_bytes=None, device="cpu", threads=1, versions={}, date="2026-01-01T00:00:00+00:00",
                commit="c" * 40,
            )  # fmt: skip
            record.save(run / "result.json")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Result:
    setting = Setting("full", tmp_path_factory.mktemp("anchors"))
    write_records(setting)
    return gather(ANCHORS, setting)


def test_what_deviates_stands_first(full: Result, tmp_path: Path) -> None:
    said = deviations(full)
    assert said == [
        "1 of the 46 numbers measured here deviates from the logs.",
        "SD-Dropout: Training 9 SDD: 0.3100 ± 0.0000, above 0.2950 to 0.3010",
    ]
    write_reproduced(full, tmp_path)
    for suffix in ("md", "html"):
        text = (tmp_path / f"anchors.{suffix}").read_text().replace("\\", "")
        assert 0 < text.index(said[0]) < text.index(said[1]) < text.index("77.3 ")
        assert "within 3 sd" in text
    plain = json.loads((tmp_path / "anchors.json").read_text())
    by_name = {(line["row"], line["column"]): line for line in plain["lines"]}
    assert by_name["SD-Dropout", "Training 9 SDD"]["side"] == "above"
    assert by_name["SD-Dropout", "Training 9 SDD"]["band"] == [0.295, 0.301]


def test_the_logs_take_the_place_of_the_rule_for_the_papers_regime(full: Result) -> None:
    assert full.regimes
    assert regime_words(full) == regime_words(replace(full, regimes=())) == ""


def test_a_row_says_ours_theirs_the_band_and_the_verdict(full: Result) -> None:
    table = anchors_table(full)
    assert table.headings == ("", "Ours", "Published", "Band", "Verdict")
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == len(ANCHORS.entries) == 46
    assert rows["Cross-entropy: Training CE"] == ("0.0054 ± 0.0000", "0.0052 to 0.0057", "0.0047 to 0.0062", "inside")
    assert rows["DDGSD: Training MMD"] == ("0.0160 ± 0.0000", "0.016", "0.0136 to 0.0184", "inside")
    assert rows["CS-KD: Top-1, last epoch"] == ("77.30 ± 0.10 %", "77.3 ± 0.3 %", "76.40 to 78.20 %", "inside")
    assert rows["SD-Dropout: Training 9 SDD"][-1] == "above"


def test_the_verdict_is_seen_on_a_terminal(tmp_path: Path) -> None:
    setting = Setting("full", tmp_path, seeds=(41,))
    write_records(setting, eval_every=5)
    shown = terminal(anchors_table(gather(ANCHORS, setting), published=False))
    console = Console(width=80, file=io.StringIO())
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("inside") == 36
    assert "Verdict" in text


def test_a_mean_of_all_epochs_needs_all_epochs(tmp_path: Path) -> None:
    setting = Setting("full", tmp_path, seeds=(41,))
    write_records(setting, eval_every=5)
    result = gather(ANCHORS, setting)
    table = anchors_table(result)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Cross-entropy: Top-1, mean of all epochs"] == (
        "not every epoch measured",
        "68.36 ± 0.11 %",
        "68.03 to 68.69 %",
        DASH,
    )
    assert rows["Cross-entropy: Top-1, last epoch"][-1] == "inside"
    assert [note.partition(": ")[2] for note in table.notes] == ["not every epoch measured: seed 41"]
    assert deviations(result)[0] == "1 of the 37 numbers measured here deviates from the logs."


def test_other_scales_show_ours_and_judge_nothing(full: Result, tmp_path: Path) -> None:
    small = replace(full, scale="small", said="small")
    assert anchors_table(small).headings == ("", "Ours")
    assert len(anchors_table(small).rows) == len(ANCHORS.entries) - 1, "ours once, not for each set of published runs"
    assert deviations(small) == []
    assert facts(small).endswith("say nothing about this scale: ours stand alone.")
    write_reproduced(small, tmp_path)
    for suffix in ("md", "html", "json"):
        text = (tmp_path / f"anchors.{suffix}").read_text()
        assert "Verdict" not in text
        assert "0.0057" not in text


def test_what_was_not_run_is_not_judged(tmp_path: Path) -> None:
    result = gather(ANCHORS, Setting("full", tmp_path))
    assert deviations(result) == []
    assert {row[1] for row in anchors_table(result).rows} == {DASH}
    assert {row[-1] for row in anchors_table(result).rows} == {DASH}


def test_the_anchors_have_a_name_on_the_command_line() -> None:
    assert tables_named("Anchors") == (ANCHORS,)
    assert ANCHORS in tables_named("all")
    with pytest.raises(ValueError, match="did you mean 'anchors'"):
        tables_named("anchor")


def test_their_title_has_no_number(full: Result) -> None:
    assert title_of(full) == "Anchors: Losses and accuracies of the published runs' logs"
