import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data import load_data
from selfdistill.data.decode import read_rgb


@pytest.fixture
def small(tmp_path, write_images):
    """train/ and test/ of two classes, 40 x 40 pixels."""
    folder = tmp_path / "small"
    for split, count in (("train", 4), ("test", 2)):
        for name in ("dog", "cat"):
            write_images(folder / split / name, count)
    return folder


def test_small_images_are_kept_in_memory(small):
    data = load_data(str(small))
    assert data.name == "small"
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.labels.tolist() == [0] * 2 + [1] * 2
    assert data.train.paths is None
    assert (data.image_size, data.augment, data.test_split_description, data.skipped) == (
        40,
        "crop_flip",
        "test folder",
        (),
    )
    first = np.array(Image.open(small / "train/cat/00.png"))
    assert torch.equal(data.train.images[0], torch.from_numpy(first).permute(2, 0, 1))
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


def test_test_goes_before_val_and_the_name_is_told(small, write_images):
    for name in ("cat", "dog"):
        write_images(small / "val" / name, 1)
    assert load_data(str(small)).test_split_description == "test folder"
    shutil.rmtree(small / "test")
    data = load_data(str(small))
    assert (data.test_split_description, len(data.test)) == ("val folder", 2)


def test_one_folder_of_classes_is_split_alike_each_time(tmp_path, write_images):
    for name, count in (("a", 10), ("b", 5), ("c", 2)):
        write_images(tmp_path / name, count, (70, 70))
    data = load_data(str(tmp_path))
    assert data.test_split_description == "about 20 % held out, by file name"
    trained, tested = (split.labels.bincount(minlength=3) for split in (data.train, data.test))
    assert (trained + tested).tolist() == [10, 5, 2]
    assert int(trained.min()) == int(tested.min()) == 1
    assert not set(data.train.paths) & set(data.test.paths)
    assert load_data(str(tmp_path)).test.paths == data.test.paths


def test_hidden_and_other_files_are_ignored_and_suffixes_have_no_case(small):
    folder = small / "train/cat"
    (folder / "00.png").rename(folder / "00.PNG")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (small / "train/.cache").mkdir()
    (folder / "more").mkdir()
    shutil.copy(folder / "01.png", folder / "more/deeper.png")
    assert load_data(str(small)).train.labels.bincount().tolist() == [5, 4]


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected"),
    [
        ([(20, 20)], None, 32),
        ([(50, 50)], None, 50),
        ([(64, 10), (40, 64), (30, 60)], None, 64),
        ([(90, 70)], 48, 48),
        ([(20, 30)], 16, 16),
    ],
)
def test_sizes_in_memory(tmp_path, write_images, sizes, image_size, expected):
    for name in ("a", "b"):
        for number, size in enumerate(sizes):
            write_images(tmp_path / name / str(number), 2, size)
    data = load_data(str(tmp_path), image_size=image_size)
    assert data.image_size == expected
    assert data.train.images.shape[1:] == (3, expected, expected)


def test_one_large_image_makes_it_a_set_of_files(small, write_images):
    write_images(small / "train/cat/large", 1, (65, 20))
    data = load_data(str(small))
    assert data.train.images is None
    assert data.image_size == 224
    assert load_data(str(small), image_size=128).image_size == 128


def test_every_kind_of_file_becomes_upright_rgb(tmp_path):
    red = Image.new("RGB", (6, 4), (255, 0, 0))
    red.putpixel((0, 0), (0, 0, 255))
    grey, full = (76, 76, 76), (255, 0, 0)
    for mode, expected in {"L": grey, "LA": grey, "P": full, "RGBA": full, "CMYK": full}.items():
        file = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        red.convert(mode).save(file)
        read = read_rgb(file)
        assert (read.mode, read.size, read.getpixel((3, 2))) == ("RGB", (6, 4), expected), mode
    Image.new("1", (6, 4), 1).save(tmp_path / "bit.png")
    assert read_rgb(tmp_path / "bit.png").getpixel((1, 1)) == (255, 255, 255)

    clear = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert read_rgb(tmp_path / "clear.png").getpixel((1, 1)) == (255, 255, 255)

    deep = np.full((4, 6), 40_000, dtype=np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        assert read_rgb(tmp_path / f"deep.{suffix}").getpixel((1, 1)) == (156, 156, 156)

    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    red.save(tmp_path / "turned.png", exif=turned)
    upright = read_rgb(tmp_path / "turned.png")
    assert upright.size == (4, 6)
    assert upright.getpixel((3, 0)) == (0, 0, 255)


def test_many_files_show_their_progress_on_a_terminal(small, monkeypatch, capsys):
    monkeypatch.setattr("selfdistill.data.decode._SHOW_PROGRESS", 11)
    load_data(str(small))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert len(load_data(str(small)).train) == 8
    shown = capsys.readouterr()
    assert "reading images" in shown.err
    assert shown.out == ""


def damage(small, kind):
    file = small / "train/dog/02.png"
    content = {"empty": b"", "text": b"I am no image", "truncated": file.read_bytes()[:900]}[kind]
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "not an image, or a format that cannot be read"),
        ("truncated", "image file is truncated"),
    ],
)
def test_an_unreadable_file_is_named_or_skipped(small, kind, reason):
    file = damage(small, kind)
    with pytest.raises(ValueError, match=reason) as raised:
        load_data(str(small))
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert "(1 unreadable of 12 images in" in message
    assert "pass `skip_unreadable=True`)" in message
    assert "\n" not in message
    data = load_data(str(small), skip_unreadable=True)
    assert data.skipped == (file,)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 3
    assert len(data.test) == 4
    kept = np.array(Image.open(small / "train/dog/03.png"))
    assert torch.equal(data.train.images[-1], torch.from_numpy(kept).permute(2, 0, 1))


def test_a_float_image_is_refused(small):
    Image.fromarray(np.ones((40, 40), dtype=np.float32)).save(small / "train/dog/04.tif")
    with pytest.raises(
        ValueError, match=r"04\.tif: 32-bit float pixels have no fixed range: save the image with 8 or 16"
    ):
        load_data(str(small))


def test_a_class_of_which_nothing_can_be_read(small):
    for file in (small / "train/dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"class 'dog' has no readable image in .*train/dog"):
        load_data(str(small), skip_unreadable=True)


def make_bad(small, case):
    match case:
        case "no test":
            shutil.rmtree(small / "test")
        case "no train":
            shutil.rmtree(small / "train")
        case "class missing in test":
            shutil.rmtree(small / "test/cat")
            (small / "test/bird").mkdir()
        case "class missing in train":
            (small / "test/bird").mkdir()
        case "class without image" | "test class without image":
            folder = small / ("train" if case == "class without image" else "test") / "cat"
            for file in folder.iterdir():
                file.unlink()
        case "one class":
            shutil.rmtree(small / "train/cat")
        case "loose images":
            shutil.rmtree(small / "train/cat")
            shutil.rmtree(small / "train/dog")
            (small / "train/1.png").write_bytes(b"")
        case "arrays too":
            (small / "train.npz").write_bytes(b"")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "no test",
            r"has train/ but none of test/, testing/, val/, valid/, validation/: add one, or pass .*train to hold",
        ),
        ("no train", "has test/ but no train/"),
        ("class missing in test", r"class 'cat' is in .*train but not in .*test: both need the same class folders"),
        ("class missing in train", r"class 'bird' is in .*test but not in .*train: both need the same class folders"),
        ("class without image", r"class 'cat' has no image in .*train/cat: add images or remove the folder"),
        ("test class without image", r"class 'cat' has no image in .*test/cat: add images or remove the folder"),
        ("one class", r"train has one class folder, 'dog': at least 2 classes are needed"),
        ("loose images", r"train has no class folders: put the images of each class in a folder of its own"),
        ("arrays too", r"has both train\.npz and train/: move one of the two elsewhere"),
    ],
)
def test_bad_folders(small, case, message):
    make_bad(small, case)
    with pytest.raises(ValueError, match=message) as raised:
        load_data(str(small))
    assert "\n" not in str(raised.value)


def test_an_empty_folder_and_a_class_too_small_to_split(tmp_path, write_images):
    with pytest.raises(ValueError, match="has no class folders"):
        load_data(str(tmp_path))
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "b", 1)
    with pytest.raises(ValueError, match="class 'b' has 1 of the at least 2 images needed to hold some out"):
        load_data(str(tmp_path))


def test_limits(tmp_path, write_images):
    for name in ("a", "b", "c"):
        write_images(tmp_path / "train" / name, 8)
        write_images(tmp_path / "test" / name, 4)
    data = load_data(str(tmp_path), classes=2, per_class=5, test_per_class=3)
    assert data.classes == ("a", "b")
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5
    assert data.test.labels.tolist() == [0] * 3 + [1] * 3
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    with pytest.raises(ValueError, match=r"^`per_class` is 9, but class 'a' of .* has 8 "):
        load_data(str(tmp_path), per_class=9)
    with pytest.raises(ValueError, match=r"^`test_per_class` is 5, but class 'a' of .* has 4 "):
        load_data(str(tmp_path), test_per_class=5)
    with pytest.raises(ValueError, match=r"^`classes` is 4, but .* has 3 classes"):
        load_data(str(tmp_path), classes=4)
    for changed in ({"classes": 1}, {"per_class": 0}, {"test_per_class": -1}):
        with pytest.raises(ValueError, match=r"^`(classes|(test_)?per_class)` must be at least [12], not -?[01]"):
            load_data(str(tmp_path), **changed)
