import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from scipy import stats

from selfdistill.records import (
    BestEpoch,
    Data,
    Evaluation,
    LogRow,
    RunRecord,
    load_all,
    recipe_hash,
    summarise,
    write_atomically,
)
from selfdistill.records.evaluation import Reliability
from selfdistill.records.record import plain

PHOTOS = Data(name="photos", classes=3, train_n=90, test_n=30, test_split_description="test folder", skipped=0)


def record(method: str = "CrossEntropy()", seed: int = 0, **changes: object) -> RunRecord:
    metrics = {"top1": 0.7, "nll": 1.0, "brier": 0.4, "ece": 0.1, "gap": 0.05, "train_top1": 0.99}
    metrics.update({name: changes.pop(name) for name in list(changes) if name in metrics})
    evaluation = Evaluation(
        n=100, top5=None, bins=10, confidence=0.75, reliability=Reliability((0.0, 1.0), (100,), (0.75,), (0.7,)),
        per_class=(0.7,), **metrics,
    )  # fmt: skip
    recipe = {"data": "photos", "method": method, "seed": seed, "epochs": 30, "threads": 2, "lr": 0.1}
    recipe.update(changes.pop("recipe", {}))
    values: dict[str, object] = {
        "schema": 1,
        "name": f"{method}-{seed}",
        "method": method,
        "seed": seed,
        "recipe_values": recipe,
        "recipe_hash": recipe_hash(recipe),
        "data": PHOTOS,
        "epochs": 30,
        "policy": "last epoch",
        "evaluation": evaluation,
        "best": BestEpoch(epoch=20, top1=0.75, policy="best epoch on the test images: optimistic"),
        "rows": ({"epoch": 1, "lr": 0.1, "loss": 1.0, "ce": 0.9, "sd_dropout": 0.1, "train_accuracy": 0.5},),
        "seconds": 60.0,
        "seconds_per_epoch": 2.0,
        "images_per_second": 1000.0,
        "parameters": 1000,
        "extra_parameters": 0,
        "peak_memory_bytes": None,
        "device": "cpu",
        "threads": 2,
        "versions": {"torch": "2.15.0"},
        "date": "2026-11-23T00:00:00+00:00",
        "commit": None,
    }
    return RunRecord(**(values | changes))  # type: ignore[arg-type]


def test_json_round_trip_is_exact(tmp_path: Path) -> None:
    one = record(top1=1 / 3, seconds=0.1 + 0.2)
    one.save(tmp_path / "result.json")
    assert RunRecord.load(tmp_path / "result.json") == one
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_numbers_that_are_not_finite_become_null_at_any_depth(tmp_path: Path) -> None:
    one = record(rows=({"epoch": 1, "ce": math.nan, "lr": math.inf},))
    one.save(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert RunRecord.load(tmp_path / "result.json").log == (LogRow(epoch=1, terms={"ce": None}),)


def test_terms_are_the_columns_that_every_log_has_not() -> None:
    one = record()
    assert one.terms == ("ce", "sd_dropout")
    row = LogRow(epoch=1, lr=0.1, loss=1.0, terms={"ce": 0.9, "sd_dropout": 0.1}, train_accuracy=0.5)
    assert one.log == (row,)


def test_a_recipe_of_fewer_fields_has_their_defaults() -> None:
    older = {"image_size": 32, "classes": 3, "augment": "crop", "model": "resnet10_cifar", "batch_size": 8}
    one = record(recipe=older)
    assert (one.recipe.model, one.recipe.epochs, one.recipe.milestones) == ("resnet10_cifar", 30, (0.5, 0.75))
    whole = record(recipe=older | {"optimizer": "sgd", "freeze_bn": False, "stages": []})
    assert one.compared() == whole.compared()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, not JSON"),
        (b'{"schema": 1, "method"', "damaged, not JSON"),
        (b"\xff\xfe\x00", "damaged, not JSON"),
        (b"[1, 2]", "not the record"),
        (b'{"accuracy": 3}', "not the record"),
        (b'{"schema": 9, "method": "", "evaluation": {}}', "record schema 9"),
        (b'{"schema": 1, "method": "", "evaluation": {}}', r"`\$\.evaluation`"),
    ],
)
def test_a_damaged_or_other_file_is_one_line_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        RunRecord.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"evaluation": {}}, "`n`"),
        ({"seed": "0"}, "$.seed"),
        ({"seconds": None}, "$.seconds"),
        ({"colour": 1}, "`colour`"),
        ({"data": {"name": "photos"}}, "$.data"),
    ],
)
def test_a_field_of_another_type_is_refused(tmp_path: Path, change: dict[str, object], field: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(plain(record()) | change))
    with pytest.raises(ValueError, match=re.escape(field)):
        RunRecord.load(path)


def test_the_json_layout_is_that_of_schema_1(tmp_path: Path) -> None:
    record().save(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    values = json.loads(text)
    assert text == json.dumps(values, indent=1) + "\n"
    assert list(values)[:7] == ["schema", "name", "method", "seed", "recipe", "recipe_hash", "data"]
    assert list(values["data"]) == [
        "name",
        "classes",
        "train_n",
        "test_n",
        "test_is",
        "skipped",
        "fingerprint",
        "val_n",
    ]
    assert list(values["best"]) == ["epoch", "top1", "policy"]


def test_load_all_finds_every_finished_run(tmp_path: Path) -> None:
    for seed in (1, 0):
        (tmp_path / f"run-{seed}").mkdir()
        record(seed=seed).save(tmp_path / f"run-{seed}" / "result.json")
    (tmp_path / "unfinished").mkdir()
    assert [r.seed for r in load_all(tmp_path)] == [0, 1]
    with pytest.raises(ValueError, match=r"unfinished: no result\.json"):
        load_all(tmp_path / "unfinished")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "one", b"")
    (tmp_path / "two").write_bytes(b"")
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "two").stat().st_mode


def test_recipe_hash_ignores_order_and_what_it_is_told_to() -> None:
    assert recipe_hash({"a": 1, "b": 2}) == recipe_hash({"b": 2, "a": 1})
    assert recipe_hash({"a": 1, "b": 2}) != recipe_hash({"a": 1, "b": 3})
    assert recipe_hash({"a": 1, "b": 2}, without={"b"}) == recipe_hash({"a": 1})


def test_method_seed_and_speed_do_not_matter_to_comparing_but_the_rest_does() -> None:
    key = record().comparable_key
    assert record("SDDropout()", 5, recipe={"threads": 8}).comparable_key == key
    assert record(recipe={"epochs": 60}).comparable_key != key
    assert record(recipe={"freeze_bn": False, "optimizer": "sgd", "stages": []}).comparable_key == key  # the defaults
    assert record(recipe={"optimizer": "adamw"}).comparable_key != key
    assert record(data=msgspec.structs.replace(PHOTOS, test_n=31)).comparable_key != key


def test_mean_and_sd_over_seeds() -> None:
    summary = summarise([record(seed=s, top1=t) for s, t in enumerate((0.70, 0.72, 0.77))])
    statistic = summary.statistics["CrossEntropy()", "top1"]
    assert (statistic.mean, statistic.n) == (pytest.approx(0.73), 3)
    assert statistic.sd == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert ("CrossEntropy()", "top5") not in summary.statistics
    assert summary.seeds == {"CrossEntropy()": (0, 1, 2)}


def test_differences_are_paired_by_seed_whatever_the_order() -> None:
    baseline = {0: 0.60, 1: 0.70, 2: 0.80}
    ours = {2: 0.825, 0: 0.615, 1: 0.72, 9: 0.1}  # seed 9 has no partner
    runs = [record(seed=s, top1=t) for s, t in baseline.items()]
    runs += [record("SDDropout()", s, top1=t) for s, t in ours.items()]
    summary = summarise(runs)
    difference = summary.differences["SDDropout()", "top1"]
    reference = stats.ttest_rel([0.615, 0.72, 0.825], [0.60, 0.70, 0.80])
    interval = reference.confidence_interval(0.95)
    assert summary.methods == ("CrossEntropy()", "SDDropout()")
    assert difference.n == 3
    assert difference.mean == pytest.approx(0.02)
    assert difference.sd == pytest.approx(0.005)
    assert (difference.low, difference.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert (difference.verdict, difference.effect) == ("higher", "better")


@pytest.mark.parametrize(
    ("metric", "values", "verdict", "effect"),
    [
        ("top1", (0.60, 0.601, 0.602), "lower", "worse"),
        ("nll", (0.60, 0.601, 0.602), "lower", "better"),
        ("ece", (0.30, 0.301, 0.302), "higher", "worse"),
        ("brier", (0.30, 0.40, 0.50), "no clear difference", "unclear"),
        ("gap", (-0.09, -0.091, -0.092), "lower", "unclear"),
        ("train_top1", (0.80, 0.801, 0.802), "lower", "unclear"),
    ],
)
def test_verdicts_know_which_way_is_better(metric: str, values: tuple[float, ...], verdict: str, effect: str) -> None:
    runs = [record(seed=s) for s in range(3)]
    runs += [record("SDDropout()", s, **{metric: v}) for s, v in enumerate(values)]
    difference = summarise(runs).differences["SDDropout()", metric]
    assert (difference.verdict, difference.effect) == (verdict, effect)


def test_the_absolute_gap_tells_better_where_the_sign_does_not() -> None:
    runs = [record(seed=s, gap=0.10) for s in range(3)]
    runs += [record("SDDropout()", s, gap=g) for s, g in enumerate((-0.02, -0.021, -0.022))]
    differences = summarise(runs).differences
    assert differences["SDDropout()", "abs_gap"].effect == "better"
    assert differences["SDDropout()", "gap"].effect == "unclear"


def test_one_seed_has_no_interval_and_no_spread() -> None:
    summary = summarise([record(), record("SDDropout()", top1=0.9)])
    difference = summary.differences["SDDropout()", "top1"]
    assert difference.verdict == "one seed: no interval"
    assert (difference.n, difference.sd, difference.low, difference.effect) == (1, None, None, "unclear")
    assert difference.mean == pytest.approx(0.2)
    assert summary.statistics["SDDropout()", "top1"].sd is None


def test_no_seed_in_common_is_said() -> None:
    difference = summarise([record(seed=0), record("SDDropout()", 1)]).differences["SDDropout()", "top1"]
    assert (difference.verdict, difference.n, difference.mean) == ("no seed in common", 0, None)


def test_equal_runs_make_no_difference() -> None:
    runs = [record(m, s) for m in ("CrossEntropy()", "SDDropout()") for s in range(2)]
    difference = summarise(runs).differences["SDDropout()", "top1"]
    assert (difference.low, difference.high, difference.verdict) == (0.0, 0.0, "no clear difference")


def test_runs_of_other_recipes_are_refused_by_the_fields_that_differ() -> None:
    other = record("SDDropout()", recipe={"epochs": 60, "lr": 0.01})
    with pytest.raises(ValueError, match=r"recipe\.epochs: 30 and 60; recipe\.lr: 0\.1 and 0\.01"):
        summarise([record(), other])
    fewer = record("SDDropout()", data=msgspec.structs.replace(PHOTOS, test_n=29))
    with pytest.raises(ValueError, match=r"data\.test_n: 30 and 29"):
        summarise([record(), fewer])


def test_a_seed_twice_and_no_record_are_refused() -> None:
    with pytest.raises(ValueError, match=r"seed 0 twice \(CrossEntropy\(\)-0, again\)"):
        summarise([record(), record(name="again")])
    with pytest.raises(ValueError, match="records: none given"):
        summarise([])


def test_reading_and_summarising_need_no_torch() -> None:
    code = "import sys, selfdistill.records as r; r.recipe_hash({}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
