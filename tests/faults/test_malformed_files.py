"""Files that a run, a user or a stranger hands over, damaged or hostile: one line that names the file, nothing run."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfdistill.config import TrainConfig
from selfdistill.data.arrays import read_npz
from selfdistill.data.unlabelled import load_unlabelled
from selfdistill.detect.annotations import read_annotations
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.record import DetectRecord
from selfdistill.methods import parse_method
from selfdistill.models import build
from selfdistill.models.weights import load_weights
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.records.record import read_json
from selfdistill.runs.search.trials import Search
from selfdistill.training.export import description, load_run
from selfdistill.training.run import find_weight
from tests.faults.tiny import RECIPE, images

DEEP = "[" * 100_000


def refused(read: Callable[[], object], file: Path | str) -> str:
    """Read a file that must be refused in one line of a bearable length that names it; returns the line."""
    with pytest.raises((ValueError, OSError)) as error:
        read()
    line = str(error.value)
    assert str(file) in line
    assert "\n" not in line
    assert len(line) < 1000
    return line


# What a search keeps.

NO_WEIGHTS = ("null", "NaN", "-3", "1e999")


@pytest.mark.parametrize("text", ["{", "[]", "null", DEEP, '{"op_code": 99}', '"x"'])
def test_a_damaged_journal_of_trials_is_refused(tmp_path: Path, text: str) -> None:
    search = Search.join(tmp_path, RECIPE, RECIPE.resolve(images()), ["CrossEntropy()"], "nll", rates=False)
    (tmp_path / "search.journal").write_text(f"{text}\n")
    refused(lambda: search.study("CrossEntropy()"), tmp_path / "search.journal")


@pytest.mark.parametrize("text", ["", "{", "[]", DEEP, *(f'{{"auto_weight": {one}}}' for one in NO_WEIGHTS)])
def test_a_damaged_weight_that_was_found_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "auto_weight.json").write_text(text)
    recipe = RECIPE.resolve(images())
    refused(
        lambda: find_weight(recipe, tmp_path, images(), lambda *_: pytest.fail("it trained")),
        tmp_path / "auto_weight.json",
    )


# YAML: depth, aliases, keys, values.


@pytest.mark.parametrize(
    "text",
    [
        f"method: {DEEP[:20_000]}",
        f"method: {'{a: ' * 3000}",
        "lr: 0.1\nlr: 0.001\n",
        "lr: 0.1\n'lr': 0.1\n",
        "lr: &x 1\ngamma: *x\n",
        "stages: &x [*x]\n",
        "a: &a {x: 1}\n<<: *a\n",
        "lr: 2024-13-45\n",
        f"seed: {'9' * 5000}\n",
        f"seed: 0x{'f' * 5000}\n",
        f"lr: {'9' * 400}\n",
        "? [a]\n: 1\n",
        "lr: !!python/object/apply:os.getcwd []\n",
        f"lr: !{'x' * 10_000} 1\n",
        f"{'x' * 900}: 1\n",
        f"method: [{'x' * 10**6}]\n",
        "lr: !!binary aGVsbG8=\n",
        "lr: .inf\n",
        "lr: !!set {a, b}\n",
        "method: ''\n",
        "- 1\n",
        "3\n",
        '"\\e[2J": 1\n',
    ],
)
def test_a_yaml_config_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    for kind in (TrainConfig, DetectConfig):
        refused(lambda kind=kind: kind.from_yaml(file), file)  # type: ignore[misc]


def test_yaml_aliases_are_not_multiplied(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    levels = "".join(f", &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))
    file.write_text(f"method: [&a0 [x,x,x,x,x,x,x,x,x]{levels}]\n")
    refused(lambda: TrainConfig.from_yaml(file), file)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"lr: \xff\n", b"lr: \x00\n", b"\x1f\x8b\x08"])
def test_bytes_that_are_not_yaml_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    refused(lambda: TrainConfig.from_yaml(file), file)


# JSON: records, descriptions, annotations.

NOT_JSON = [DEEP, '{"a":' * 50_000, "", "{", "nul", "\x00", "[1, 2", '{"a": 1} x', "\ufeff{}"]
NOT_RECORDS = ["[]", "3", "null", '"x"', "{}", '{"schema": 1}', '{"schema": 1, "method": 2, "evaluation": 3}']


@pytest.mark.parametrize("text", [*NOT_JSON, *NOT_RECORDS])
def test_json_that_is_not_a_record_is_refused(tmp_path: Path, text: str) -> None:
    for kind, name in ((RunRecord, "result"), (EvaluationRecord, "evaluation"), (DetectRecord, "result")):
        file = tmp_path / f"{name}.json"
        file.write_text(text)
        refused(lambda kind=kind, file=file: kind.load(file), file)  # type: ignore[misc]
    (tmp_path / "model.json").write_text(text)
    refused(lambda: description(tmp_path), tmp_path / "model.json")


MODEL: dict[str, Any] = {
    "model": "resnet10_cifar",
    "width": 4,
    "features": None,
    "head_layers": 1,
    "classes": ["a", "b"],
    "image_size": 32,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
}


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text(json.dumps(MODEL))
    assert description(tmp_path) == MODEL
    file.write_text(json.dumps(MODEL).replace('"width": 4', '"width": 4, "width": 8'))
    refused(lambda: description(tmp_path), file)
    with pytest.raises(ValueError, match="'width' is given twice"):
        read_json(file, "get it again")


@pytest.mark.parametrize(
    "change",
    [
        {"model": ["x"]},
        {"model": None},
        {"model": "resnet_10"},
        {"model": "timm:nope"},
        {"model": ""},
        {"width": "8"},
        {"width": 0},
        {"width": -(10**30)},
        {"width": 10**9},
        {"features": 1.5},
        {"features": 10**12},
        {"head_layers": 7},
        {"head_layers": None},
        {"classes": None},
        {"classes": "ab"},
        {"classes": ["a"]},
        {"classes": [1, 2]},
        {"image_size": "x"},
        {"image_size": 0},
        {"image_size": 10**9},
        {"mean": [0.5]},
        {"mean": ["a", "b", "c"]},
        {"std": [0, 0, 0]},
        {"std": None},
        {"mean": [float("inf")] * 3},
        {"std": [float("inf")] * 3},
        {"temperature": float("inf")},
        {"temperature": 0},
    ],
)
def test_a_description_of_no_model_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "model.json").write_text(json.dumps(MODEL | change))
    refused(lambda: load_run(tmp_path), tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({key: MODEL[key] for key in MODEL if key not in change}))
    refused(lambda: load_run(tmp_path), tmp_path)


def coco(**changes: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "x.png", "width": 9, "height": 9}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    known = {"images": [image], "categories": [{"id": 1, "name": "x"}], "annotations": [box]}
    for place, value in changes.items():
        part, name = place.split("__")
        known[part][0] = value if name == "all" else known[part][0] | {name: value}
    return known


@pytest.mark.parametrize(
    "text",
    [
        *NOT_JSON,
        *NOT_RECORDS,
        *(
            json.dumps(coco(**{place: value}))
            for place, value in {
                "images__file_name": 5,
                "images__id": [],
                "images__width": "9",
                "images__height": -1,
                "images__all": 3,
                "categories__id": "1",
                "categories__all": None,
                "annotations__bbox": [1, 2],
                "annotations__category_id": {},
                "annotations__image_id": [],
                "annotations__iscrowd": "x",
                "annotations__all": "box",
            }.items()
        ),
        json.dumps(coco(annotations__bbox=[1, 1, float("nan"), 5])),
        json.dumps(coco(annotations__bbox=[1, 1, 10**400, 5])),
        json.dumps(coco(categories__name="x" * 10**6, categories__id=[])),
    ],
)
def test_annotations_that_are_not_coco_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(text)
    refused(lambda: read_annotations(tmp_path, "train"), tmp_path)


# Arrays and weights.


def npy(header: str, content: bytes = b"aa") -> bytes:
    text = header.encode() + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def saved(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **({"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.array([0, 1, 0, 1])} | arrays))
    return file.getvalue()


def marked(offset: int, value: int) -> bytes:
    """Return a good file with one byte changed in what its directory says of the first array."""
    content = bytearray(saved())
    content[content.index(b"PK\x01\x02") + offset] = value
    return bytes(content)


HEADERS = [
    "{'descr':'|u1','fortran_order':False,'shape':(4611686018427387904,)}",
    "{'descr':'|u1','fortran_order':False,'shape':(-1,)}",
    "{'descr':'|u1','fortran_order':False,'shape':'x'}",
    "{'descr':'|O','fortran_order':False,'shape':(2,)}",
    "{'descr':'nope','fortran_order':False,'shape':(2,)}",
    "{'descr':'|u1'}",
    "not a header",
    "((" * 50,
]
MEMBERS = [*map(npy, HEADERS), b"", b"\x93NUMPY", b"\x93NUMPY\x09\x09", b"x" * 100]
NPZ = [
    *(zipped(images=member, labels=member) for member in MEMBERS),
    b"",
    b"PK\x03\x04",
    b"x" * 100,
    saved()[:200],
    saved()[:-30],
    saved().replace(b"PK\x03\x04", b"PK\x03\x05", 1),
    marked(8, 1),  # encrypted, so it says
    marked(10, 99),  # compressed in an unknown way
    saved(classes=np.array([1, 2])),
    saved(classes=np.array(["a", "a"])),
    saved(labels=np.array([0.0, 1, 0, 1])),
    saved(labels=np.array([0, 1, 0, 2**40])),
    saved(labels=np.array([0, 1])),
    saved(images=np.zeros((0, 8, 8, 3), np.uint8), labels=np.zeros(0, int)),
    saved(**{"x" * 10_000: np.zeros(1), "images": np.zeros(4)}),
]


@pytest.mark.parametrize("content", NPZ, ids=range(len(NPZ)))
def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "set.npz"
    file.write_bytes(content)
    refused(lambda: read_npz(file, None), file)


@pytest.mark.parametrize("content", MEMBERS, ids=range(len(MEMBERS)))
def test_an_array_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "set.npy"
    file.write_bytes(content)
    refused(lambda: load_unlabelled(str(file), image_size=8, root=tmp_path, skip_unreadable=False), file)


def pickled(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (("data.pkl", content), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"a/{name}", data)
    return file.getvalue()


SHADOWED = b"\x80\x02ccollections\nOrderedDict\n)R}(X\x03\x00\x00\x00%bK\x01ub."
HEADER = struct.pack("<Q", 2**40)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        *((".pt", pickled(SHADOWED.replace(b"%b", name))) for name in (b"get", b"pop")),
        (".pt", pickled(SHADOWED.replace(b"\x03\x00\x00\x00%b", b"\x05\x00\x00\x00items"))),
        (".pt", pickled(b"")),
        (".pt", pickled(b"\x80\x02K\x03.")),
        (".pt", pickled(b"\x80\x02" + b"](" * 50_000 + b".")),
        (".pt", b""),
        (".pth", b"PK\x03\x04"),
        (".pt", b"\x80\x02."),
        (".safetensors", b""),
        (".safetensors", HEADER),
        (".safetensors", struct.pack("<Q", 2) + b"[]"),
        (".safetensors", struct.pack("<Q", 100_000) + DEEP.encode()),
    ],
)
def test_weights_that_cannot_be_used_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    refused(lambda: load_weights(build("resnet10_cifar", 2, width=4), file, 2), file.name)
    if suffix == ".safetensors":
        refused(lambda: load_run(file), file)


def test_an_exported_file_of_hostile_metadata_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "net.safetensors"
    for metadata in ({}, {"model": DEEP}, {key: json.dumps(MODEL[key]) for key in MODEL} | {"width": '"4"'}):
        save_file({"x": torch.zeros(1)}, file, metadata)
        refused(lambda: load_run(file), file)


@pytest.mark.parametrize(
    "text",
    [
        f"SDDropout(weight=1{'0' * 400})",
        f"SDDropout(weight={'9' * 5000})",
        "SDDropout(at=b'x')",
        "SDDropout(p='x')",
        "SDDropout(p={[]: 1})",
        "SDDropout(p=1j)",
        f"SDDropout({', '.join('1' * 20)})",
        f"SDDropout(p={'(' * 5000}",
        f"SDDropout(direction='{'x' * 10**6}')",
        " + ".join(["SDDropout()"] * 1000),
        "SDDropout(\x00)",
        "CrossEntropy",
    ],
)
def test_a_hostile_method_is_refused(text: str) -> None:
    refused(lambda: parse_method(text), "")
