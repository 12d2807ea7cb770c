"""Names and lists that others wrote: no path leaves a set, no folder is made, no name is lost at the end."""

import csv
import http.server
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy.io import savemat

from selfdistill.config import TrainConfig
from selfdistill.data import load_data, load_unlabelled
from selfdistill.data.named.download import Archive, download
from selfdistill.detect.coco import load_coco
from selfdistill.errors import ArgumentError
from selfdistill.runs.compare import run_comparison
from selfdistill.runs.evaluation import EvaluationConfig
from selfdistill.runs.predict import predict_files, to_csv
from selfdistill.training import load_run, train
from tests.published import write_cub, write_dogs

RECIPE = TrainConfig(model="resnet10_cifar", width=4, epochs=1, batch_size=8, threads=1, workers=0)
LATIN = os.fsdecode(b"caf\xe9")


def test_names_that_are_no_utf8_are_kept_escaped(tmp_path: Path, write_photos: Callable[..., Path]) -> None:
    photos = write_photos(tmp_path / f"photos-{LATIN}", {LATIN: 5, "tea": 5})
    (photos / "tea/000.png").rename(photos / "tea" / f"{LATIN}.png")
    recipe = replace(RECIPE, data=str(photos))
    record = train(recipe, tmp_path / "run")
    assert train(recipe, tmp_path / "run") == record
    known = json.loads((tmp_path / "run/model.json").read_text())
    assert known["classes"] == ["caf\\xe9", "tea"]
    predictions, _ = predict_files(load_run(tmp_path / "run"), [photos])
    assert len(predictions) == 10
    written = to_csv(predictions, known["classes"])
    assert f"{tmp_path}/photos-caf\\xe9/tea/caf\\xe9.png" in {row[0] for row in csv.reader(io.StringIO(written))}
    assert written.encode()


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg"])
def test_lists_name_files_inside_the_set(tmp_path: Path, name: str) -> None:
    cub, dogs = write_cub(tmp_path), write_dogs(tmp_path)
    lines = (cub / "images.txt").read_text().splitlines()
    (cub / "images.txt").write_text("\n".join([f"{lines[0].split()[0]} {name}", *lines[1:]]) + "\n")
    cells = np.empty((1, 1), dtype=object)
    cells[0, 0] = name
    savemat(dogs / "lists/train_list.mat", {"file_list": cells})
    for data in ("cub200", "dogs"):
        with pytest.raises(ValueError, match="is not a file inside the set"):
            load_data(data, root=tmp_path)


def write_coco(root: Path, name: object, category: object) -> Path:
    for part in ("train", "val"):
        (root / f"{part}2017").mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        known = {
            "images": [{"id": 1, "file_name": name, "width": 64, "height": 64}],
            "categories": [{"id": category, "name": "x"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": category, "bbox": [0, 0, 9, 9]}],
        }
        (root / f"annotations/instances_{part}2017.json").write_text(json.dumps(known))
    return root


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../x.jpg", 7, None])
def test_coco_names_images_inside_its_folder(tmp_path: Path, name: object) -> None:
    with pytest.raises(ValueError, match=r"instances_train2017\.json.*(not a text|not a file inside the set)"):
        load_coco(write_coco(tmp_path / "coco", name, 1))


@pytest.mark.parametrize("category", [0, -1, 2**31, 10_001, 1.5, "1", True])
def test_coco_categories_have_a_bound(tmp_path: Path, category: object) -> None:
    with pytest.raises(ValueError, match=r"whole numbers from 1.* to 10,000|not a whole number"):
        load_coco(write_coco(tmp_path / "coco", "a.jpg", category))


@pytest.fixture
def endless() -> Iterator[str]:
    """The address of a server that sends 64 MB, in pieces, without saying how much."""

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(64):
                    self.wfile.write(bytes(2**20))
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/x"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_ends_at_its_bound_and_leaves_nothing(tmp_path: Path, endless: str) -> None:
    archive = Archive(endless, "x.tar", "0" * 32, 1, most_bytes=3 * 2**20)
    with pytest.raises(OSError, match="sent more than the 3,145,728 bytes"):
        download(archive, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("root", ["../elsewhere/data", "/nowhere/else/data"])
def test_no_root_is_made_outside_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, write_photos: Callable[..., Path]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    photos = write_photos(Path("photos"), {"a": 5, "b": 5}, size=(80, 70))
    for load in (
        lambda: load_data("cifar10", root=Path(root)),
        lambda: load_unlabelled("isun", image_size=32, root=Path(root)),
        lambda: train(replace(RECIPE, data=str(photos), data_root=root, cache=True), "run"),
    ):
        with pytest.raises(ArgumentError, match=r"`data_root` is .*: make that folder first"):
            load()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "changed",
    [{"ood": ("other",)}, {"max_ood_images": 1}, {"corruptions": Path("nowhere")}],
    ids=lambda one: next(iter(one)),
)
def test_a_bad_evaluation_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_photos: Callable[..., Path], changed: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, {"photos/a": 5, "photos/b": 5, "other": 1})
    evaluation = msgspec.structs.replace(EvaluationConfig(measures=("ood", "shift")), **changed)
    with pytest.raises(ValueError, match=r"at least 2 images of each set|nowhere: no such folder"):
        run_comparison(
            replace(RECIPE, data="photos"),
            ["CrossEntropy()"],
            seeds=1,
            epochs=1,
            jobs=1,
            out=tmp_path / "runs",
            evaluation=evaluation,
        )
    assert not (tmp_path / "runs").exists()
