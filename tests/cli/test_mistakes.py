"""Mistakes in what the options name: one line, status 2, and nothing is written."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.shared import PAIR, SMALL, TINY, Refused, Run


@pytest.mark.parametrize(
    ("method", "named"),
    [
        ("SDDropuot()", "'SDDropout'"),
        ("SDDropout(weigth=1)", "'weight'"),
        ("SDDropout", "'SDDropout()'"),
        ("SDDropout(p=1.0)", "SDDropout: p "),
        ("SDDropout(temperature=0)", "SDDropout: temperature "),
        ("SDDropout(weight=-1)", "SDDropout: weight "),
        ("__import__('os').remove('x')", "__import__"),
    ],
)
def test_a_wrong_method_is_refused(refused: Refused, method: str, named: str) -> None:
    assert named in refused("train", *TINY, "--method", method, "--out", "run")
    assert named in refused("compare", *TINY, "--methods", "CrossEntropy()", method, "--out", "runs")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--model resnet_10", "'resnet10_cifar'"),
        ("--model torchvision:resnet19", "'torchvision:resnet1"),
        ("--width 4 --model timm:resnet18", "--width "),
        ("--head nothing --model resnet10_cifar", "'nothing'"),
        ("--weights nothing.pt --model resnet10_cifar", "--weights 'nothing.pt'"),
        ("--data digts", "'digits'"),
        ("--per-class 1000", "--per-class is 1000"),
        ("--classes 11", "--classes is 11"),
        ("--augment resized_crop_flip --model resnet10_cifar --width 4", "--augment is 'resized_crop_flip'"),
    ],
)
def test_a_wrong_network_or_dataset_is_refused(refused: Refused, words: str, named: str) -> None:
    given = ["--data", "digits", *words.split()] if "--data" not in words else words.split()
    assert named in refused("train", *given, "--epochs", 1, "--out", "run")
    assert named in refused("compare", *given, "--epochs", 1, "--out", "runs", "--seeds", 1)


def test_folders_that_are_no_set_of_images(refused: Refused, pictures: Path) -> None:
    def told(data: str, *more: str) -> str:
        line = refused("compare", "--data", data, *SMALL, "--epochs", 1, "--out", "runs", *more)
        assert refused("train", "--data", data, *SMALL, "--epochs", 1, "--out", "run", *more) == line
        return line

    Path("empty").mkdir()
    assert told("missing").startswith("--data: unknown data set 'missing'")
    assert told("empty") == "--data: empty has no class folders: put the images of each class in a folder of its own"
    shutil.copytree(pictures / "train" / "one", Path("single/one"))
    assert told("single") == "--data: single has one class folder, 'one': at least 2 classes are needed"
    shutil.copytree(pictures / "train", Path("photos"))
    Path("photos/dog").mkdir()
    assert told("photos") == "--data: class 'dog' has no image in photos/dog: add images or remove the folder"
    Path("photos/dog").rmdir()
    whole = Path("photos/two/001.png").read_bytes()
    for damage, reason in ((whole[:60], "truncated"), (b"", "the file is empty"), (b"<html>", "not an image")):
        Path("photos/two/001.png").write_bytes(damage)
        line = told("photos")
        assert line.startswith("--data: photos/two/001.png: ")
        assert reason in line.lower()
        assert line.endswith("(1 unreadable of 24 images in photos: repair or remove it, or pass --skip-unreadable)")


def test_unreadable_files_can_be_left_out_and_are_counted(run: Run, pictures: Path) -> None:
    shutil.copytree(pictures / "train", Path("photos"))
    Path("photos/two/001.png").write_bytes(b"")
    words = ["--data", "photos", *SMALL, "--epochs", "1", "--skip-unreadable", "--out", "run"]
    status, _, err = run("train", *words)
    assert status == 0
    plan = r"photos: (\d+) training images, (\d+) test images \(about 20 % held out, by file name\), 3 classes"
    counted = re.search(plan + r" \(one, two, zero\), 32 px, 1 unreadable file left out;", err)
    assert counted is not None
    assert sum(map(int, counted.groups())) == 23
    assert json.loads(Path("run/result.json").read_text())["data"]["skipped"] == 1


def test_arrays_that_are_no_set_of_images(refused: Refused) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 4

    def told(**arrays: Any) -> str:
        np.savez("set.npz", **({"images": images, "labels": labels} | arrays))
        return refused("train", "--data", "set.npz", *SMALL, "--epochs", 1, "--out", "run")

    for changed, message in (
        ({"labels": labels - 1}, "set.npz: label -1 is out of range"),
        ({"labels": labels, "classes": np.array(["a", "b", "c"])}, "set.npz: label 3 is out of range, there are 3"),
        ({"labels": labels * 0}, "set.npz: one class only, at least 2 are needed"),
        ({"labels": labels * 2}, "set.npz: no image of class 1 although label 6 occurs"),
        ({"labels": labels[:-1]}, "set.npz: 20 images but 19 labels"),
        ({"images": images.astype(np.float32)}, "set.npz: images are float32, wanted uint8 with values 0 to 255"),
        ({"images": images.transpose(0, 3, 1, 2)}, "set.npz: images have shape (20, 3, 8, 8), wanted (N, H, W, 3)"),
        ({"images": images[0]}, "set.npz: 8 images but 20 labels"),
    ):
        assert told(**changed).startswith(f"--data: {message}")


class Bomb:
    """A pickle of this makes the file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("boom").absolute(),)


def test_a_pickle_is_never_run(refused: Refused) -> None:
    torch.save({"fc.weight": Bomb()}, "bomb.pt")
    np.savez("bomb.npz", images=np.array([Bomb()] * 4, dtype=object), labels=np.arange(4) % 2)
    words = ["--epochs", "1", "--out", "run"]
    line = refused("train", *TINY, *words, "--weights", "bomb.pt")
    assert line.startswith("--weights 'bomb.pt' hold more than tensors, or are damaged (nothing in them was run)")
    line = refused("train", "--data", "bomb.npz", *SMALL, *words)
    assert line.startswith("--data: bomb.npz: holds pickled objects, which are never loaded")
    assert not Path("boom").exists()
    torch.load("bomb.pt", weights_only=False)  # what the files would have done
    assert Path("boom").exists()


def test_weights_of_another_network(refused: Refused, finished: Path) -> None:
    wide = ["--model", "resnet10_cifar", "--width", "8", "--epochs", "1", "--out", "run"]
    line = refused("train", *TINY[:6], *wide, "--weights", finished / "model.safetensors")
    assert line.startswith(f"--weights '{finished / 'model.safetensors'}' do not fit this model; of another shape: ")
    assert line.endswith("build the model they were saved from")


def test_a_folder_of_another_recipe_is_left_as_it_is(refused: Refused, run: Run) -> None:
    assert run("compare", *TINY, *PAIR, "--seeds", 1, "--epochs", 1, "--quick", "--out", "runs").status == 0
    end = "choose another --out, or delete it"
    again = ["--seeds", 1, "--quick", "--out", "runs"]
    line = refused("compare", *TINY, *PAIR, *again, "--epochs", 2)
    assert line == f"runs/crossentropy-seed0 belongs to another recipe: epochs (1 there, 2 here); {end}"
    line = refused("compare", *TINY, "--methods", "SDDropout()", *again, "--momentum", 0.5)
    assert line == f"runs/sddropout-seed0 belongs to another recipe: momentum (0.9 there, 0.5 here); {end}"
    line = refused("train", *TINY, "--epochs", 1, "--out", "runs/sddropout-seed0", "--method", "Dropout(p=0.2)")
    there = "runs/sddropout-seed0 belongs to another recipe: method"
    assert line == f"{there} ('SDDropout()' there, 'Dropout(p=0.2)' here); {end}"


def test_a_file_where_a_folder_should_be(refused: Refused) -> None:
    Path("taken").write_text("mine")
    told = "taken is a file, not a folder: choose another --out"
    assert refused("train", *TINY, "--epochs", 1, "--out", "taken") == told
    assert refused("compare", *TINY, "--epochs", 1, "--out", "taken") == told
    assert refused("compare", *TINY, "--epochs", 1, "--out", "taken/runs").endswith(told)
    line = refused("train", *TINY, "--epochs", 1, "--out", "taken/run")
    assert line == "the run folder taken/run cannot be made: Not a directory; choose another --out"


def test_unknown_images_that_cannot_be_used(refused: Refused, finished: Path) -> None:
    Path("empty").mkdir()
    np.save("large.npy", np.zeros((4, 40, 40, 3), dtype=np.uint8))
    for words, told in (
        (["--ood", "empty"], "empty"),
        (["--ood", "large.npy"], "40 x 40"),
        (["--ood", "photograph"], "photographs"),
        (["--ood", "photographs", "photographs"], "--ood"),
        (["--corruptions", "nowhere"], "nowhere: no such folder"),
    ):
        assert told in refused("evaluate", finished, *words)


def test_grad_cam_without_a_report_or_a_map(refused: Refused, finished: Path) -> None:
    for words, told in (
        (["--grad-cam", "--quick"], "--quick"),
        (["--grad-cam", "--data", "digits"], "--data"),
        (["--grad-cam", "no_layer"], "no_layer"),
        (["--grad-cam", "fc"], "fc gives no map"),
        (["--grad-cam="], "empty"),
    ):
        line = refused("evaluate", finished, *words)
        assert line.startswith("--grad-cam")
        assert told in line
