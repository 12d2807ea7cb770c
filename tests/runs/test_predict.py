import csv
import io
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from selfdistill.config import TrainConfig
from selfdistill.data import eval_batches
from selfdistill.evaluation.decision import Decisions
from selfdistill.evaluation.images import predict, read_features
from selfdistill.evaluation.ood.detectors import fit_detectors
from selfdistill.runs.predict import (
    Prediction,
    Predictor,
    predict_files,
    predict_lines,
    predict_new,
    predict_paths,
    refuse_image_name,
    to_csv,
    to_json_lines,
)
from selfdistill.training import LoadedModel, load_run, train
from selfdistill.training.run import load


@pytest.fixture(scope="module", params=["small", "large"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, LoadedModel]:
    folder = request.getfixturevalue("pictures" if request.param == "small" else "photos")
    size = None if request.param == "small" else 72
    out = tmp_path_factory.mktemp("runs") / "run"
    recipe = TrainConfig(
        data=str(folder), model="resnet10_cifar", width=4, epochs=2, threads=1, workers=0, image_size=size
    )
    train(replace(recipe, batch_size=12), out)
    return recipe, load_run(out)


def test_predictions_are_those_that_the_evaluation_scores(trained: tuple[TrainConfig, LoadedModel]) -> None:
    recipe, loaded = trained
    data = load(recipe)
    batches = eval_batches(data.test, data, batch_size=64, device="cpu", workers=0)
    wanted = predict(loaded.model, batches)[0].double().softmax(dim=1)
    predictions, unreadable = predict_files(loaded, [Path(recipe.data) / "test"])
    assert unreadable == []
    assert [p.path for p in predictions] == sorted(Path(recipe.data).glob("test/*/*.png"))
    torch.testing.assert_close(torch.tensor([p.probabilities for p in predictions]).double(), wanted)
    assert [p.label for p in predictions] == [loaded.classes[at] for at in wanted.argmax(dim=1).tolist()]
    assert [p.confidence for p in predictions] == [max(p.probabilities) for p in predictions]


def test_files_folders_and_hidden_ones(trained: tuple[TrainConfig, LoadedModel], tmp_path: Path) -> None:
    _, loaded = trained
    for name in ("b.png", "a.JPG", "deep/er/c.bmp", ".hidden.png", ".folder/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("not looked at")
    (tmp_path / "b.png").rename(tmp_path / "b")  # given by name a file needs no suffix
    with pytest.warns(UserWarning, match=r"1 file without suffix and 1 \.txt are not read"):
        predictions, _ = predict_files(loaded, [tmp_path / "b", tmp_path])
    names = [p.path.relative_to(tmp_path).as_posix() for p in predictions]
    assert names == ["b", "a.JPG", "deep/er/c.bmp"]


def test_what_cannot_be_read(trained: tuple[TrainConfig, LoadedModel], tmp_path: Path) -> None:
    _, loaded = trained
    with pytest.raises(ValueError, match=r"nowhere: no such file or folder$"):
        predict_files(loaded, [tmp_path / "nowhere"])
    with pytest.raises(ValueError, match=r"^no image in .* \(looked for .*\.jpeg, "):
        predict_files(loaded, [tmp_path])
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"empty.png: the file is empty \(1 unreadable of 1 files: repair or remove it"
    ):
        predict_files(loaded, [tmp_path])
    with pytest.raises(
        ValueError, match=r"^none of the 1 files can be read; the first: .*empty.png: the file is empty"
    ):
        predict_files(loaded, [tmp_path], skip_unreadable=True)
    Image.new("L", (9, 9), 200).save(tmp_path / "grey.png")
    predictions, unreadable = predict_files(loaded, [tmp_path], skip_unreadable=True)
    assert [p.path.name for p in predictions] == ["grey.png"]
    assert unreadable == [f"{tmp_path / 'empty.png'}: the file is empty"]


def test_the_table_as_csv() -> None:
    rows = [Prediction(Path('a,"b".png'), "cat", 0.75, (0.25, 0.75)), Prediction(Path("c.png"), "dog", 1.0, (1.0, 0.0))]
    read = list(csv.reader(io.StringIO(to_csv(rows, ["dog", "cat"]))))
    assert read == [
        ["file", "class", "confidence", "p(dog)", "p(cat)"],
        ['a,"b".png', "cat", "0.750000", "0.250000", "0.750000"],
        ["c.png", "dog", "1.000000", "1.000000", "0.000000"],
    ]


def test_a_table_does_not_replace_an_image() -> None:
    refuse_image_name(Path("table.csv"))
    with pytest.raises(ValueError, match=r"^`csv` is holiday\.JPG"):
        refuse_image_name(Path("holiday.JPG"))


def test_paths_from_a_stream_are_predicted_as_they_come(
    trained: tuple[TrainConfig, LoadedModel], tmp_path: Path
) -> None:
    recipe, loaded = trained
    files = sorted(Path(recipe.data).glob("test/*/*.png"))
    reading, writing = os.pipe()
    predictor = Predictor(loaded, Decisions(loaded.classes), skip_unreadable=True, batch_size=4)
    with os.fdopen(reading, "rb") as stream:
        rows = predict_lines(predictor, stream)
        os.write(writing, f"{files[0]}\r\n\n{files[1]}\n{str(files[2])[:5]}".encode())
        first = next(rows)  # while the stream is open
        assert [p.path for p in first] == files[:2]
        os.write(writing, f"{str(files[2])[5:]}\n{tmp_path / 'nowhere.png'}\n{files[3].parent}\n{files[4]}".encode())
        os.close(writing)
        others = [p for batch in rows for p in batch]
    assert [p.path for p in others] == [files[2], *sorted(files[3].parent.iterdir()), files[4]]
    assert [line.partition(":")[0] for line in predictor.skipped] == [str(tmp_path / "nowhere.png")]
    wanted = predict_files(loaded, files[:2])[0]
    for one, other in zip(first, wanted, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_a_folder_is_watched_until_a_signal_comes(
    trained: tuple[TrainConfig, LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, loaded = trained
    files = sorted(Path(recipe.data).glob("test/*/*.png"))[:4]
    whole = files[2].read_bytes()
    (tmp_path / "deep").mkdir()
    for name, file in (("b.png", files[0]), ("deep/a.png", files[1])):
        (tmp_path / name).write_bytes(file.read_bytes())
    happens: list[Callable[[], object]] = [
        lambda: None,  # two looks, then the first two
        lambda: (tmp_path / "c.png").write_bytes(whole[:50]),
        lambda: (tmp_path / "c.png").write_bytes(whole),  # while it is written it is not read
        lambda: None,
        lambda: (tmp_path / "b.png").write_bytes(files[3].read_bytes() + b"\0"),
        lambda: (tmp_path / "deep" / "a.png").unlink(),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
    ]
    monkeypatch.setattr("selfdistill.runs.predict.sleep", lambda _: happens.pop(0)())
    former = signal.getsignal(signal.SIGTERM)
    predictor = Predictor(loaded, Decisions(loaded.classes))
    names = [[p.path.relative_to(tmp_path).as_posix() for p in rows] for rows in predict_new(predictor, [tmp_path])]
    assert names == [["b.png", "deep/a.png"], ["c.png"], ["b.png"]]
    assert happens == []
    assert signal.getsignal(signal.SIGTERM) is former


def test_detectors_of_features_read_what_is_before_the_head(trained: tuple[TrainConfig, LoadedModel]) -> None:
    recipe, loaded = trained
    data = load(recipe)
    batches = eval_batches(data.train, data, batch_size=64, device="cpu", workers=0)
    reading = read_features(loaded.model, batches)
    fitted = fit_detectors(reading.logits, reading.features, reading)
    for at, wanted in ((-1e9, {"one", "two", "zero"}), (1e9, {"unknown"})):
        detectors = replace(fitted, thresholds={"mahalanobis": at})
        predictor = Predictor(loaded, Decisions(loaded.classes, ood="mahalanobis", detectors=detectors))
        assert {p.decision for p in predict_paths(predictor, [Path(recipe.data) / "test"])} <= wanted


def test_decision_and_set_have_columns() -> None:
    rows = [Prediction(Path("a"), "cat", 0.75, (0.25, 0.75), "not sure", ("cat", "dog"))]
    assert to_csv(rows, ["dog", "cat"]).splitlines() == [
        "file,class,confidence,decision,set,p(dog),p(cat)",
        "a,cat,0.750000,not sure,cat|dog,0.250000,0.750000",
    ]
    assert [json.loads(line) for line in to_json_lines(rows * 2, ["dog", "cat"]).splitlines()] == 2 * [
        {
            "file": "a",
            "class": "cat",
            "confidence": 0.75,
            "decision": "not sure",
            "set": ["cat", "dog"],
            "probabilities": {"dog": 0.25, "cat": 0.75},
        }
    ]
