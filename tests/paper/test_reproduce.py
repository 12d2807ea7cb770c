"""Tables reproduced at the smallest scale, with synthetic images; and what happens if images are missing."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR100

from selfdistill.data import load_data
from selfdistill.evaluation.corruptions import published
from selfdistill.paper import (
    TABLES,
    PaperConfig,
    collect_result,
    reproduce_table,
)
from selfdistill.paper.figures import result_figures
from selfdistill.paper.gradient_tables import load_network_at
from selfdistill.paper.pages import (
    narrow_table,
    write_page,
)
from selfdistill.paper.robustness_tables import SuiteEvaluation
from selfdistill.paper.scales import (
    Training,
    check_run,
    dataset_size,
)
from selfdistill.runs.grid import ExecutorConfig
from selfdistill.training import load_run
from tests.paper.conftest import Make, find_cell
from tests.published import write_cifar


def test_a_reproduced_table_is_not_run_again(make: Make, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make("table12")
    assert [len(cell.values) for cell in result.cells] == [1] * 8
    assert {cell.epochs for cell in result.cells} == {2}
    run = out / "runs" / "cifar100-resnet18-sddropout-seed41-smoke"
    record = json.loads((run / "result.json").read_text())
    after_pooling = find_cell(result, "After layer4 and the pooling", "Top-1")
    assert after_pooling.values == {41: pytest.approx(100 * record["evaluation"]["top1"])}
    assert (after_pooling.printed, after_pooling.images) == (77.0, 32)
    assert {run.name: run.recipe_hash for run in result.runs}[record["name"]] == record["recipe_hash"]

    def no(*_: object, **__: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr("selfdistill.paper.reproduce.run_grid", no)
    monkeypatch.setattr("selfdistill.paper.reproduce.load", no)
    assert make("table12") == result


def test_attacks_corruptions_and_ood_images(make: Make, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make("table5")
    measured = out / "runs" / "cub200-resnet18-crossentropy-seed41-smoke" / "measured" / "robustness.json"
    robustness = json.loads(measured.read_text())["evaluation"]["robustness"]
    fgsm = find_cell(result, "CUB-200-2011: FGSM as published, eps 0.2", "Base")
    assert fgsm.values[41] == pytest.approx(100 * robustness["paper"])
    at = find_cell(result, "CUB-200-2011: FGSM, eps 2/255", "Base")
    assert at.values[41] == pytest.approx(100 * robustness["fgsm"][robustness["eps"].index(2 / 255)])
    assert at.printed is None

    shift = make("table6")
    own = find_cell(shift, "mCA of own corruptions (a substitute)", "Base")
    assert (own.images, len(own.values)) == (8, 1)
    assert find_cell(shift, "fog", "Base").values == {}
    assert "synthetic" in find_cell(shift, "fog", "Base").missing_reason

    ood = make("table7")
    auroc = find_cell(ood, "CIFAR-10 (a substitute): SD-Dropout", "AUROC")
    assert 0 <= auroc.values[41] <= 100
    assert "lsun_resize" in find_cell(ood, "LSUN: SD-Dropout", "AUROC").missing_reason

    monkeypatch.setattr("selfdistill.paper.reproduce.evaluate_run", None)
    assert make("table5") == result, "measured again"


@pytest.mark.slow
def test_two_jobs_measure_the_numbers_of_one(make: Make, out: Path) -> None:
    one = make("figure4")
    files = list(out.glob("runs/*/measured/gradients-*.json"))
    for file in files:
        file.unlink()
    two = reproduce_table(TABLES["figure4"], PaperConfig("smoke", out), ExecutorConfig(jobs=2))
    assert len(files) == len(list(out.glob("runs/*/measured/gradients-*.json"))) == 6
    assert [cell.values for cell in two.cells] == [cell.values for cell in one.cells]


def test_evaluations_reach_another_process_and_their_keys_a_file(tmp_path: Path) -> None:
    """Otherwise everything would be evaluated again each time."""
    metrics = [metric for table in TABLES.values() for spec in table.cells for metric in spec.metrics]
    evaluations = {metric.evaluation for metric in metrics if metric.evaluation is not None}
    assert len(evaluations) == len({evaluation.name for evaluation in evaluations}) > 15
    for evaluation in evaluations:
        key = evaluation.cache_key(PaperConfig("full", tmp_path))
        assert json.loads(json.dumps(key)) == key
        assert pickle.loads(pickle.dumps(evaluation)) == evaluation


def test_the_path_of_corruptions_is_not_in_the_cache_key(tmp_path: Path) -> None:
    evaluation = SuiteEvaluation("shift", "CIFAR-100-C")
    keys = [evaluation.cache_key(PaperConfig("full", tmp_path, Path(root))) for root in ("data", "/elsewhere/data")]
    assert keys[0] == keys[1]
    assert keys[0] != SuiteEvaluation("shift").cache_key(PaperConfig("full", tmp_path))


def test_an_evaluation_with_another_cache_key_runs_again(make: Make, out: Path) -> None:
    make("table6")
    file = out / "runs" / "cifar100-resnet18-crossentropy-seed41-smoke" / "measured" / "shift.json"
    there = json.loads(file.read_text())
    file.write_text(json.dumps(there | {"asked": there["asked"] | {"max_images": 4}, "seconds": -1}))
    make("table6")
    assert json.loads(file.read_text())["seconds"] > 0


def test_table_8_analyses_the_network_during_training(make: Make, out: Path) -> None:
    result = make("table8")
    start, end = (find_cell(result, f"{when}, the head's weights", "r") for when in ("Start", "End"))
    assert start.values[41] != end.values[41]
    assert [start.printed, end.printed] == [None, 0.1292]
    run = out / "runs" / "cifar100-resnet18-sddropout-seed41-smoke"
    data = load_data(str(out / "images" / "cifar100"))
    weights = [next(load_network_at(run, data, share).parameters()) for share in (0, 0.5, 1)]
    assert not weights[0].equal(weights[1])
    assert not weights[1].equal(weights[2])
    assert weights[2].equal(next(load_run(run).model.parameters()))
    (run / "model@1.safetensors").rename(run / "elsewhere")
    with pytest.raises(ValueError, match=r"model@1\.safetensors"):
        load_network_at(run, data, 0.5)
    (run / "elsewhere").rename(run / "model@1.safetensors")


@pytest.mark.parametrize("name", ["lemma1", "lemma2", "proposition1", "figure4"])
def test_lemmas_and_figures_have_numbers_and_a_page(make: Make, name: str, tmp_path: Path) -> None:
    result = make(name)
    assert all(cell.values for cell in result.cells if "where both hold" not in cell.row)
    page = write_page(result, tmp_path)
    assert page == tmp_path / f"{name}.html"
    assert bool(result_figures(result)) == name.startswith("figure")
    if name == "lemma2":
        assert find_cell(result, "with l' > 0", "Count").values == find_cell(result, "Points of rho", "Count").values
    if name == "lemma1":
        assert all(cell.values[41] < 1e-10 for cell in result.cells)


def test_reliability_diagrams_are_of_the_finished_runs(make: Make, out: Path) -> None:
    make("table12")
    (figure,) = result_figures(collect_result(TABLES["figure2"], PaperConfig("smoke", out)))
    assert len(figure.panels) == sum(cell.training in TABLES["table12"].trainings for cell in TABLES["figure2"].cells)


def test_a_training_without_a_possible_number_is_skipped(tmp_path: Path) -> None:
    result = reproduce_table(TABLES["table4"], PaperConfig("smoke", tmp_path))
    assert {cell.missing_reason for cell in result.cells} == {"COCO is only trained on at scale full"}
    assert not (tmp_path / "runs").exists()


def test_missing_data_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = reproduce_table(TABLES["table3"], PaperConfig("full", tmp_path / "out", tmp_path / "data"))
    (reason,) = {cell.missing_reason for cell in result.cells}
    assert reason.startswith("no data: ")
    assert str(tmp_path / "data" / "imagenet") in reason
    assert narrow_table(result).rows[0][2] == "no data"


def test_missing_images_leave_the_other_evaluations(
    out: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("table6")
    monkeypatch.setattr(SuiteEvaluation, "skip_reason", lambda self, config: None)
    nowhere = replace(published.CIFAR100C, address=(tmp_path / "nowhere").as_uri())
    monkeypatch.setattr(published, "CIFAR100C", nowhere)
    result = reproduce_table(TABLES["table6"], PaperConfig("smoke", out, tmp_path))
    fog, own = find_cell(result, "fog", "Base"), find_cell(result, "mCA of own corruptions (a substitute)", "Base")
    assert all(part in fog.missing_reason for part in ("no data: ", str(tmp_path), "CIFAR-100-C.tar"))
    assert own.missing_reason == ""


def test_an_edited_recipe_is_refused(make: Make, out: Path) -> None:
    make("table12")
    planned = PaperConfig("smoke", out).plan_run(Training("CrossEntropy()"), 41)
    file = out / "runs" / planned.name / "recipe.yaml"
    text = file.read_text()
    file.write_text(text.replace("epochs: 2 ", "epochs: 3 "))
    with pytest.raises(ValueError, match=r"epochs \(3 there, 2 here\)"):
        make("table12")
    file.write_text(text)
    check_run(out / "runs" / planned.name, planned.recipe, dataset_size("cifar100", "smoke"))


def test_a_run_on_other_images_is_refused(make: Make, out: Path) -> None:
    make("table12")
    planned = PaperConfig("smoke", out).plan_run(Training("CrossEntropy()"), 41)
    size = dataset_size("cifar100", "smoke")
    assert size == (64, 32, 8)
    with pytest.raises(ValueError, match=r"64 images .* 65 images"):
        check_run(out / "runs" / planned.name, planned.recipe, size._replace(train=65))


def test_an_incomplete_dataset_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path / "data", CIFAR100, monkeypatch)
    result = reproduce_table(TABLES["table13"], PaperConfig("full", tmp_path / "out", tmp_path / "data"))
    (reason,) = {cell.missing_reason for cell in result.cells}
    assert reason.startswith("no data: cifar100 ")
    assert "50,000" in reason
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if table.cells])
def test_every_table_at_the_smallest_scale(name: str, tmp_path: Path) -> None:
    result = reproduce_table(TABLES[name], PaperConfig("smoke", tmp_path))
    for cell, spec in zip(result.cells, TABLES[name].cells, strict=True):
        evaluations = [metric.evaluation for metric in spec.metrics if metric.evaluation is not None]
        skipped = [evaluation.skip_reason(PaperConfig("smoke", tmp_path)) for evaluation in evaluations]
        undefined = "where both hold" in cell.row  # no component may be such
        assert bool(cell.values) == (not any(skipped)) or undefined, cell
    write_page(result, tmp_path)
