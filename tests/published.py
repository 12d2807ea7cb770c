"""The paper's data sets as their publishers lay them out, in small: trees and archives' files that the tests write."""

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from tests.data.conftest import noise

SPECIES = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross", 10: "010.Red_winged_Blackbird"}
BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02095314-wire-haired_fox_terrier")
WNIDS = ("n01440764", "n02012849", "n03126707")
WORDS = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane", "derrick")}
VALIDATION = ("n03126707", "n01440764", "n02012849", "n01440764", "n03126707", "n02012849")


def write_photo(file: Path, seed: int, size: tuple[int, int] = (90, 70)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, size[1], size[0], 3)).save(file, "JPEG")


# CUB-200-2011


def write_cub(root: Path, species: Mapping[int, str] = SPECIES, *, train: int = 3, test: int = 2) -> Path:
    """So many images of each species for training, and the last for testing; the lists in no order."""
    folder = root / "CUB_200_2011"
    images, labels, parts = [], [], []
    for number_of, name in species.items():
        for nth in range(train + test):
            number = 10 * number_of + nth
            file = f"{name}/{name[4:]}_{nth:04}_{796000 + number}.jpg"
            write_photo(folder / "images" / file, number)
            images.append(f"{number} {file}")
            labels.append(f"{number} {number_of}")
            parts.append(f"{number} {int(nth < train)}")
    lists = {"images": images, "image_class_labels": labels[::-1], "train_test_split": parts[5:] + parts[:5]}
    for name, lines in (lists | {"classes": [f"{number} {name}" for number, name in species.items()]}).items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


# Stanford Dogs


def box_of(breed: int, nth: int) -> tuple[int, int, int, int]:
    return (3 + nth, 5 * (breed % 3), 60 + 2 * nth, 50 + breed % 3)


def write_dogs(
    root: Path, lists: str = "lists", breeds: Sequence[str] = BREEDS, *, train: int = 3, test: int = 2
) -> Path:
    """So many images of each breed for training, and the last for testing; each image has two dogs."""
    home = root / "dogs"
    listed: dict[str, list[str]] = {"train": [], "test": []}
    labels: dict[str, list[list[int]]] = {"train": [], "test": []}
    for breed, name in enumerate(breeds):
        for nth in range(train + test):
            file = f"{name}/{name[:9]}_{100 * breed + nth}"
            write_photo(home / "Images" / f"{file}.jpg", 100 * breed + nth)
            (home / "Annotation" / name).mkdir(parents=True, exist_ok=True)
            (home / "Annotation" / file).write_text(annotation(box_of(breed, nth), (0, 0, 9, 9)))
            part = "train" if nth < train else "test"
            listed[part].append(f"{file}.jpg")
            labels[part].append([breed + 1])
    for part, files in listed.items():
        (home / lists).mkdir(exist_ok=True)
        cells = np.empty((len(files), 1), dtype=object)
        cells[:, 0] = files[::-1]
        numbers = np.array(labels[part][::-1], dtype=np.uint8)
        savemat(home / lists / f"{part}_list.mat", {"file_list": cells, "labels": numbers})
    return home


def annotation(*boxes: tuple[int, int, int, int]) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "\t<object>\n\t\t<name>dog</name>\n\t\t<bndbox>\n"
        + "".join(f"\t\t\t<{side}>{value}</{side}>\n" for side, value in zip(sides, box, strict=True))
        + "\t\t</bndbox>\n\t</object>\n"
        for box in boxes
    )
    size = "\t<size><width>90</width><height>70</height><depth>3</depth></size>\n"
    return f"<annotation>\n\t<folder>02085620</folder>\n{size}\t<segment>0</segment>\n{objects}</annotation>\n"


# ImageNet


def write_imagenet(
    root: Path,
    *,
    flat: bool = False,
    knows: str = "",
    wnids: Sequence[str] = WNIDS,
    train: int = 4,
    validation: Sequence[str] = VALIDATION,
) -> Path:
    """So many training images of each class, and validation images of these; and torchvision's meta.bin or the kit."""
    home = root / "imagenet"
    for at, wnid in enumerate(wnids):
        for nth in range(train):
            write_photo(home / "train" / wnid / f"{wnid}_{nth}.JPEG", 10 * at + nth)
    for number, wnid in enumerate(validation, start=1):
        write_photo(home / "val" / ("" if flat else wnid) / f"ILSVRC2012_val_{number:08}.JPEG", 100 + number)
    if knows == "meta.bin":
        torch.save((WORDS, list(validation)), home / "meta.bin")
    if knows == "devkit":
        write_devkit(home / "ILSVRC2012_devkit_t12" / "data")
    return home


def write_devkit(folder: Path) -> None:
    """The kit's numbers are in no order of the ids; the last synset is a parent, and no class."""
    folder.mkdir(parents=True)
    fields = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    numbers = {"n03126707": 1, "n01440764": 2, "n02012849": 3}
    rows = [(number, wnid, ", ".join(WORDS[wnid]), "a gloss", 0) for wnid, number in numbers.items()]
    synsets = np.array([*rows, (4, "n00001740", "entity", "a gloss", 3)], dtype=fields)
    savemat(folder / "meta.mat", {"synsets": synsets[:, None]})
    lines = "".join(f"{numbers[wnid]}\n" for wnid in VALIDATION)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


# CIFAR


def write_cifar(root: Path, kind: Any, monkeypatch: pytest.MonkeyPatch, *, each: int = 1) -> dict[str, np.ndarray]:
    """The archives' files, unpacked, with so many images of each class in each; the checksums are theirs.

    Args:
        root: where they go.
        kind: torchvision's class.
        monkeypatch: has that class expect these files.
        each: images of each class in each file.
    """
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    classes, key = (100, "fine_labels") if kind.__name__ == "CIFAR100" else (10, "labels")
    stored = {}
    for listed in ("train_list", "test_list"):
        files = []
        for number, (name, _) in enumerate(getattr(kind, listed)):
            data = np.random.default_rng(number).integers(0, 256, (each * classes, 3072), dtype=np.uint8)
            (folder / name).write_bytes(pickle.dumps({"data": data, key: list(range(classes)) * each}))
            stored[name] = data
            files.append([name, md5(folder / name)])
        monkeypatch.setattr(kind, listed, files)
    names = [f"class {number}" for number in range(classes)]
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(meta)})
    return stored


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()
