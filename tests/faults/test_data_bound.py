"""A run is bound to its images: another set is refused before any training, in one line that says what changed."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, load_data
from selfdistill.data.fingerprint import changes
from selfdistill.data.sets import hold_out_validation
from selfdistill.detect.coco import load_coco
from selfdistill.records import RunRecord, summarise
from selfdistill.records.search import SEARCH, SearchRecord
from selfdistill.runs.compare import run_comparison
from selfdistill.runs.grid import ExecutorConfig
from selfdistill.runs.score import own_images
from selfdistill.runs.search import SearchConfig, Tuned, tune
from selfdistill.training import load_run, train
from selfdistill.training import run as run_module
from tests.detect.conftest import TRAIN, VAL, change, write_part

RECIPE = TrainConfig(
    model="resnet10_cifar", width=4, epochs=1, batch_size=8, threads=1, workers=0, method="CrossEntropy()"
)


@pytest.fixture
def photos(tmp_path: Path, write_photos: Callable[..., Path]) -> Path:
    """Photographs of two classes: 5 + 2 of a, 6 + 3 of b."""
    counts = {"train/a": 5, "train/b": 6, "test/a": 2, "test/b": 3}
    return write_photos(tmp_path / "photos", counts)


def as_large(photos: Path) -> None:
    """Make every photograph too large to be kept in memory."""
    for file in photos.rglob("*.png"):
        Image.open(file).resize((80, 70)).save(file)


def replace_one(photos: Path) -> None:
    file = photos / "train/a/000.png"
    size, pixels = file.stat().st_size, np.asarray(Image.open(file))
    Image.fromarray(255 - pixels).save(file)
    with file.open("ab") as padded:
        padded.write(bytes(max(0, size - file.stat().st_size)))


def swap_classes(photos: Path) -> None:
    for part in ("train", "test"):
        (photos / part / "a").rename(photos / part / "c")
        (photos / part / "b").rename(photos / part / "a")
        (photos / part / "c").rename(photos / part / "b")


def rename_class(photos: Path) -> None:
    for part in ("train", "test"):
        (photos / part / "a").rename(photos / part / "z")


def add(photos: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(np.full((32, 32, 3), len(name), np.uint8)).save(photos / name)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "renamed": (rename_class, "1 class renamed: a -> z"),
    "swapped": (swap_classes, "the same images have other labels or are in other parts (a and b)"),
    "added": (
        lambda photos: add(photos, "train/b/x.png", "train/b/y.png", "train/a/xyz.png"),
        "3 train images added (a and b)",
    ),
    "removed": (lambda photos: (photos / "test/b/001.png").unlink(), "1 test image removed (b)"),
    "replaced": (replace_one, "images or their boxes replaced in a"),
    "moved": (
        lambda photos: (photos / "train/a/000.png").rename(photos / "train/b/900.png"),
        "the same images have other labels or are in other parts (a and b); 1 train image added (b); 1 train image "
        "removed (a)",
    ),
    "to test": (
        lambda photos: (photos / "train/a/000.png").rename(photos / "test/a/900.png"),
        "other parts (a); 1 test image added (a); 1 train image removed (a)",
    ),
    "renamed file": (
        lambda photos: (photos / "train/a/000.png").rename(photos / "train/a/9.png"),
        "files renamed in a",
    ),
    "test part": (
        lambda photos: (photos / "test").rename(photos / "val"),
        "the test images are 'val folder' instead of 'test folder'",
    ),
    "class more": (
        lambda photos: [shutil.copytree(photos / part / "a", photos / part / "c") for part in ("train", "test")],
        "new class: c",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("large", [False, True], ids=["in memory", "files"])
def test_a_change_is_said_in_words(photos: Path, name: str, large: bool) -> None:
    if large:
        as_large(photos)
    there = load_data(photos).fingerprint
    assert changes(there, load_data(photos).fingerprint) == ""
    alter, told = CHANGES[name]
    alter(photos)
    said = changes(json.loads(json.dumps(there)), load_data(photos).fingerprint)
    assert told in said
    assert "\n" not in said


def test_where_files_lie_and_their_times_are_no_change(photos: Path, tmp_path: Path) -> None:
    there = load_data(photos).fingerprint
    shutil.move(photos, tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere/train/a/000.png", (1, 1))
    assert load_data(tmp_path / "elsewhere").fingerprint == there


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_a_run_of_other_images_is_refused(photos: Path, tmp_path: Path, finished: bool, monkeypatch) -> None:
    recipe, out = replace(RECIPE, data=str(photos)), tmp_path / "run"
    train(recipe, out)
    if not finished:
        (out / "result.json").unlink()
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    rename_class(photos)
    monkeypatch.setattr(run_module, "run_task", None)  # nothing is trained
    with pytest.raises(ValueError, match=r"run was trained on other data: 1 class renamed: a -> z; restore them"):
        train(recipe, out)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_labels_that_change_in_arrays_are_refused(tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8), np.arange(40) % 4
    file, out = tmp_path / "set.npz", tmp_path / "run"
    np.savez(file, images=images, labels=labels)
    train(replace(RECIPE, data=str(file)), out)
    (out / "result.json").unlink()
    np.savez(file, images=images, labels=(labels + 1) % 4)
    with pytest.raises(ValueError, match="the same images have other labels"):
        train(replace(RECIPE, data=str(file)), out)
    order = np.random.default_rng(1).permutation(40)
    np.savez(file, images=images[order], labels=labels[order])
    with pytest.raises(ValueError, match="trained on other data"):
        train(replace(RECIPE, data=str(file)), out)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_a_lost_recipe_answers_for_no_other(photos: Path, tmp_path: Path, finished: bool) -> None:
    recipe, out = replace(RECIPE, data=str(photos)), tmp_path / "run"
    record = train(recipe, out)
    if not finished:
        (out / "result.json").unlink()
    (out / "recipe.yaml").unlink()
    with pytest.raises(
        ValueError, match=r"belongs to another recipe: lr \(0.1 there, 0.5 here\), seed \(0 there, 3 here\)"
    ):
        train(replace(recipe, lr=0.5, seed=3), out)
    assert not (out / "recipe.yaml").exists(), "the wrong one would be believed the next time"
    again = train(recipe, out)
    assert again.evaluation.top1 == record.evaluation.top1


def test_a_comparison_of_other_images_is_refused_before_it_trains(photos: Path, tmp_path: Path, monkeypatch) -> None:
    def compare() -> None:
        methods = ["CrossEntropy()", "LabelSmoothing()"]
        run_comparison(replace(RECIPE, data=str(photos)), methods, seeds=1, epochs=1, jobs=1, out=tmp_path / "runs")

    compare()
    shutil.rmtree(tmp_path / "runs/labelsmoothing-seed0")
    add(photos, "train/a/one-more.png")
    with pytest.raises(ValueError, match=r"crossentropy-seed0 was trained on other data: 1 train image added \(a\)"):
        compare()
    assert not (tmp_path / "runs/labelsmoothing-seed0").exists()


def test_a_search_of_other_images_or_another_recipe_is_refused(photos: Path, tmp_path: Path) -> None:
    def search(**changed: Any) -> Tuned | None:
        config = SearchConfig(("CrossEntropy()", "LabelSmoothing()"), trials=1, epochs=1, seeds=1)
        recipe = replace(RECIPE, data=str(photos), **changed)
        return tune(recipe, config, out=tmp_path / "search", executor=ExecutorConfig())

    first = search()
    assert first is not None
    with pytest.raises(ValueError, match=r"another recipe: lr \(0.1 there, 0.2 here\)"):
        search(lr=0.2)
    replace_one(photos)
    with pytest.raises(ValueError, match="was trained on other data: images or their boxes replaced in a"):
        search()
    older = msgspec.structs.replace(first.search, recipe={}, fingerprint={})
    older.save(tmp_path / "search" / SEARCH)
    assert SearchRecord.load(tmp_path / "search") == older


def test_records_of_other_images_are_not_compared(photos: Path, tmp_path: Path) -> None:
    record = train(replace(RECIPE, data=str(photos)), tmp_path / "run")
    other = msgspec.structs.replace(record, method="SDDropout()")
    summarise([record, other])
    older = msgspec.structs.replace(other, data=msgspec.structs.replace(record.data, fingerprint=None))
    summarise([record, older])
    replace_one(photos)
    now = load_data(photos).fingerprint
    with pytest.raises(ValueError, match="their images are different"):
        summarise([record, msgspec.structs.replace(other, data=msgspec.structs.replace(record.data, fingerprint=now))])


def test_evaluation_finds_the_run_s_own_images_or_none(photos: Path, tmp_path: Path, monkeypatch) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    shutil.move(photos, tmp_path / "here/photos")
    shutil.copytree(tmp_path / "here/photos", tmp_path / "there/photos")
    add(tmp_path / "there/photos", "test/a/more.png")
    monkeypatch.chdir(tmp_path / "here")
    train(replace(RECIPE, data="photos"), Path("run"))
    monkeypatch.chdir(tmp_path / "there")
    run = tmp_path / "here/run"
    assert len(own_images(run, load_run(run)).test) == 5
    shutil.rmtree(tmp_path / "here/photos")
    with pytest.raises(ValueError, match=r"1 test image added \(a\); restore it, or name the images .* with `data`"):
        own_images(run, load_run(run))
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match=r"has no record .* name them with `data`"):
        own_images(run, load_run(run))


def test_older_records_are_compared_by_their_numbers(photos: Path, tmp_path: Path) -> None:
    recipe, out = replace(RECIPE, data=str(photos)), tmp_path / "run"
    record = train(recipe, out)
    older = msgspec.to_builtins(record)
    del older["data"]["fingerprint"]
    (out / "result.json").write_text(json.dumps(older))
    assert RunRecord.load(out / "result.json").data.fingerprint is None
    assert train(recipe, out).evaluation == record.evaluation
    add(photos, "train/a/more.png")
    with pytest.raises(ValueError, match="training images: 11 then, 12 now"):
        train(recipe, out)


def test_one_more_photo_moves_no_other_between_the_parts(tmp_path: Path, write_photos: Callable[..., Path]) -> None:
    write_photos(tmp_path / "set", {"a": 40, "b": 40, "b/deep": 20}, size=(80, 70))
    before = load_data(tmp_path / "set")
    assert 12 <= len(before.test) <= 30
    add(tmp_path / "set", "a/more.png", "b/deep/0000.png")
    after = load_data(tmp_path / "set")
    for part in ("train", "test"):
        assert set(getattr(before, part).paths or ()) <= set(getattr(after, part).paths or ())
    copy = shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert load_data(copy).fingerprint == after.fingerprint


def as_arrays(pixels: Sequence[np.ndarray], file: Path) -> ImageData:
    images = np.stack([one[:32, :32] for one in (*pixels, *pixels)])
    np.savez(file, images=images, labels=np.arange(len(images)) // len(pixels))
    return load_data(file.with_suffix(".npz"))


def as_hub(pixels: Sequence[np.ndarray], file: Path, named: bool) -> ImageData:
    datasets = pytest.importorskip("datasets")
    rows: dict[str, list[Any]] = {"image": [], "label": []}
    for label in (0, 1):
        for one in pixels:
            Image.fromarray(one).save(content := BytesIO(), "PNG")
            rows["image"].append({"bytes": content.getvalue(), "path": "rgb.png" if named else None})
            rows["label"].append(label)
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    datasets.Dataset.from_dict(rows, features=datasets.Features(kinds)).save_to_disk(file)
    return load_data(f"hf:{file}")


@pytest.mark.parametrize(
    "write", [as_arrays, partial(as_hub, named=False), partial(as_hub, named=True)], ids=["npz", "no names", "one name"]
)
@pytest.mark.parametrize("part", ["test", "val"])
def test_one_more_image_without_a_name_moves_no_other(
    tmp_path: Path, write: Callable[..., ImageData], part: str
) -> None:
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 255, (32 + side, 32, 3), np.uint8) for side in range(31)]

    def held_out(images: Sequence[np.ndarray], name: str) -> tuple[Counter[int], Counter[int]]:
        data = write(images, tmp_path / name)
        data = hold_out_validation(data, 0.2) if part == "val" else data
        return tuple(Counter(one.identify()[:, 1].tolist()) for one in (data.train, getattr(data, part)))

    train, held = held_out(pixels[1:], "before")
    assert 4 <= held.total() <= 24
    more_train, more_held = held_out(pixels, "after")
    assert train <= more_train
    assert held <= more_held


def test_a_class_held_out_has_an_image_on_either_side(tmp_path: Path, write_photos: Callable[..., Path]) -> None:
    write_photos(tmp_path, {f"class{number}": 2 + number % 3 for number in range(30)})
    data = load_data(tmp_path)
    for split in (data.train, data.test):
        assert int(split.labels.bincount(minlength=30).min()) >= 1


def test_a_detector_s_boxes_are_bound_too(tmp_path: Path) -> None:
    for part, images in (("train", TRAIN), ("val", VAL)):
        write_part(tmp_path / "coco", part, images)
    there = load_coco(tmp_path / "coco").fingerprint
    assert changes(there, load_coco(tmp_path / "coco").fingerprint) == ""
    change(tmp_path / "coco", "train", lambda known: known["annotations"][0].update(bbox=[8, 8, 30, 31]))
    assert changes(there, load_coco(tmp_path / "coco").fingerprint) == "images or their boxes replaced in all"
    change(tmp_path / "coco", "train", lambda known: known["categories"][0].update(name="crimson"))
    assert "1 class renamed: 1: red -> 1: crimson" in changes(there, load_coco(tmp_path / "coco").fingerprint)
