"""Named sets; the published ones from files in their own layout that the tests write."""

import urllib.error

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from selfdistill.data import NAMED_SETS, load_data
from selfdistill.text import join_names
from tests.published import md5, write_cifar


def test_digits():
    data = load_data("digits")
    assert (data.name, data.image_size, data.augment, data.test_split_description) == (
        "digits",
        32,
        "crop",
        "20 % held out, seed 0",
    )
    assert data.classes == tuple("0123456789")
    assert len(data.train) + len(data.test) == 1797
    shares = data.test.labels.bincount() / (data.test.labels.bincount() + data.train.labels.bincount())
    assert ((shares - 0.2).abs() < 0.005).all()
    assert data.mean[0] == data.mean[1] == data.mean[2] > 0
    small = torch.nn.functional.avg_pool2d(data.train.images.double(), 4)[:, 0]
    originals = torch.from_numpy(load_digits().images) * 255 / 16
    distance = torch.cdist(small.flatten(1), originals.flatten(1)).argmin(1)
    assert (torch.from_numpy(load_digits().target)[distance] == data.train.labels).double().mean() > 0.99


def test_digits_can_be_limited_and_resized():
    data = load_data("digits", classes=3, per_class=20, test_per_class=10, image_size=16)
    assert data.train.images.shape == (60, 3, 16, 16)
    assert data.test.labels.bincount().tolist() == [10, 10, 10]
    with pytest.raises(ValueError, match=r"^`per_class` is 500, but class '0' of digits has 142 "):
        load_data("digits", per_class=500)


@pytest.mark.parametrize(("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar_from_the_published_files(tmp_path, monkeypatch, name, kind):
    stored = write_cifar(tmp_path, kind, monkeypatch)
    data = load_data(name, root=tmp_path)
    first = stored["data_batch_1" if name == "cifar10" else "train"].reshape(-1, 3, 32, 32)
    assert torch.equal(data.train.images[: len(first)], torch.from_numpy(first))
    assert len(data.train) == (50 if name == "cifar10" else 100)
    assert len(data.classes) == len(data.test) == (10 if name == "cifar10" else 100)
    assert (data.mean, data.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert (data.augment, data.image_size, data.test_split_description) == ("crop_flip", 32, "test set")
    assert len(load_data(name, root=tmp_path, classes=2, per_class=1).train) == 2


def test_svhn_from_the_published_files(tmp_path, monkeypatch):
    from scipy.io import savemat

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    lists = {}
    for split in ("train", "test"):
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": pixels, "y": (np.arange(20) % 10 + 1)[:, None]})  # 10 stands for the digit 0
        lists[split] = ["", file.name, md5(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    data = load_data("svhn", root=tmp_path)
    assert torch.equal(data.train.images, torch.from_numpy(pixels).permute(3, 2, 0, 1))
    assert data.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] * 2
    assert (data.augment, data.classes, len(data.test)) == ("crop", tuple("0123456789"), 20)
    assert data.mean == pytest.approx((pixels / 255).mean((0, 1, 3)).tolist())


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_no_network(tmp_path, monkeypatch, name):
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(RuntimeError, match=f"{name} is not in .* and could not be downloaded") as raised:
        load_data(name, root=tmp_path)
    message = str(raised.value)
    place = {"cifar10": "cifar-10-batches-py/", "cifar100": "cifar-100-python/", "svhn": "train_32x32.mat"}[name]
    assert f"put {place}" in message
    assert "train.npz and test.npz (images uint8 (N, H, W, 3), labels" in message
    assert str(tmp_path / name) in message
    assert "\n" not in message


def test_arrays_in_the_root_go_before_a_download(tmp_path, write_arrays):
    write_arrays(tmp_path / "svhn/train.npz")
    write_arrays(tmp_path / "svhn/test.npz")
    data = load_data("svhn", root=tmp_path)
    assert (data.name, data.augment, len(data.train)) == ("svhn", "crop", 20)
    assert len(data.mean) == 3
    (tmp_path / "svhn/test.npz").unlink()
    with pytest.raises(ValueError, match=r"svhn has no test\.npz"):
        load_data("svhn", root=tmp_path)


@pytest.mark.parametrize(
    ("source", "meant"), [("cifar-100", "cifar100"), ("digit", "digits"), ("SVHN", "svhn"), ("zzzzzz", None)]
)
def test_an_unknown_set_names_the_nearest(source, meant):
    with pytest.raises(ValueError, match=f"^unknown data set {source!r}; ") as raised:
        load_data(source)
    every = f"pass {join_names(NAMED_SETS, 'or')}, or a folder, .npz or .csv file that exists"
    assert str(raised.value).endswith(every if meant is None else f"did you mean {meant!r}?")


def test_a_mistyped_path_names_the_one_beside_it(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"photo'.*did you mean '.*/photos'"):
        load_data(str(tmp_path / "photo"))
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"photo\.jpg is a file, but not \.npz, \.csv or \.parquet"):
        load_data(str(tmp_path / "photo.jpg"))
    with pytest.raises(ValueError, match=r"^`image_size` must be at least 8"):
        load_data("digits", image_size=4)
