"""The paper's sets of photographs, from trees in their published layouts that these tests write."""

import shutil
import tarfile
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, Split, TrainLoader, eval_batches, load_data
from selfdistill.data.decode import UnreadableImageError, read_rgb, scan
from selfdistill.data.folders import IMAGENET_MEAN, IMAGENET_STD
from selfdistill.data.named import cub200 as cub200_module
from selfdistill.data.named import dogs as dogs_module
from selfdistill.method import Needs
from selfdistill.models import build
from selfdistill.records import Data
from selfdistill.runs.external import load_external
from selfdistill.training import train
from tests.data.conftest import noise
from tests.published import (
    BREEDS,
    SPECIES,
    VALIDATION,
    WNIDS,
    annotation,
    box_of,
    md5,
    write_cub,
    write_dogs,
    write_imagenet,
    write_photo,
)

SET = {"cub200": "CUB_200_2011", "dogs": "dogs", "dogs_full": "dogs", "imagenet": "imagenet"}
WRITE: dict[str, Callable[[Path], Path]] = {
    "cub200": write_cub,
    "dogs": write_dogs,
    "dogs_full": write_dogs,
    "imagenet": write_imagenet,
}


def fails(name: str, root: Path, error: type[Exception] = ValueError, **settings: int) -> str:
    with pytest.raises(error) as raised:
        load_data(name, root=root, **settings)  # type: ignore[arg-type]
    message = str(raised.value)
    assert "\n" not in message
    return message


def files(split: Split) -> list[str]:
    assert split.paths is not None
    return [path.name for path in split.paths]


# All of them


@pytest.mark.parametrize("name", WRITE)
def test_a_batch_of_each_at_the_paper_s_size(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    data = load_data(name, root=tmp_path)
    assert (data.name, data.image_size, data.augment) == (name, 224, "resized_crop_flip")
    assert (data.mean, data.std, data.test_split_description, data.skipped) == (
        IMAGENET_MEAN,
        IMAGENET_STD,
        "test set",
        (),
    )
    assert data.train.images is None
    loader = TrainLoader(data, Needs(views=2, pair="other"), batch_size=4, seed=0, device="cpu", workers=0)
    (batch,) = next(loader.epoch(0))
    assert isinstance(batch.x, Tensor)
    assert batch.pair is not None
    assert batch.x.shape == batch.views[0].shape == batch.pair.shape == (4, 3, 224, 224)
    assert batch.y.shape == (4,)
    assert not torch.equal(batch.x, batch.views[0])
    x, y = next(eval_batches(data.test, data, batch_size=99, device="cpu", workers=0))
    assert x.shape == (len(data.test), 3, 224, 224)
    assert torch.equal(y, data.test.labels)


@pytest.mark.parametrize("name", WRITE)
def test_parts_of_each(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    whole = load_data(name, root=tmp_path)
    part = load_data(name, root=tmp_path, classes=2, per_class=2, test_per_class=1, image_size=96)
    assert part.classes == whole.classes[:2]
    assert (part.train.labels.bincount().tolist(), part.test.labels.bincount().tolist()) == ([2, 2], [1, 1])
    assert part.image_size == 96
    assert part.train.paths is not None
    assert whole.train.paths is not None
    assert set(part.train.paths) < set(whole.train.paths)
    assert f"`classes` is 9, but {'' if name == 'imagenet' else name}" in fails(name, tmp_path, classes=9)
    assert "`per_class` is 9, but class" in fails(name, tmp_path, per_class=9)


@pytest.mark.parametrize("name", WRITE)
def test_files_are_opened_while_training_alone(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    whole = load_data(name, root=tmp_path)
    assert whole.train.paths is not None
    assert whole.test.paths is not None
    damaged = (whole.train.paths[1], whole.test.paths[0])
    for file in damaged:
        file.write_bytes(file.read_bytes()[:300])
    data = load_data(name, root=tmp_path)
    loader = TrainLoader(data, Needs(), batch_size=4, seed=0, device="cpu", workers=0)
    with pytest.raises(RuntimeError, match="repair or replace it, or pass `skip_unreadable=True`") as raised:
        list(loader.epoch(0))
    assert str(damaged[0]) in str(raised.value)
    without = load_data(name, root=tmp_path, skip_unreadable=True)
    assert without.skipped == damaged
    keep = torch.arange(len(whole.train)) != 1
    assert torch.equal(without.train.labels, whole.train.labels[keep])
    assert without.test.paths == whole.test.paths[1:]
    if whole.train.boxes is not None:
        assert without.train.boxes is not None
        assert torch.equal(without.train.boxes, whole.train.boxes[keep])


@pytest.mark.parametrize("name", WRITE)
def test_small_images_are_squares_in_memory(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    whole, small = load_data(name, root=tmp_path), load_data(name, root=tmp_path, image_size=40)
    assert small.train.images is not None
    assert whole.train.paths is not None
    assert (small.augment, small.image_size, small.mean) == ("crop_flip", 40, IMAGENET_MEAN)
    assert torch.equal(small.train.labels, whole.train.labels)
    for at, path in enumerate(whole.train.paths):
        picture = Image.open(path)
        if whole.train.boxes is not None:
            picture = picture.crop(tuple(whole.train.boxes[at].tolist()))
        square = np.asarray(picture.resize((40, 40), Image.Resampling.BILINEAR))
        assert np.array_equal(small.train.images[at].permute(1, 2, 0).numpy(), square)
    damaged = whole.train.paths[2]
    damaged.write_bytes(b"no image")
    message = fails(name, tmp_path, image_size=40)
    assert message.startswith(f"{damaged}: not an image")
    assert f"(1 unreadable of {len(whole.train)} images of {name}: repair or replace it, or pass" in message


@pytest.mark.parametrize("name", WRITE)
def test_a_class_without_an_image(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    whole = load_data(name, root=tmp_path)
    assert whole.test.paths is not None
    for path, label in zip(whole.test.paths, whole.test.labels.tolist(), strict=True):
        if label == 2:
            path.write_bytes(b"")
    message = fails(name, tmp_path, skip_unreadable=True)
    assert message == f"class {whole.classes[2]!r} of {name} has no test image"


@pytest.mark.parametrize("name", ["cub200", "dogs", "dogs_full"])
def test_listed_files_that_are_missing(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    split = load_data(name, root=tmp_path).train
    assert split.paths is not None
    for path in split.paths[1:3]:
        path.unlink()
    listed = {"cub200": (15, "CUB_200_2011/images.txt")}.get(name, (9, "dogs/lists/train_list.mat"))
    assert fails(name, tmp_path) == (
        f"{tmp_path / listed[1]} lists {listed[0]} files, of which 2 are missing, such as {split.paths[1]}: unpack the "
        "archive again"
    )
    shutil.rmtree(split.paths[0].parents[1])
    split.paths[0].parents[1].mkdir()
    assert f"lists {listed[0]} files, of which {listed[0]} are missing" in fails(name, tmp_path)


# CUB-200-2011


@pytest.mark.parametrize("folder", ["CUB_200_2011", "cub200"])
def test_cub_s_own_split(tmp_path: Path, folder: str) -> None:
    write_cub(tmp_path).rename(tmp_path / folder)
    data = load_data("cub200", root=tmp_path)
    assert data.classes == ("Black_footed_Albatross", "Laysan_Albatross", "Red_winged_Blackbird")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    wanted = [f"Laysan_Albatross_{nth:04}_{796020 + nth}.jpg" for nth in range(5)]
    assert files(data.train)[3:6] == wanted[:3]
    assert files(data.test)[2:4] == wanted[3:]
    assert data.train.boxes is None
    assert data.train.paths is not None
    assert data.train.paths[0].parent == tmp_path / folder / "images" / SPECIES[1]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("classes.txt", None, "classes.txt cannot be read (No such file or directory): unpack the archive again"),
        ("images.txt", lambda text: "nothing\n" + text, "images.txt, line 1: 'nothing' is not a number"),
        ("images.txt", lambda text: text + "\n99\n", "images.txt, line 17: '99' is not a number"),
        ("train_test_split.txt", lambda text: text.replace("13 0\n", "").replace("14 0\n", ""), (
            "train_test_split.txt has no line for image 13 (2 of 15 are missing): unpack the archive again"
        )),
        ("train_test_split.txt", lambda text: text.replace("13 0", "13 2"), (
            "train_test_split.txt: image 13 has '2', wanted 0 (test) or 1 (training)"
        )),
        ("image_class_labels.txt", lambda text: text.replace("13 1\n", "13 3\n"), (
            "image_class_labels.txt: image 13 has '3', wanted a class of classes.txt"
        )),
        ("classes.txt", lambda text: text + "11 011.Rusty_Blackbird\n", (
            "class 'Rusty_Blackbird' of cub200 has no training image"
        )),
    ],
)  # fmt: skip
def test_cub_s_mistakes(tmp_path: Path, file: str, change: Callable[[str], str] | None, message: str) -> None:
    listed = write_cub(tmp_path) / file
    if change is None:
        listed.unlink()
    else:
        listed.write_text(change(listed.read_text()))
    assert message in fails("cub200", tmp_path)


# Stanford Dogs


@pytest.mark.parametrize("lists", ["lists", "."])
@pytest.mark.parametrize("name", ["dogs", "dogs_full"])
def test_the_dogs_own_split_and_first_boxes(tmp_path: Path, name: str, lists: str) -> None:
    write_dogs(tmp_path, lists)
    data = load_data(name, root=tmp_path)
    assert data.classes == ("Chihuahua", "Japanese_spaniel", "wire-haired_fox_terrier")
    for split, nths in ((data.train, (2, 1, 0)), (data.test, (4, 3))):
        order = [(breed, nth) for breed in (2, 1, 0) for nth in nths]
        assert split.labels.tolist() == [breed for breed, _ in order]
        assert files(split) == [f"{BREEDS[breed][:9]}_{100 * breed + nth}.jpg" for breed, nth in order]
        if name == "dogs":
            assert split.boxes is not None
            assert split.boxes.tolist() == [list(box_of(breed, nth)) for breed, nth in order]
        else:
            assert split.boxes is None


def test_a_part_keeps_its_boxes(tmp_path: Path) -> None:
    write_dogs(tmp_path)
    data = load_data("dogs", root=tmp_path, per_class=1)
    assert data.train.boxes is not None
    for file, box in zip(files(data.train), data.train.boxes.tolist(), strict=True):
        breed, nth = divmod(int(file.partition("_")[2].removesuffix(".jpg")), 100)
        assert tuple(box) == box_of(breed, nth)


def test_dogs_are_cut_to_their_boxes_to_the_pixel(tmp_path: Path) -> None:
    write_dogs(tmp_path)
    data = load_data("dogs", root=tmp_path, image_size=70)
    split = data.train
    assert split.paths is not None
    assert split.boxes is not None
    x, _ = next(eval_batches(split, data, batch_size=9, device="cpu", workers=0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    for path, (left, top, right, bottom), image in zip(split.paths, split.boxes.tolist(), x, strict=True):
        cut = np.asarray(Image.open(path))[top:bottom, left:right]
        assert np.array_equal(np.asarray(read_rgb(path, (left, top, right, bottom))), cut)
        height, width = cut.shape[:2]  # the shorter side to 70 * 256 / 224 = 80 pixels, then the central 70
        scale = 80 / min(height, width)
        scaled = Image.fromarray(cut).resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        corner = round((scaled.width - 70) / 2), round((scaled.height - 70) / 2)
        square = np.asarray(scaled)[corner[1] : corner[1] + 70, corner[0] : corner[0] + 70]
        expected = (torch.from_numpy(square.copy()).permute(2, 0, 1) / 255 - mean) / std
        torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)
    whole = load_data("dogs_full", root=tmp_path, image_size=70)
    other, _ = next(eval_batches(whole.train, whole, batch_size=9, device="cpu", workers=0))
    assert (x != other).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    ("name", "augment", "workers"),
    [
        *((name, augment, 0) for name in ("dogs", "dogs_full") for augment in ("resized_crop_flip", "none")),
        ("dogs", "resized_crop_flip", 1),
    ],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_training_sees_the_box_alone(tmp_path: Path, name: str, augment: str, workers: int) -> None:
    home = write_dogs(tmp_path)
    for file in sorted((home / "Images").rglob("*.jpg")):  # green in the box, red around it
        left, top, right, bottom = box_of(*divmod(int(file.stem.partition("_")[2]), 100))
        pixels = np.zeros((70, 90, 3), dtype=np.uint8)
        pixels[..., 0] = 255
        pixels[top:bottom, left:right] = (0, 255, 0)
        Image.fromarray(pixels).save(file, "PNG")  # one of the published files is a PNG too
    data = replace(load_data(name, root=tmp_path), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    loader = TrainLoader(data, Needs(), batch_size=9, seed=0, device="cpu", workers=workers, augment=augment)
    ((batch,),) = loader.epoch(0)
    assert isinstance(batch.x, Tensor)
    assert bool((batch.x[:, 0] == 0).all()) is (name == "dogs")


def test_a_box_is_of_the_picture_as_it_is_stored(tmp_path: Path) -> None:
    pixels = noise(0, 70, 90, 3)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "dog.png", exif=turned)
    seen = np.asarray(read_rgb(tmp_path / "dog.png", (10, 20, 50, 40)))
    assert np.array_equal(seen, np.rot90(pixels[20:40, 10:50], -1))
    assert np.array_equal(np.asarray(read_rgb(tmp_path / "dog.png")), np.rot90(pixels, -1))


def test_what_of_a_box_lies_beyond_the_picture_is_left_out(tmp_path: Path) -> None:
    pixels = noise(0, 70, 90, 3)
    Image.fromarray(pixels).save(tmp_path / "dog.png")
    seen = np.asarray(read_rgb(tmp_path / "dog.png", (-5, 30, 40, 99)))
    assert np.array_equal(seen, pixels[30:70, 0:40])
    for box in ((90, 0, 99, 9), (5, 5, 5, 9), (9, 9, 4, 20)):
        with pytest.raises(UnreadableImageError) as raised:
            read_rgb(tmp_path / "dog.png", box)
        wanted = f"{tmp_path / 'dog.png'}: nothing of its 90 x 70 pixels lies in the box {box}"
        assert str(raised.value) == wanted
    found = scan([tmp_path / "dog.png"] * 2, None, torch.tensor([[0, 0, 30, 20], [90, 0, 99, 9]]))
    assert (found.sizes, found.reasons) == (
        (30, None),
        {1: f"{tmp_path}/dog.png: nothing of its 90 x 70 pixels lies in the box (90, 0, 99, 9)"},
    )


def test_boxes_belong_to_paths() -> None:
    labels, boxes = torch.zeros(2, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.int32)
    for given in (
        {"images": torch.zeros(2, 3, 4, 4), "boxes": boxes},
        {"paths": (Path("a"), Path("b")), "boxes": boxes[:1]},
        {"paths": (Path("a"), Path("b")), "boxes": boxes[:, :2]},
    ):
        with pytest.raises(ValueError, match=r"boxes are \(N, 4\) and belong to paths"):
            Split(labels, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "lists/test_list.mat",
            None,
            "lists/test_list.mat is not a list of files (No such file or directory): unpack lists",
        ),
        ("lists/test_list.mat", "no list", "lists/test_list.mat is not a list of files ("),
        (f"Annotation/{BREEDS[1]}/n02085782_101", None, "n02085782_101 gives no box (No such file or directory): "),
        (f"Annotation/{BREEDS[1]}/n02085782_101", "<annotation>", "n02085782_101 gives no box (no element found"),
        (f"Annotation/{BREEDS[1]}/n02085782_101", annotation(), "or take dogs_full"),
    ],
)
def test_the_dogs_mistakes(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    changed = write_dogs(tmp_path) / file
    changed.unlink()
    if content is not None:
        changed.write_text(content)
    assert message in fails("dogs", tmp_path)
    if file.startswith("Annotation"):
        assert len(load_data("dogs_full", root=tmp_path).train) == 9


def test_a_run_on_cut_images(tmp_path: Path) -> None:
    write_dogs(tmp_path)
    recipe = TrainConfig(
        data="dogs",
        data_root=str(tmp_path),
        image_size=72,
        model="resnet10_cifar",
        width=4,
        epochs=1,
        workers=0,
        threads=1,
    )
    record = train(recipe, tmp_path / "run")
    assert msgspec.structs.replace(record.data, fingerprint=None) == Data(
        name="dogs", classes=3, train_n=9, test_n=6, test_split_description="test set", skipped=0
    )
    assert record.data.fingerprint == load_data("dogs", root=tmp_path, image_size=72).fingerprint


def test_a_network_measured_on_cut_images_says_so(tmp_path: Path) -> None:
    write_dogs(tmp_path)
    torch.save(build("resnet18_byot224", 3, width=4).state_dict(), tmp_path / "net.pt")
    foreign = load_external("resnet18_byot224", tmp_path / "net.pt", "dogs", data_root=tmp_path, width=4)
    assert foreign.prepared == (
        "cut to their boxes, shorter side to 256 px, central square of 224 px, bilinear; normalised by the mean and "
        "deviation of dogs"
    )


# ImageNet


@pytest.mark.parametrize("knows", ["", "meta.bin", "devkit"])
@pytest.mark.parametrize("flat", [False, True])
def test_imagenet_s_layouts(tmp_path: Path, knows: str, flat: bool) -> None:
    home = write_imagenet(tmp_path, flat=flat, knows=knows)
    if flat and not knows:
        assert fails("imagenet", tmp_path) == (
            f"{home}/val has no class folders: put torchvision's meta.bin, or the folder ILSVRC2012_devkit_t12 "
            f"(unpacked), into {home}, or move the images to {home}/val/<wnid>/"
        )
        return
    data = load_data("imagenet", root=tmp_path)
    readable = ("tench", "crane (n02012849)", "crane (n03126707)")
    assert data.classes == (readable if knows else WNIDS)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert files(data.train) == [f"{wnid}_{nth}.JPEG" for wnid in WNIDS for nth in range(4)]
    seen = dict(zip(files(data.test), data.test.labels.tolist(), strict=True))
    assert seen == {
        f"ILSVRC2012_val_{number:08}.JPEG": WNIDS.index(wnid) for number, wnid in enumerate(VALIDATION, start=1)
    }


def test_imagenet_against_torchvision(tmp_path: Path) -> None:
    home = write_imagenet(tmp_path, knows="meta.bin")
    data = load_data("imagenet", root=tmp_path)
    for part, split in (("train", data.train), ("val", data.test)):
        reference = datasets.ImageNet(home, split=part)
        assert split.paths is not None
        ours = list(zip(map(str, split.paths), split.labels.tolist(), strict=True))
        assert ours == reference.samples
        assert [name.partition(" (")[0] for name in data.classes] == [first for first, *_ in reference.classes]


def test_imagenet_of_some_classes(tmp_path: Path) -> None:
    home = write_imagenet(tmp_path, flat=True, knows="meta.bin")
    data = load_data("imagenet", root=tmp_path, classes=2)
    assert data.classes == ("tench", "crane (n02012849)")  # as it is called among all of them
    assert files(data.test) == [f"ILSVRC2012_val_{number:08}.JPEG" for number in (2, 3, 4, 6)]
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    shutil.rmtree(home / "train" / WNIDS[2])  # a tree of fewer classes than the validation images are of
    assert len(load_data("imagenet", root=tmp_path).test) == 4


def test_other_files_beside_imagenet_s(tmp_path: Path) -> None:
    home = write_imagenet(tmp_path)
    (home / "train" / WNIDS[0] / "notes.txt").write_text("")
    (home / "train" / WNIDS[0] / ".n01440764_9.JPEG").write_bytes(b"")
    (home / "val" / ".cache").mkdir()
    (home / "val" / "valprep.sh").write_text("")
    assert len(load_data("imagenet", root=tmp_path).train) == 12


def test_imagenet_s_mistakes(tmp_path: Path) -> None:
    home = write_imagenet(tmp_path, knows="meta.bin")
    (home / "train" / "n00000001").mkdir()
    assert f"class 'n00000001' is in {home}/train but not in {home}/val" in fails("imagenet", tmp_path)
    (home / "val" / "n00000001").mkdir()
    assert fails("imagenet", tmp_path) == "class 'n00000001' of imagenet has no training image"
    (home / "meta.bin").write_bytes(b"no meta")
    message = fails("imagenet", tmp_path)
    assert message.startswith(f"{home}/meta.bin cannot be read (")
    assert message.endswith("): replace or remove it")
    shutil.rmtree(home / "val")
    message = fails("imagenet", tmp_path, RuntimeError)
    assert message.startswith(f"imagenet is not in {home} (no {home}/val), and needs an account to be downloaded: get")
    assert f"unpack them to {home}/train/<wnid>/*.JPEG and {home}/val/<wnid>/*.JPEG" in message


@pytest.mark.parametrize("name", ["ILSVRC2012_val_00000007.JPEG", "ILSVRC2012_val_00000000.JPEG", "dog.jpg"])
def test_a_flat_file_that_is_no_validation_image(tmp_path: Path, name: str) -> None:
    home = write_imagenet(tmp_path, flat=True, knows="devkit")
    write_photo(home / "val" / name, 0)
    assert fails("imagenet", tmp_path).startswith(f"{home}/val/{name} is not among the 6 validation images of ImageNet")


# Downloads


def pack(folder: Path, file: Path, top: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.suffix == ".tgz" else "w") as tar:
        tar.add(folder, arcname=top)
    return md5(file)


def publish(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write both sets' archives, and have them published there."""
    checksum = pack(write_cub(there / "trees"), there / "CUB_200_2011.tgz", "CUB_200_2011")
    address = (there / "CUB_200_2011.tgz").as_uri()
    monkeypatch.setattr(
        cub200_module, "ARCHIVE", replace(cub200_module.ARCHIVE, address=address, md5=checksum, count=15)
    )
    home = write_dogs(there / "trees")
    archives = {}
    for part, archive in dogs_module.ARCHIVES.items():
        checksum = pack(home / part, there / archive.file, archive.inside or ".")
        count = 15 if part == "Images" else 0
        archives[part] = replace(archive, address=(there / archive.file).as_uri(), md5=checksum, count=count)
    monkeypatch.setattr(dogs_module, "ARCHIVES", archives)


def same(a: ImageData, b: ImageData, root: Path, other: Path) -> None:
    for mine, theirs in ((a.train, b.train), (a.test, b.test)):
        assert mine.paths is not None
        assert theirs.paths is not None
        assert [path.relative_to(root) for path in mine.paths] == [path.relative_to(other) for path in theirs.paths]
        assert torch.equal(mine.labels, theirs.labels)


@pytest.mark.parametrize("name", ["cub200", "dogs", "dogs_full"])
def test_a_download_is_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    publish(tmp_path / "there", monkeypatch)
    root = tmp_path / "data"
    root.mkdir()
    for _ in range(2):  # downloaded, then there
        same(load_data(name, root=root), load_data(name, root=tmp_path / "there/trees"), root, tmp_path / "there/trees")
    assert [entry.name for entry in root.iterdir()] == [SET[name]]
    if name != "cub200":
        wanted = {"Images", "lists"} | ({"Annotation"} if name == "dogs" else set())
        assert {entry.name for entry in (root / "dogs").iterdir()} == wanted


def refuse(*_args: object, **_kwargs: object) -> None:
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize("name", ["cub200", "dogs"])
def test_an_archive_beside_the_folder_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    publish(tmp_path / "there", monkeypatch)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    root = tmp_path / "data"
    place = root if name == "cub200" else root / "dogs"
    place.mkdir(parents=True)
    for archive in (tmp_path / "there").glob("*.t*"):
        shutil.copy(archive, place)
    assert len(load_data(name, root=root).train) == 9
    broken = place / ("CUB_200_2011.tgz" if name == "cub200" else "lists.tar")
    broken.write_bytes(b"something else")
    shutil.rmtree(place / ("CUB_200_2011" if name == "cub200" else "lists"))
    assert f"{broken} is not the published file (md5" in fails(name, root)


@pytest.mark.parametrize("name", ["cub200", "dogs", "dogs_full"])
def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    message = fails(name, tmp_path, RuntimeError)
    if name == "cub200":
        assert message.startswith(f"cub200 is not in {tmp_path} and could not be downloaded (<urlopen error Name")
        assert "put CUB_200_2011.tgz of https://data.caltech.edu/" in message
        assert message.endswith(f"or the folder CUB_200_2011 in it, into {tmp_path}")
    else:
        assert message.startswith(f"dogs (images.tar) is not in {tmp_path}/dogs and could not be downloaded (")
        assert "put images.tar, annotation.tar, lists.tar of http://vision.stanford.edu/" in message
        assert message.endswith(f"or Images/, Annotation/ and the lists from them, into {tmp_path}/dogs")
