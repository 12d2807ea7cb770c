"""The sweeps of the map: what is planned, and what the tables say of the records."""

import importlib
import json
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from selfdistill.data.steps import steps_per_epoch

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("sweep")


def test_every_point_differs_from_the_middle_in_one_number(sweep: ModuleType) -> None:
    allowed = {
        "images per class": {"per_class"},
        "steps": set(),
        "features": {"features"},
        "classes": {"classes"},
    }
    middle, *others = sweep.points()
    assert middle.name == "middle"
    assert len(others) == 5 + 4 + 5 + 3
    there = middle.recipe("SDDropout()", 41)
    for point in others:
        recipe = point.recipe("SDDropout()", 41)
        differing = {one.name for one in fields(recipe) if getattr(recipe, one.name) != getattr(there, one.name)}
        assert differing - {"epochs", "eval_every"} == allowed[point.factor]
        steps = recipe.epochs * steps_per_epoch(recipe.per_class * (recipe.classes or 100), recipe.batch_size)
        assert steps == pytest.approx(point.value if point.factor == "steps" else 9400, rel=0.01)


def test_each_seed_is_planned_at_every_point_before_the_next(sweep: ModuleType) -> None:
    paths = [path for path, _ in sweep.planned(list(sweep.FACTORS))]
    assert len(set(paths)) == len(paths) == 18 * 6 * 3
    assert [path[-2:] for path in paths] == ["41"] * 108 + ["42"] * 108 + ["43"] * 108


def test_differences_are_paired_by_seed(sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = importlib.import_module("archive")
    (content, *_) = (one for one in archive.read(archive.RESULTS / "paper-small.jsonl.xz").values() if "method" in one)
    top1 = {
        ("CrossEntropy()", 41): 0.5,
        ("CrossEntropy()", 42): 0.7,
        ("SDDropout()", 41): 0.52,
        ("SDDropout()", 42): 0.74,
    }
    found = {}
    for (method, seed), value in top1.items():
        one = json.loads(json.dumps(content)) | {"method": method, "seed": seed}
        one["evaluation"] |= {"top1": value, "train_top1": 1.0}
        found[f"features-64/{method}-{seed}.json"] = one
    archive.write(tmp_path / sweep.ARCHIVE, found)
    records = sweep.load_records(tmp_path / sweep.ARCHIVE)
    row = sweep._row(64, records["features-64"])
    assert row[:4] == ("64", "60.0 (100)", "", "")
    assert row[4].startswith("+3.0<br>-9.7 to +15.7")  # 2 and 4 points: 3 +- 12.71 sd / sqrt(2)
    assert row[-1] == "2"
    monkeypatch.setattr(sweep, "load_records", lambda: {"features-64": records["features-64"]})
    assert sweep.tables() == "Not measured yet."  # one point is no sweep
    monkeypatch.setattr(sweep, "load_records", lambda: records | {"features-128": records["features-64"]})
    assert sweep.tables().startswith("### Features\n")
