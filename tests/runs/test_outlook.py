"""What is said of a setting before it is trained, and that the committed records say the same."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfdistill.config import ResolvedTrainConfig, TrainConfig
from selfdistill.config.outlook import outlook
from selfdistill.data import load_data
from selfdistill.records import Evaluation, paired

WEAK, STRONG, LABELS = "SDDropout(weight=0.1)", "SDDropout()", "LabelSmoothing()"


@pytest.fixture(scope="module")
def long() -> ResolvedTrainConfig:
    return TrainConfig(data="digits", epochs=60).resolve(load_data("digits", per_class=2, test_per_class=2))


@pytest.mark.parametrize(
    ("changes", "methods", "words"),
    [
        ({}, [WEAK], None),
        ({}, [WEAK, STRONG], None),
        ({}, [STRONG], "weight 1"),
        ({}, [f"{LABELS} + {STRONG}"], "weight 1"),
        ({}, ["SDDropout(weight='auto')"], None),
        ({}, [LABELS], None),
        ({"classes": 20}, [STRONG], None),
        ({"weights": "default", "classes": 20}, [STRONG], "weight 1"),
        ({"epochs": 59}, [WEAK], "a schedule of 59 epochs from scratch is short"),
        ({"epochs": 59}, [LABELS], None),
        ({"epochs": 59, "weights": "default"}, [WEAK], None),
        ({"weights": "default", "freeze": "backbone"}, [STRONG], "frozen backbone"),
    ],
)
def test_only_settings_that_were_measured_to_fail_are_named(
    long: ResolvedTrainConfig, changes: dict[str, object], methods: list[str], words: str | None
) -> None:
    said = outlook(replace(long, **changes), ["CrossEntropy()", *methods])
    assert said is None if words is None else said is not None and words in said


def test_a_weight_that_is_searched_is_not_called_too_strong(long: ResolvedTrainConfig) -> None:
    assert outlook(long, ["CrossEntropy()", STRONG], searched=True) is None


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "studies"))
    found: list[Any] = importlib.import_module("regimes").points()
    return found


def test_in_the_records_short_schedules_alone_fit_half_and_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "studies"))
    for setting in importlib.import_module("when_it_helps").SETTINGS.values():
        of: dict[str, dict[int, Evaluation]] = {method: {} for method in setting.methods}
        for record in setting.load():
            of[record.method][record.seed] = record.evaluation
        fitted = [e.train_top1 for e in of["CrossEntropy()"].values()]
        short = setting.recipe.epochs < 60
        assert (max(fitted) < 0.6) == short
        if short:
            ours, theirs = ({seed: e.top1 for seed, e in of[m].items()} for m in (STRONG, "CrossEntropy()"))
            _, interval = paired(ours, theirs)
            assert interval is not None
            assert interval[1] < 0


def test_in_the_records_a_frozen_backbone_leaves_little(points: list[Any]) -> None:
    frozen = [point for point in points if point.kind == "frozen backbone"]
    assert frozen
    gains = [point.gain(method) for point in frozen for method in point.values if method != "CrossEntropy()"]
    assert gains
    assert all(abs(mean) < 0.01 for mean, _, _ in gains)


def test_in_the_records_weight_1_raises_the_nll_where_it_is_said(points: list[Any]) -> None:
    raised: dict[str, list[bool]] = {"digits": [], "fine-tuning": [], "fitted": []}
    for point in points:
        theirs, ours = (point.mean(method, "nll") for method in ("CrossEntropy()", STRONG))
        if ours is not None and point.kind != "frozen backbone":
            kind = "digits" if point.title.startswith("digits") else point.kind
            if kind in raised:
                raised[kind].append(ours > theirs)
            elif point.mean("CrossEntropy()", "train_top1") > 0.85:
                raised["fitted"].append(ours > theirs)
    assert all(raised["digits"])
    assert all(raised["fine-tuning"])
    assert not any(raised["fitted"])
    assert min(map(len, raised.values())) >= 2
