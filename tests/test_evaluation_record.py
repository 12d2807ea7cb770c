"""`evaluation.json` beside `result.json`: whose it is, and how the two become one record."""

import json
from pathlib import Path

import msgspec
import pytest

from selfdistill.config import TrainConfig
from selfdistill.progress import Progress, no_progress
from selfdistill.records import RunRecord, SuiteRecord, load_all, load_run_record
from selfdistill.runs.evaluation import (
    BASIC_EVALUATION,
    EvaluationConfig,
    evaluate_run,
    is_evaluated,
    train_and_evaluate,
)
from selfdistill.runs.score import own_images
from selfdistill.training import load_run
from selfdistill.training.run import load
from tests.pictures import write_digits

FEW = EvaluationConfig(max_images=6, max_ood_images=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    data = write_digits(folder / "digits3", train=6, test=4)
    recipe = TrainConfig(data=str(data), model="resnet10_cifar", width=4, epochs=1, threads=1)
    told: list[Progress] = []
    out = folder / "runs" / "run"
    record = train_and_evaluate(recipe, out, FEW, data=load(recipe), progress=told.append)
    assert record.evaluation.robustness is not None
    assert record.evaluation.robustness.pgd_n == 6
    assert told[-1].stage == "measuring out-of-distribution detection"
    assert told[-1].done == told[-1].total
    return out


def test_a_run_that_is_measured_is_not_measured_again(run: Path) -> None:
    before = (run / "evaluation.json").read_bytes()
    recipe = TrainConfig.from_yaml(run / "recipe.yaml")
    again = train_and_evaluate(recipe, run, FEW, data=own_images(run, load_run(run)), progress=no_progress)
    assert (run / "evaluation.json").read_bytes() == before
    assert again == load_run_record(run)
    assert is_evaluated(run, FEW)
    assert is_evaluated(run, BASIC_EVALUATION)
    assert not is_evaluated(run, msgspec.structs.replace(FEW, max_images=5))
    assert not is_evaluated(run, msgspec.structs.replace(FEW, ood=()))


def test_the_training_s_own_numbers_stay_and_the_others_come_from_the_suite(run: Path) -> None:
    (record,) = load_all(run.parent)
    plain, suite = RunRecord.load(run / "result.json"), SuiteRecord.load(run / "evaluation.json")
    for name in ("top1", "ece", "nll", "selective", "reliability"):
        assert getattr(record.evaluation, name) == getattr(plain.evaluation, name)
    assert (plain.evaluation.robustness, plain.evaluation.shift, plain.evaluation.ood) == (None, None, ())
    for name in ("robustness", "shift", "ood"):
        assert getattr(record.evaluation, name) == getattr(suite.evaluation, name)
    assert record.evaluation.measured
    assert record.evaluation.measured.config == FEW.suite
    assert record.evaluation.measured.seconds > 0
    assert record.comparable_key == plain.comparable_key
    (photographs,) = record.evaluation.ood
    assert (photographs.name, photographs.n) == ("photographs", 10)


def test_the_same_evaluation_twice_is_the_same(run: Path) -> None:
    first = SuiteRecord.load(run / "evaluation.json")
    evaluate_run(run, load_run(run), own_images(run, load_run(run)), FEW, threads=1)
    assert SuiteRecord.load(run / "evaluation.json").evaluation == first.evaluation


def test_an_evaluation_of_an_earlier_run_in_the_folder_is_not_taken(run: Path, tmp_path: Path) -> None:
    values = json.loads((run / "evaluation.json").read_text())
    (tmp_path / "result.json").write_bytes((run / "result.json").read_bytes())
    values["of"]["date"] = "2020-01-01T00:00:00+00:00"
    (tmp_path / "evaluation.json").write_text(json.dumps(values))
    assert load_run_record(tmp_path) == RunRecord.load(run / "result.json")
    assert not is_evaluated(tmp_path, FEW)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 1}', '{"schema": 2}'])
def test_a_damaged_evaluation_is_named(run: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_bytes((run / "result.json").read_bytes())
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ValueError, match=r"evaluation\.json: .*; delete it and evaluate the run again$"):
        load_all(tmp_path)
