import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from selfdistill.config import TrainConfig
from selfdistill.data import eval_batches
from selfdistill.evaluation.images import predict
from selfdistill.runs.predict import Prediction, predict_files, refuse_image_name, to_csv
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
