import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfdistill.data import TrainLoader, load_data
from selfdistill.method import Needs


class Bomb:
    """Running it leaves a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_two_files(tmp_path, write_arrays):
    write_arrays(tmp_path / "train.npz", classes=np.array(["ant", "bee", "cow", "dog"]))
    write_arrays(tmp_path / "test.npz", 8)
    data = load_data(str(tmp_path))
    stored = np.load(tmp_path / "train.npz")["images"]
    assert torch.equal(data.train.images, torch.from_numpy(stored).permute(0, 3, 1, 2))
    assert data.train.images.is_contiguous()
    assert data.train.labels.dtype == torch.int64
    assert (data.classes, data.test_split_description, data.image_size) == (
        ("ant", "bee", "cow", "dog"),
        "test.npz",
        32,
    )
    assert (len(data.test), data.augment, data.name) == (8, "crop_flip", tmp_path.name)
    assert data.mean == pytest.approx((stored / 255).mean((0, 1, 2)).tolist())
    assert data.std == pytest.approx((stored / 255).std((0, 1, 2)).tolist())
    (tmp_path / "test.npz").rename(tmp_path / "val.npz")
    assert load_data(str(tmp_path)).test_split_description == "val.npz"


def test_one_file_is_split(tmp_path, write_arrays):
    data = load_data(str(write_arrays(tmp_path / "birds.v2.npz", 400)))
    assert data.name == "birds.v2"
    counts = data.test.labels.bincount()
    assert (data.train.labels.bincount() + counts).tolist() == [100] * 4
    assert all(8 <= count <= 32 for count in counts.tolist()), "4 sd: 4"
    assert data.classes == ("0", "1", "2", "3")
    assert data.test_split_description == "about 20 % held out, by content"


@pytest.mark.parametrize("shape", [(20, 32, 32), (20, 32, 32, 1)])
def test_grey_becomes_rgb(tmp_path, write_arrays, shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = load_data(str(write_arrays(tmp_path / "a.npz", images=grey)))
    assert data.train.images.shape == (16, 3, 32, 32)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


@pytest.mark.parametrize(
    ("shape", "image_size", "expected"),
    [((28, 28), None, 32), ((96, 96), None, 96), ((20, 48), None, 48), ((96, 64), 40, 40)],
)
def test_sizes(tmp_path, write_arrays, shape, image_size, expected):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape, 3), dtype=np.uint8)
    write_arrays(tmp_path / "train.npz", images=images)
    write_arrays(tmp_path / "test.npz", 8)  # 32 x 32: brought to the training images' size
    data = load_data(str(tmp_path), image_size=image_size)
    assert data.image_size == expected
    assert data.test.images.shape[1:] == (3, expected, expected)
    if shape != (expected, expected):
        exact = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        exact = F.interpolate(exact, (expected, expected), mode="bilinear", antialias=True)
        assert (data.train.images - exact).abs().max() <= 1.01
    else:
        assert torch.equal(data.train.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    ((batch,),) = TrainLoader(data, Needs(), batch_size=20, seed=0, device="cpu").epoch(0)
    assert batch.x.shape == (20, 3, expected, expected)


def test_draws_are_nested_and_independent_of_the_order_asked(tmp_path, write_arrays):
    images = np.zeros((80, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(80)
    file = str(write_arrays(tmp_path / "a.npz", 80, images=images))

    def drawn(**limits: int) -> set[int]:
        return set(load_data(file, **limits).train.images[:, 0, 0, 0].tolist())

    three, ten, every = drawn(per_class=3), drawn(per_class=10), drawn()
    assert (len(three), len(ten)) == (12, 40)
    assert three < ten < every
    assert drawn(per_class=3, classes=2) < three


LABELS = np.arange(20) % 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": None}, r"no array 'images', it has \['labels'\]; wanted: images uint8 \(N, H, W, 3\), labels"),
        ({"labels": None}, r"no array 'labels', it has \['images'\]; wanted"),
        ({"images": np.zeros((20, 32, 32, 3), np.float32)}, "images are float32, wanted uint8 with values 0 to 255"),
        (
            {"images": np.zeros((20, 32, 32, 4), np.uint8)},
            r"images have shape \(20, 32, 32, 4\), wanted \(N, H, W, 3\)",
        ),
        ({"images": np.zeros((20, 3, 32, 32), np.uint8)}, r"shape \(20, 3, 32, 32\), .*; transpose \(0, 2, 3, 1\)"),
        ({"images": np.zeros((20, 32), np.uint8)}, r"images have shape \(20, 32\), wanted"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8), "labels": LABELS[:0]}, r"images have shape \(0, 32, 32, 3\)"),
        ({"labels": LABELS.astype(np.float64)}, r"labels are float64 of shape \(20,\), wanted integers \(N,\)"),
        ({"labels": LABELS[:, None]}, r"labels are int64 of shape \(20, 1\), wanted integers \(N,\)"),
        ({"labels": LABELS[:19]}, "20 images but 19 labels"),
        ({"labels": LABELS - 1}, "label -1 is out of range, wanted 0 to the number of classes - 1"),
        ({"labels": LABELS.astype(np.uint64) + np.uint64(2**63)}, r"label 9223372036854775\d+ is out of range"),
        (
            {"labels": LABELS * 2},
            "no image of class 1 although label 6 occurs; wanted labels 0 to the number of classes",
        ),
        ({"labels": LABELS + 2_000_000_000}, "no image of class 0 although label 2000000003 occurs"),
        ({"labels": LABELS * 0}, "one class only, at least 2 are needed"),
        ({"classes": np.array(["a", "b", "c"])}, "label 3 is out of range, there are 3 classes"),
        ({"classes": np.array(list("abcde"))}, "class 'e' has no image"),
        ({"classes": np.array(list("abca"))}, "the names in classes are not all different"),
        ({"classes": np.arange(4)}, r"classes are int64 of shape \(4,\), wanted text \(C,\)"),
    ],
)
@pytest.mark.parametrize("one_file", [True, False])
def test_bad_arrays(tmp_path, write_arrays, changed, message, one_file):
    file = write_arrays(tmp_path / "train.npz", **changed)
    write_arrays(tmp_path / "test.npz")
    with pytest.raises(ValueError, match=message) as raised:
        load_data(str(file if one_file else tmp_path))
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_test_label_out_of_range_and_other_classes(tmp_path, write_arrays):
    write_arrays(tmp_path / "train.npz", classes=np.array(list("abcd")))
    write_arrays(tmp_path / "test.npz", labels=LABELS + 1)
    with pytest.raises(ValueError, match=r"test\.npz: label 4 is out of range, there are 4 classes"):
        load_data(str(tmp_path))
    write_arrays(tmp_path / "test.npz", classes=np.array(list("abdc")))
    with pytest.raises(ValueError, match=r"test\.npz: its classes differ from those of .*train\.npz"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("key", ["images", "labels", "classes"])
def test_a_pickle_inside_never_runs(tmp_path, write_arrays, key):
    trace = tmp_path / "ran"
    bomb = np.empty(20, dtype=object)
    bomb[:] = [Bomb(trace)] * 20
    file = write_arrays(tmp_path / "a.npz", **{key: bomb})
    with pytest.raises(
        ValueError, match=r"a\.npz: holds pickled objects, which are never loaded; wanted: images uint8"
    ):
        load_data(str(file))
    assert not trace.exists()
    np.load(file, allow_pickle=True)[key]
    assert trace.exists()  # the bomb works, so the test can fail


def test_files_that_are_no_archive(tmp_path, write_arrays):
    file, trace = tmp_path / "a.npz", tmp_path / "ran"
    bare = io.BytesIO()
    np.save(bare, LABELS)
    for content in (b"", b"text", pickle.dumps(Bomb(trace)), bare.getvalue()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz: not an \.npz file; wanted"):
            load_data(str(file))
    assert not trace.exists()
    whole = write_arrays(file).read_bytes()
    file.write_bytes(whole[:3000] + bytes(100) + whole[3100:])
    with pytest.raises(ValueError, match=r"a\.npz: a damaged \.npz file \(Bad CRC-32"):
        load_data(str(file))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", b"no array")
    with pytest.raises(ValueError, match=r"a\.npz: no array 'images', it has \['images'\]"):
        load_data(str(file))


def test_half_a_pair_of_files(tmp_path, write_arrays):
    write_arrays(tmp_path / "train.npz")
    with pytest.raises(
        ValueError, match=r"has no test\.npz \(or val\.npz\): add it, or pass one \.npz file to hold out"
    ):
        load_data(str(tmp_path))
    (tmp_path / "train.npz").rename(tmp_path / "test.npz")
    with pytest.raises(ValueError, match=r"has no train\.npz: add it"):
        load_data(str(tmp_path))
