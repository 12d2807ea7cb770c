"""Tables, WebDataset shards and datasets of Hugging Face: what is read, and what is refused in one line."""

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, TrainLoader, eval_batches, load_data
from selfdistill.data.augment import Policy
from selfdistill.data.cache import with_cache
from selfdistill.data.listings import shards as listings
from selfdistill.data.sets import hold_out_validation
from selfdistill.method import Needs
from selfdistill.training import train
from tests.training.conftest import assert_same_weights, train_with_a_stop

WriteImages = Callable[..., Path]


def files_of(photos: Path) -> list[tuple[Path, str, str]]:
    """File, class and part of each."""
    return [(file, file.parent.name, file.parent.parent.name) for file in sorted(photos.rglob("*.jpg"))]


def write_table(
    table: Path, rows: Iterable[tuple[str, ...]], columns: tuple[str, ...] = ("path", "label", "split")
) -> Path:
    table.parent.mkdir(parents=True, exist_ok=True)
    if table.suffix == ".parquet":
        pa.parquet.write_table(pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), table)
    else:
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
    return table


def write_tar(file: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """Two shards for training, one for testing; numbers as labels, and a file that is not read."""
    listed = files_of(photos)
    for part, count in (("train", 2), ("test", 1)):
        own = [file for file in listed if file[2] == part]
        for shard in range(count):
            members: dict[str, bytes] = {}
            for number, (file, label, _) in list(enumerate(own))[shard::count]:
                key = f"{number:04}"
                members |= {
                    f"{key}.jpg": file.read_bytes(),
                    f"{key}.cls": b"%d\n" % (label == "dog"),
                    f"{key}.txt": b"",
                }
            write_tar(tmp_path / "shards" / f"{part}-{shard:03}.tar", members)
    return tmp_path / "shards"


@pytest.fixture
def hub(photos: Path, tmp_path: Path) -> Path:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["dog", "cat"]),
            "note": datasets.Value("string"),
        }
    )
    parts = {
        part: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": file.read_bytes(), "path": None} for file, _, of in files_of(photos) if of == part],
                "label": [label for _, label, of in files_of(photos) if of == part],
                "note": [file.name for file, _, of in files_of(photos) if of == part],
            },
            features=features,
        )
        for part in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "hub"))
    return tmp_path / "hub"


def pixels_by_label(data: ImageData, part: str) -> set[tuple[str, bytes]]:
    split = getattr(data, part)
    found = set()
    for x, y in eval_batches(split, data, batch_size=4, device="cpu", workers=0):
        found |= {(data.classes[label], image.numpy().tobytes()) for image, label in zip(x, y.tolist(), strict=True)}
    return found


@pytest.mark.parametrize("kind", ["csv", "parquet", "absolute", "wds", "pattern", "folders", "hf"])
def test_every_listing_holds_the_images_of_the_folder(
    request: pytest.FixtureRequest, photos: Path, tmp_path: Path, kind: str
) -> None:
    names = {"dog": "dog", "cat": "cat"}
    if kind in ("csv", "parquet"):
        rows = [(file.relative_to(photos).as_posix(), label, part) for file, label, part in files_of(photos)]
        source = str(write_table(photos / f"labels.{kind}", rows))
    elif kind == "absolute":
        rows = [(str(file), label, part) for file, label, part in files_of(photos)]
        source = str(write_table(tmp_path / "elsewhere" / "labels.csv", rows))
    elif kind == "folders":
        for part in ("train", "test"):
            members = {f"{label}/{file.name}": file.read_bytes() for file, label, of in files_of(photos) if of == part}
            write_tar(tmp_path / "shards" / f"{part}.tar", members)
        source = str(tmp_path / "shards")
    elif kind == "hf":
        source = f"hf:{request.getfixturevalue('hub')}"
    else:
        folder, names = request.getfixturevalue("shards"), {"dog": "1", "cat": "0"}
        source = f"wds:{folder}"
    folder_data, data = load_data(photos, image_size=32 + 64), load_data(source, image_size=32 + 64)
    parts = ("train", "test")
    if kind == "pattern":
        data, parts = load_data(f"{source}/train-{{000..001}}.tar", image_size=96), ("both",)
        assert data.is_held_out
        assert pixels_by_label(data, "train") | pixels_by_label(data, "test") == {
            (names[label], pixels) for label, pixels in pixels_by_label(folder_data, "train")
        }
        return
    for part in parts:
        wanted = {(names[label], pixels) for label, pixels in pixels_by_label(folder_data, part)}
        assert pixels_by_label(data, part) == wanted
    assert data.augment == "resized_crop_flip"
    assert len(data.train) == 18
    if kind == "wds":
        assert data.notes == ("22 .txt are not read",)
    if kind == "hf":
        assert data.classes == ("dog", "cat")
    again = load_data(source, image_size=96)
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize(("kind", "size"), [("shards", 32), ("shards", 72), ("hub", 72)])
def test_packed_images_are_trained_on_cached_and_resumed(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, size: int
) -> None:
    source = {"shards": "wds", "hub": "hf"}[kind] + f":{request.getfixturevalue(kind)}"
    data = load_data(source, image_size=size)
    recipe = TrainConfig(
        data=source,
        image_size=size,
        model="resnet10_cifar",
        width=4,
        epochs=3,
        batch_size=8,
        lr=0.05,
        threads=1,
        workers=1,
    )
    recipe = replace(recipe, balanced_sampling=True)
    train(recipe, tmp_path / "whole", data=data)
    train_with_a_stop(replace(recipe, workers=0), tmp_path / "stopped", data)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    kept = with_cache(data, data.resizing.margin(size), tmp_path / "cache")
    for one, other in zip(
        *(eval_batches(each.test, data, batch_size=4, device="cpu") for each in (data, kept)), strict=True
    ):
        assert torch.equal(one[0], other[0])
    held = hold_out_validation(data, 0.2)
    assert held.val is not None
    assert len(held.val) + len(held.train) == 18


def test_processes_share_the_images_of_shards(shards: Path) -> None:
    data = load_data(f"wds:{shards}", image_size=32)

    def drawn(world_size: int) -> list[bytes]:
        ranks = [
            TrainLoader(data, Needs(), batch_size=6, seed=0, device="cpu", workers=0, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        steps = zip(*(loader.epoch(1) for loader in ranks), strict=True)
        return [image.numpy().tobytes() for step in steps for (batch,) in step for image in batch.x]

    assert drawn(1) == drawn(2) == drawn(3)
    assert len(set(drawn(1))) == 18


@pytest.mark.parametrize("policy", [Policy(), Policy("trivial", 0.5)])
def test_small_images_are_augmented_as_those_in_memory(photos: Path, tmp_path: Path, policy: Policy) -> None:
    for part in ("train", "test"):
        rows = [(file, label) for file, label, of in files_of(photos) if of == part]
        write_tar(
            tmp_path / "shards" / f"{part}.tar", {f"{label}/{file.name}": file.read_bytes() for file, label in rows}
        )
    folder, packed = (load_data(source, image_size=32) for source in (photos, tmp_path / "shards"))
    assert (packed.train.images, packed.augment) == (None, folder.augment)
    both = [replace(data, mean=(0.5,) * 3, std=(0.2,) * 3) for data in (folder, packed)]
    assert pixels_by_label(both[0], "test") == pixels_by_label(both[1], "test")
    loaders = [
        TrainLoader(data, Needs(views=2), batch_size=6, seed=0, policy=policy, device="cpu", workers=0) for data in both
    ]
    for (one,), (other,) in zip(*(loader.epoch(1) for loader in loaders), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.views[0], other.views[0])


def test_an_index_keeps_no_image(shards: Path, write_images: WriteImages, tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 3)
    small = (tmp_path / "cat" / "00.png").read_bytes()
    write_tar(tmp_path / "tiny" / "a.tar", {f"{c}/{n}.png": small for c in "ab" for n in range(20)})
    data = load_data(f"wds:{tmp_path / 'tiny'}")
    assert (data.image_size, data.augment, data.train.images) == (40, "crop_flip", None)
    assert data.is_held_out
    assert len(data.train) + len(data.test) == 40


def test_an_index_is_kept_until_a_shard_changes(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> ImageData:
        return load_data(f"wds:{shards}", root=tmp_path, image_size=96)

    fresh = loaded()
    assert not (tmp_path / "cache").exists(), "an index of few images is made as fast as it is read"
    monkeypatch.setattr(listings, "_MANY", 1)
    loaded()
    ((file,), read) = (tmp_path / "cache").glob("*.index"), listings._members
    monkeypatch.setattr(listings, "_members", None)  # nothing is indexed anew
    again = loaded()
    assert pixels_by_label(again, "train") == pixels_by_label(fresh, "train")
    assert (again.fingerprint, again.notes, again.classes) == (fresh.fingerprint, fresh.notes, fresh.classes)
    monkeypatch.setattr(listings, "_members", read)
    file.write_bytes(file.read_bytes()[:-1])
    assert loaded().fingerprint == fresh.fingerprint, "a damaged index is made anew"
    (shards / "test-000.tar").unlink()
    assert len(loaded().train) < len(fresh.train)
    assert len(list((tmp_path / "cache").glob("*.index"))) == 2


def test_an_unreadable_image_is_named_or_left_out(shards: Path) -> None:
    write_tar(shards / "train-002.tar", {"9999.jpg": b"no image", "9999.cls": b"0"})
    data = load_data(f"wds:{shards}", image_size=32)
    with pytest.raises(RuntimeError, match=r"train-002\.tar, 9999\.jpg: not an image"):
        list(TrainLoader(data, Needs(), batch_size=8, seed=0, device="cpu", workers=0).epoch(0))
    less = load_data(f"wds:{shards}", image_size=32, skip_unreadable=True)
    assert len(less.train) == 18
    assert [str(one) for one in less.skipped] == [f"{shards / 'train-002.tar'}, 9999.jpg"]


def test_numbers_are_classes_in_their_order_and_val_alone_is_for_testing(photos: Path) -> None:
    number = {"cat": "10", "dog": "9"}
    rows = [
        (file.relative_to(photos).as_posix(), number[label], "Validation" if part == "test" else "TRAIN")
        for file, label, part in files_of(photos)
    ]
    data = load_data(write_table(photos / "labels.csv", rows))
    assert data.classes == ("9", "10")
    assert (len(data.test), data.val) == (4, None)
    held = load_data(write_table(photos / "all.csv", [row[:2] for row in rows], ("path", "label")))
    assert held.is_held_out


GOOD = [(f"train/{name}/{n:02}.jpg", name) for name in ("cat", "dog") for n in range(4)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no column 'path'"),
        ("file,label\na,b\n", "has no column 'path', it has ['file', 'label']"),
        ("path,label,label\na,b,c\n", "has two columns 'label'"),
        ("path,label\n", "lists no image"),
        ("path,label\ntrain/cat/00.jpg\n", "line 2: not as many values as columns"),
        ("path,label\n,cat\n", "line 2: an empty path or label"),
        ("path,label\n../x.jpg,cat\n", "leads out of the table's folder"),
        ("path,label\ntrain/cat/00.jpg,cat\nnot.jpg,dog\n", "1 are missing, such as"),
        (
            "path,label\ntrain/cat/00.jpg,cat\ntrain/cat/00.jpg,dog\n",
            "has two labels: several of an image (multi-label)",
        ),
        ("path,label\ntrain/cat/00.jpg,cat\ntrain/cat/00.jpg,cat\n", "is listed twice (first in line 2)"),
        ("path,label,split\ntrain/cat/00.jpg,cat,extra\n", "split is 'extra', wanted train, test or val"),
        ("path,label,split\ntrain/cat/00.jpg,cat,test\n", "rows of test alone"),
        ('path,label\n"train/cat/00.jpg,cat\n', "not a CSV file in UTF-8"),
    ],
)
def test_a_wrong_table_is_one_line(photos: Path, content: str, said: str) -> None:
    table = photos / "labels.csv"
    table.write_text(content)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        load_data(table)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_parquet_file_is_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = photos / "labels.parquet"
    table.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="not a Parquet file"):
        load_data(table)
    pa.parquet.write_table(pa.table({"path": ["a"], "label": [["x", "y"]]}), table)
    with pytest.raises(ValueError, match="multi-label"):
        load_data(table)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(RuntimeError, match=r'pip install "selfdistill\[parquet\]"'):
        load_data(table)


IMAGE = b"an image, as far as an index knows"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"1.jpg": IMAGE}, "has no label"),
        ({"1.txt": b""}, "no image in it"),
        ({"1.jpg": IMAGE, "1.cls": b"\xff"}, "is not text in UTF-8"),
        ({"1.jpg": IMAGE, "1.cls": b""}, "has the label"),
        ({"1.jpg": IMAGE, "1.json": b"{"}, "is not JSON in UTF-8"),
        ({"1.jpg": IMAGE, "1.json": b"3"}, "is not JSON in UTF-8"),
        ({"1.jpg": IMAGE, "1.json": json.dumps({"label": [1, 2]}).encode()}, "multi-label"),
        ({"1.jpg": IMAGE, "1.json": json.dumps({"label": 1.5}).encode()}, "has the label"),
        ({"1.jpg": IMAGE, "1.cls": b"3"}, "has one class, '3'"),
    ],
)
def test_a_wrong_sample_is_one_line(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    write_tar(tmp_path / "shards" / "a.tar", members)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        load_data(f"wds:{tmp_path / 'shards'}")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_wrong_shards_are_one_line(shards: Path, tmp_path: Path) -> None:
    cases: dict[str, str] = {
        f"{shards}/train-{{000..005}}.tar": "4 of 6 shards are missing, such as",
        f"{shards}/train-{{5..1}}.tar": "stands for 0 shards",
        f"{tmp_path}/photos": "has no .tar file",
        f"{tmp_path}/nothing": "1 of 1 shards are missing",
    }
    write_tar(tmp_path / "packed" / "a.tar", {"a/1.jpg": IMAGE}, "w:gz")
    write_tar(tmp_path / "short" / "a.tar", {"a/1.jpg": IMAGE * 100})
    (tmp_path / "short" / "a.tar").write_bytes((tmp_path / "short" / "a.tar").read_bytes()[:900])
    shutil.copytree(shards, tmp_path / "mixed")
    shutil.copy(shards / "test-000.tar", tmp_path / "mixed" / "other.tar")
    for name, said in {"packed": "not an uncompressed .tar file", "short": "a.tar", "mixed": "is of no part"}.items():
        cases[str(tmp_path / name)] = said
    for pattern, said in cases.items():
        with pytest.raises(ValueError) as refused:  # noqa: PT011
            load_data(f"wds:{pattern}")
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.fixture
def configured(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of a dataset of the hub with two configurations; of the second each part has the first four images."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "prepared"))
    folder, lines = tmp_path / "copy", ["---", "configs:"]
    for name, most in (("all", None), ("few", 4)):
        lines += [f"- config_name: {name}", "  data_files:"]
        for part, dataset in datasets.load_from_disk(str(hub)).items():
            split = {"test": "validation"}.get(str(part), str(part))
            (folder / name).mkdir(parents=True, exist_ok=True)
            kept = dataset.shuffle(seed=0).select(range(len(dataset) if most is None else most))
            kept.to_parquet(folder / name / f"{split}.parquet")
            lines += [f"  - split: {split}", f"    path: {name}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return f"hf:{folder}"


def test_a_configuration_of_a_dataset(configured: str, hub: Path) -> None:
    whole, named = load_data(f"hf:{hub}", image_size=96), load_data(f"{configured}:all", image_size=96)
    for part in ("train", "test"):  # the part "validation" alone is for testing
        assert pixels_by_label(named, part) == pixels_by_label(whole, part)
    few = load_data(f"{configured}:few", image_size=96)
    assert (len(few.train), len(few.test), few.name) == (4, 4, "copy-few")
    for source, said in {configured: "all", f"{configured}:none": "none", f"{configured}x:all": "copyx"}.items():
        with pytest.raises((ValueError, RuntimeError), match=said) as refused:
            load_data(source)
        assert "\n" not in str(refused.value)


def saved(folder: Path, columns: Mapping[str, list[Any]], features: Mapping[str, Any]) -> str:
    datasets.Dataset.from_dict(dict(columns), features=datasets.Features(dict(features))).save_to_disk(str(folder))
    return f"hf:{folder}"


def test_wrong_datasets_are_one_line(tmp_path: Path, hub: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, label, text = datasets.Image(), datasets.ClassLabel(names=["a", "b"]), datasets.Value("string")
    columns = {"image": image, "label": label}
    cell = {"bytes": files_of(photos)[0][0].read_bytes(), "path": None}
    cases = {
        saved(tmp_path / "no-image", {"label": [0]}, {"label": label}): "one column of images",
        saved(tmp_path / "no-label", {"image": [cell], "label": ["a"]}, columns | {"label": text}):
            "one column of class labels",
        saved(tmp_path / "many", {"image": [cell], "label": [[0, 1]]}, columns | {"label": datasets.List(label)}):
            "multi-label",
        saved(tmp_path / "unlabelled", {"image": [cell], "label": [-1]}, columns):
            "1 images have no label",
        saved(tmp_path / "one", {"image": [cell] * 3, "label": [0] * 3}, columns): "class 'b' has no",
        f"hf:{photos}": "not a folder of save_to_disk",
        f"hf:{hub}:small": "what save_to_disk wrote has no configurations",
        f"hf:{photos}:": "the name of a dataset is missing",
        "hf::small": "the name of a dataset is missing",
        "hf:": "the name of a dataset is missing",
    }  # fmt: skip
    for source, said in cases.items():
        with pytest.raises(ValueError) as refused:  # noqa: PT011
            load_data(source)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, config: (_ for _ in ()).throw(ConnectionError("no network\nat all"))
    )
    with pytest.raises(
        RuntimeError, match=r"nobody/nothing is not a folder, and not to be had from the hub \(no network\)"
    ):
        load_data("hf:nobody/nothing")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(RuntimeError, match=r'pip install "selfdistill\[huggingface\]"'):
        load_data(f"hf:{hub}")


def test_arrays_with_several_labels_are_refused(write_arrays: Callable[..., Path], tmp_path: Path) -> None:
    file = write_arrays(tmp_path / "a.npz", labels=np.zeros((20, 4), np.int64))
    with pytest.raises(ValueError, match="multi-label"):
        load_data(file)
