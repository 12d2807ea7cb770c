"""A search: fair, by validation images alone, resumable, shared; and what it leaves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace as replaced

from selfdistill import load as load_model
from selfdistill.config import TrainConfig
from selfdistill.data import ImageData
from selfdistill.data.sets import hold_out_validation, train_on_validation
from selfdistill.errors import ArgumentError
from selfdistill.evaluation.temperature import fit_temperature
from selfdistill.files import lock, open_lock
from selfdistill.progress import no_progress
from selfdistill.records import VALIDATION, Predictions
from selfdistill.records.search import SearchRecord
from selfdistill.runs.grid import ExecutorConfig
from selfdistill.runs.predict import predict_files
from selfdistill.runs.search import SearchConfig, Tuned, keep_best, tune
from selfdistill.runs.search.space import default_of, open_arguments, with_arguments, with_rates
from selfdistill.runs.search.trials import Search, TrialJob, without_test
from selfdistill.training import load_run, train
from selfdistill.training.run import StoppedError, load

METHODS = ("CrossEntropy()", "SDDropout(p=0.5)")
CONFIG = SearchConfig(METHODS, trials=2, epochs=1, seeds=1)


def write_arrays(folder: Path, *, test_seed: int = 1) -> Path:
    """A set of its own test images: 12 training and 6 test images of 3 classes, noise of another mean."""
    for part, per_class, seed in (("train", 4, 0), ("test", 2, test_seed)):
        labels = np.repeat(np.arange(3), per_class)
        noise = np.random.default_rng(seed).integers(0, 90, (len(labels), 8, 8, 3))
        folder.mkdir(exist_ok=True)
        np.savez(
            folder / f"{part}.npz", images=(noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels=labels
        )
    return folder


def recipe_for(folder: Path) -> TrainConfig:
    return TrainConfig(
        data=str(folder), data_root=str(folder), model="resnet10_cifar", width=4, threads=1, batch_size=4, lr=0.01
    )


def searched(tmp_path: Path, name: str = "search", config: SearchConfig = CONFIG, test_seed: int = 1) -> Tuned:
    data = write_arrays(tmp_path / f"arrays-{name}", test_seed=test_seed)
    tuned = tune(recipe_for(data), config, out=tmp_path / name, executor=ExecutorConfig())
    assert tuned is not None
    return tuned


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path]:
    folder = tmp_path_factory.mktemp("done")
    return searched(folder), folder / "search"


def test_each_method_gets_as_many_trials_with_the_same_seeds(done: tuple[Tuned, Path]) -> None:
    search = done[0].search
    for method in METHODS:
        assert [trial.seed for trial in search.trials if trial.of == method] == [0, 1]
    first = next(trial for trial in search.trials if trial.of == METHODS[1])
    assert first.method == "SDDropout()"  # the method's defaults


def test_given_arguments_are_kept_and_open_ones_stay_in_range(done: tuple[Tuned, Path]) -> None:
    space = open_arguments(METHODS[1])
    assert "SDDropout.p" not in space
    second = [trial.method for trial in done[0].search.trials if trial.of == METHODS[1]][1]
    assert "(p=" not in second  # 0.5 is its default
    for name, one in space.items():
        assert one.low <= default_of(METHODS[1], name) <= one.high
        assert with_arguments(METHODS[1], {name: one.low})
        assert with_arguments(METHODS[1], {name: one.high})


def test_test_images_have_no_say(done: tuple[Tuned, Path], tmp_path: Path) -> None:
    other = searched(tmp_path, test_seed=2)
    for ours, theirs in zip(done[0].search.trials, other.search.trials, strict=True):
        assert replaced(ours, seconds=0) == replaced(theirs, seconds=0)
    assert done[0].records[0].data.fingerprint != other.records[0].data.fingerprint


def test_the_last_runs_train_on_validation_images_too(done: tuple[Tuned, Path]) -> None:
    tuned, _ = done
    assert [record.method for record in tuned.records] == [trial.method for trial in tuned.search.chosen]
    for record in tuned.records:
        assert (record.data.train_n, record.data.test_n) == (12, 6)
    assert 0 < tuned.search.val_n < 12


def test_a_finished_search_is_not_done_again(done: tuple[Tuned, Path]) -> None:
    tuned, out = done
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    again = tune(recipe_for(out.parent / "arrays-search"), CONFIG, out=out, executor=ExecutorConfig())
    assert again is not None
    assert again.search == tuned.search
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == before


def test_the_best_network_has_the_validation_images_temperature(done: tuple[Tuned, Path], tmp_path: Path) -> None:
    from PIL import Image

    tuned, out = done
    winner = tuned.search.chosen[1]
    best = keep_best(tuned, winner.method, out)
    folder = out / "trials" / f"sddropout-p-0.5-{winner.number}"
    predictions = Predictions.load(folder, winner.top1 or 0.0)
    assert predictions is not None
    assert len(predictions.labels) == tuned.search.val_n
    temperature = fit_temperature(predictions.logits, predictions.labels)
    loaded = load_run(best)
    assert loaded.temperature == temperature != 1
    outputs = Predictions.load(best, winner.top1, VALIDATION)
    assert outputs is not None
    assert (outputs.logits == predictions.logits).all()

    Image.new("RGB", (8, 8), (90, 40, 200)).save(tmp_path / "x.png")
    predicted = predict_files(loaded, [tmp_path / "x.png"])[0][0]
    pixels = torch.tensor([90, 40, 200]).view(1, 3, 1, 1).expand(1, 3, loaded.image_size, loaded.image_size) / 255
    x = (pixels - torch.tensor(loaded.mean).view(1, 3, 1, 1)) / torch.tensor(loaded.std).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = (load_model(best)(x).double() / temperature).softmax(1)[0]
    torch.testing.assert_close(torch.tensor(predicted.probabilities, dtype=torch.float64), expected)


def joined(tmp_path: Path, epochs: int = 1) -> tuple[Search, ImageData]:
    recipe = replace(recipe_for(write_arrays(tmp_path / "arrays")), val_fraction=0.2, epochs=epochs)
    data = load(recipe)
    return Search.join(tmp_path / "search", recipe, recipe.resolve(data), METHODS, "nll", False), data


def test_trials_of_a_process_that_is_gone_go_on(tmp_path: Path) -> None:
    search, _ = joined(tmp_path)
    asked = search.ask(METHODS[1])
    other, _ = joined(tmp_path)
    (found,) = other.left_behind()
    assert (found.folder, found.recipe) == (asked.folder, asked.recipe)
    assert other.begun(METHODS[1]) == 1


def test_trials_of_a_process_at_work_are_left_to_it(tmp_path: Path) -> None:
    search, _ = joined(tmp_path)
    search.ask(METHODS[1])
    with open_lock(search.out / "searchers" / f"{search.owner}.lock") as file:
        assert lock(file)
        other, _ = joined(tmp_path)
        assert other.left_behind() == []


def test_a_stopped_trial_is_saved_and_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    search, data = joined(tmp_path, epochs=3)
    task = search.ask(METHODS[1])
    assert isinstance(task.job, TrialJob)
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: trial.relative_params is not None)
    stopped = task.job(data=data, progress=no_progress)
    assert (stopped.state, stopped.epochs) == ("stopped", 1)
    went_on = train(task.recipe, task.folder, data=without_test(data))
    straight = train(task.recipe, tmp_path / "straight", data=without_test(data))
    assert went_on.epochs == 3
    for name, value in load_model(task.folder).state_dict().items():
        assert torch.equal(value, load_model(tmp_path / "straight").state_dict()[name]), name
    assert went_on.evaluation.nll == straight.evaluation.nll


def test_a_training_stops_where_it_is_asked_to(tmp_path: Path) -> None:
    recipe = replace(recipe_for(write_arrays(tmp_path / "arrays")), epochs=4)
    with pytest.raises(StoppedError) as stopped:
        train(recipe, tmp_path / "run", stop=lambda row: row["epoch"] == 2)
    assert len(stopped.value.rows) == 2


def test_a_trial_that_diverges_is_failed_and_the_others_go_on(tmp_path: Path) -> None:
    config = replace(CONFIG, methods=("CrossEntropy()", "SDDropout(weight=1e38)", "LabelSmoothing()"), trials=1)
    search = searched(tmp_path, config=config).search
    states = {trial.of: trial.state for trial in search.trials}
    assert states["SDDropout(weight=1e38)"] == "failed"
    assert [trial.of for trial in search.chosen] == ["CrossEntropy()", "LabelSmoothing()"]


def test_rates_are_searched_for_every_method(tmp_path: Path) -> None:
    search = searched(tmp_path, config=replace(CONFIG, rates=True)).search
    assert {*search.trials[0].rates} == {"lr", "weight_decay"}
    assert search.trials[0].rates["lr"] == 0.01  # the recipe's
    assert all(0.001 <= trial.rates["lr"] <= 0.1 for trial in search.trials)


def test_the_rate_of_pretrained_layers_keeps_its_ratio() -> None:
    recipe = TrainConfig(weights="default", model="timm:x", lr=1e-3, backbone_lr=1e-4)
    changed = with_rates(recipe, recipe, {"lr": 5e-3})  # type: ignore[arg-type]
    assert (changed.lr, changed.backbone_lr) == (5e-3, 5e-4)


def test_the_plan_says_what_to_expect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SearchConfig(("CrossEntropy()", "SDDropout()"), trials=1, epochs=1, seeds=1)
    recipe = recipe_for(write_arrays(tmp_path / "arrays"))
    assert tune(recipe, config, out=tmp_path / "out", executor=ExecutorConfig(), dry_run=True) is None
    assert "\na schedule of 1 epoch from scratch is short" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_search_by_other_settings_is_refused(done: tuple[Tuned, Path]) -> None:
    _, out = done
    data = out.parent / "arrays-search"
    with pytest.raises(ArgumentError) as refused:
        tune(recipe_for(data), replace(CONFIG, metric="accuracy"), out=out, executor=ExecutorConfig())
    assert refused.value.argument == "out"


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("methods", {"methods": ("CrossEntropy()",)}),
        ("methods", {"methods": ("CrossEntropy()", "SDDropot()")}),
        ("methods", {"methods": ("CrossEntropy()", "CrossEntropy()")}),
        ("trials", {"trials": 0}),
        ("seeds", {"seeds": 0}),
        ("budget", {"budget": "an hour"}),
    ],
)
def test_wrong_settings(argument: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ArgumentError) as refused:
        SearchConfig(**({"methods": METHODS} | wrong))  # type: ignore[arg-type]
    assert refused.value.argument == argument


def test_a_budget_that_is_too_short_is_refused_before_any_trial(tmp_path: Path) -> None:
    data = write_arrays(tmp_path / "arrays")
    with pytest.raises(ArgumentError) as refused:
        tune(recipe_for(data), SearchConfig(METHODS, budget="0.01s"), out=tmp_path / "out", executor=ExecutorConfig())
    assert refused.value.argument == "budget"
    assert not (tmp_path / "out").exists()


def test_validation_images_follow_the_training_images(tmp_path: Path) -> None:
    data = load(recipe_for(write_arrays(tmp_path / "arrays")))
    parts = hold_out_validation(data, 0.3)
    assert parts.val is not None
    whole = train_on_validation(parts)
    assert whole.train.images is not None
    assert parts.train.images is not None
    assert parts.val.images is not None
    assert torch.equal(whole.train.images, torch.cat([parts.train.images, parts.val.images]))
    assert torch.equal(whole.train.labels, torch.cat([parts.train.labels, parts.val.labels]))
    with pytest.raises(ArgumentError):
        train_on_validation(data)


def test_the_record_can_be_read_back(done: tuple[Tuned, Path]) -> None:
    tuned, out = done
    assert SearchRecord.load(out) == tuned.search
    (out / "search.json").write_text(json.dumps({"metric": "speed"}))
    with pytest.raises(ValueError, match=r"search\.json"):
        SearchRecord.load(out)
