"""Image files as people have them: each is read right, or named; hostile ones start and exhaust nothing."""

import io
import os
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfdistill.data import load_data
from selfdistill.data.decode import MOST_PIXELS, UnreadableImageError, read_rgb
from selfdistill.data.folders import find_images, image_files
from selfdistill.errors import ArgumentError

RAMP = np.tile(np.arange(0, 256, 4), (48, 1))  # 64 x 48


def picture(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(RAMP.astype(np.uint8)).convert(mode)


def jpeg_with_exif(*entries: tuple[int, int, int, bytes], orientation: tuple[int, int, bytes]) -> bytes:
    """A JPEG file whose EXIF, big-endian, has these entries: tag, type, count, value of four bytes."""
    content = io.BytesIO()
    picture().save(content, "JPEG")
    tags = sorted([(0x0112, *orientation), *entries])
    tiff = b"MM\0*" + struct.pack(">IH", 8, len(tags))
    tiff += b"".join(struct.pack(">HHI", tag, kind, count) + value for tag, kind, count, value in tags) + bytes(4)
    body = b"Exif\0\0" + tiff
    whole = content.getvalue()
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + whole[2:]


RIGHT = (3, 1, b"\0\6\0\0")  # a SHORT: turn by 90 degrees


@pytest.mark.parametrize(
    ("orientation", "entry"),
    [
        (RIGHT, (0x0128, 2, 2, b"2\0\0\0")),  # ResolutionUnit as a text
        (RIGHT, (0x011A, 2, 4, b"72\0\0")),  # XResolution as a text
        (RIGHT, (0x0100, 9, 1, struct.pack(">i", -5))),  # a negative width
        ((4, 1, b"\0\0\0\6"), (0x0128, 3, 1, bytes(4))),  # the orientation as a LONG
        ((2, 2, b"6\0\0\0"), (0x0128, 3, 1, bytes(4))),  # as a text
        ((1, 1, b"\6\0\0\0"), (0x0128, 3, 1, bytes(4))),  # as a BYTE
    ],
)
def test_a_mistyped_exif_tag_turns_no_photo_away(tmp_path: Path, orientation: tuple, entry: tuple) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_with_exif(entry, orientation=orientation))
    read = read_rgb(tmp_path / "a.jpg")
    assert read.size == (48, 64)
    assert np.asarray(read)[0].mean() < 10 < 240 < np.asarray(read)[-1].mean(), "dark side up"


@pytest.mark.parametrize(("damage", "size"), [("checksum", (64, 48)), ("content", (64, 48)), ("none", (48, 64))])
def test_a_damaged_exif_chunk_of_a_png_is_left_out(tmp_path: Path, damage: str, size: tuple[int, int]) -> None:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture().save(content, "PNG", exif=exif)
    whole = bytearray(content.getvalue())
    at = whole.index(b"eXIf")
    length = int.from_bytes(whole[at - 4 : at])
    if damage == "checksum":
        whole[at + 4 + length] ^= 1
    elif damage == "content":
        chunk = b"eXIf" + b"x" * length
        whole[at : at + 8 + length] = chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(whole)
    assert read_rgb(tmp_path / "a.png").size == size


@pytest.mark.parametrize(
    ("values", "brightest"),
    [
        (RAMP.astype(np.int32), 252),
        (RAMP.astype(np.uint16), 252),
        ((16 * RAMP).astype(np.uint16), 252),  # 12 bits in 16
        ((257 * RAMP).astype(np.uint16), 252),
        ((256 * RAMP).astype(np.int32), 252),
        ((257 * RAMP).astype(">u2"), 252),
        (np.zeros((4, 4), np.uint16), 0),
    ],
)
def test_deep_grey_has_the_range_of_its_values(tmp_path: Path, values: np.ndarray, brightest: int) -> None:
    for suffix in ("tif", "png") if values.itemsize == 2 else ("tif",):  # PNG has no 32-bit integers
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        pixels = np.asarray(read_rgb(tmp_path / f"a.{suffix}"))
        assert (pixels.min(), pixels.max()) == (0, brightest)


def deep_png(values: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    """A PNG of 16 bits a channel; colour 0 is grey, 2 RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = chunk(b"tRNS", extra) if extra else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_colour_key_is_shown_on_white(tmp_path: Path) -> None:
    grey, rgb = 257 * RAMP, np.stack([257 * RAMP] * 3, -1)
    (tmp_path / "grey16.png").write_bytes(deep_png(grey, 0, bytes(2)))
    (tmp_path / "rgb16.png").write_bytes(deep_png(rgb, 2, bytes(6)))
    picture("RGB").save(tmp_path / "rgb.png", transparency=(0, 0, 0))
    picture("L").save(tmp_path / "l.png", transparency=0)
    for file in sorted(tmp_path.iterdir()):
        pixels = np.asarray(read_rgb(file))
        assert (pixels[0, 0].tolist(), pixels[0, 1].tolist()) == ([255] * 3, [4] * 3), file.name


@pytest.mark.parametrize(
    "values", [RAMP.astype(np.float32), -RAMP.astype(np.int32), 10**6 * RAMP.astype(np.int32)], ids=str
)
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=r"a\.tif: .*save the image with 8 or 16 bits"):
        read_rgb(tmp_path / "a.tif")


def test_12_bits_of_three_deep_channels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(deep_png(np.stack([16 * RAMP] * 3, -1), 2))
    with pytest.raises(UnreadableImageError, match="12 of its 16 bits"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", b"8BPS\0\1", b"%PDF-1.4"])
def test_a_format_of_no_photograph_is_not_decoded(tmp_path: Path, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen.__init__", started)
    (tmp_path / "photo.jpg").write_bytes(head + bytes(200))
    with pytest.raises(UnreadableImageError, match="a format that cannot be read"):
        read_rgb(tmp_path / "photo.jpg")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "too large"])
@pytest.mark.timeout(20)
def test_only_regular_files_of_bounded_size_are_opened(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        with file.open("wb") as sparse:
            sparse.truncate(2**30 + 1)
    with pytest.raises(UnreadableImageError, match=r"not a regular file|bytes are more than"):
        read_rgb(file)


def test_a_picture_that_is_never_decoded_is_told_in_our_words(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.new("1", (20_000, 9_000)).save(file)
    with pytest.raises(UnreadableImageError, match=f"more than {MOST_PIXELS:,} pixels"):
        read_rgb(file)


def test_a_device_is_refused_as_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "list.csv").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"list.csv is neither a folder nor a regular file$"):
        load_data(tmp_path / "list.csv")


def test_larger_pictures_than_allowed_are_refused(tmp_path: Path, write_photos) -> None:
    write_photos(tmp_path / "photos", {"a": 3, "b": 3}, size=(30, 20))
    with pytest.raises(ValueError, match=r"30 x 20 pixels are more than 599: make it smaller, or raise `max_pixels`"):
        load_data(tmp_path / "photos", max_pixels=599)
    assert len(load_data(tmp_path / "photos", max_pixels=600).train) >= 2
    for wrong in (0, MOST_PIXELS + 1):
        with pytest.raises(ArgumentError, match="max_pixels"):
            load_data(tmp_path / "photos", max_pixels=wrong)


def test_heic_is_named_where_it_cannot_be_read(tmp_path: Path, write_photos) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 5, "b": 5})
    (photos / "a/IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ValueError, match=r"IMG_1\.HEIC: .*pip install pillow-heif.*1 unreadable of 11 images"):
        load_data(photos)
    assert [file.name for file in load_data(photos, skip_unreadable=True).skipped] == ["IMG_1.HEIC"]


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path, write_photos) -> None:
    photos = write_photos(tmp_path / "photos", {"a": 5, "b": 5})
    for name in ("a/1.CR2", "a/2.cr2", "b/plain", "b/Thumbs.db", "b/.DS_Store", "notes.txt", "loose.png"):
        (photos / name).write_bytes(b"x")
    (photos / "__MACOSX").mkdir()
    data = load_data(photos)
    assert data.classes == ("a", "b")
    assert data.notes == ("2 .cr2, 1 file without suffix, 1 .png and 1 .txt are not read",)


def test_linked_folders_are_followed_once_and_not_up(tmp_path: Path, write_photos) -> None:
    write_photos(tmp_path, {"photos/cat": 3, "photos/dog": 2, "elsewhere/cats": 4})
    cat = tmp_path / "photos/cat"
    for name, target in {
        "more": "elsewhere/cats",
        "again": "elsewhere/cats",
        "up": "photos",
        "self": "photos/cat",
    }.items():
        (cat / name).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere/cats/back").symlink_to(cat)
    (tmp_path / "photos/loop").symlink_to(tmp_path / "photos")
    assert len(image_files(cat)) == 7
    assert load_data(tmp_path / "photos").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("parts", "scored", "unused"),
    [
        (("Training", "Testing"), "Testing", None),
        (("TRAIN", "validation"), "validation", None),
        (("train", "Valid"), "Valid", None),
        (("Train", "Val", "Test"), "Test", None),
        (("train", "test", "extra"), "test", "extra/ is not used"),
    ],
)
def test_parts_are_found_by_their_usual_names(tmp_path: Path, write_photos, parts, scored, unused) -> None:
    write_photos(tmp_path, {f"{part}/{name}": 3 + (part == scored) for part in parts for name in ("x", "y")})
    data = load_data(tmp_path)
    assert data.classes == ("x", "y")
    assert (len(data.train), len(data.test)) == (6, 8)
    assert (data.train_split_description, data.test_split_description) == (f"{parts[0]} folder", f"{scored} folder")
    assert data.notes == (() if unused is None else (unused,))
    wanted = (6, "Val folder") if "Val" in parts else (0, "")
    assert (len(data.val) if data.val else 0, data.val_split_description) == wanted


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("parts", [("seg_train", "seg_test"), ("Training_Set", "Val_Set"), ("trainset", "testset")])
def test_parts_of_other_names_are_not_classes(
    tmp_path: Path, write_photos, parts: tuple[str, str], nested: bool
) -> None:
    write_photos(tmp_path, {f"{part}/{part if nested else ''}/{name}": 2 for part in parts for name in ("x", "y")})
    with pytest.raises(ValueError, match=rf"has {parts[0]}/ and {parts[1]}/, .* are not classes: call them train/ and"):
        load_data(tmp_path)


def test_classes_may_be_called_much_as_parts_are(tmp_path: Path, write_photos) -> None:
    write_photos(tmp_path, {"train_station": 2, "test_tube": 2, "trainer/red": 2, "valley/red": 2})
    assert load_data(tmp_path).classes == ("test_tube", "train_station", "trainer", "valley")


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path, write_photos) -> None:
    write_photos(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val", "valid") for name in ("x", "y")})
    with pytest.raises(ValueError, match="has both val and valid"):
        load_data(tmp_path)


def test_names_that_look_alike_are_one_class(tmp_path: Path, write_photos) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_photos(tmp_path, {f"train/{composed}": 2, f"test/{decomposed}": 2, "train/tea": 2, "test/tea": 2})
    assert load_data(tmp_path).classes == (composed, "tea")
    shutil.copytree(tmp_path / "train" / composed, tmp_path / "train" / decomposed)
    with pytest.raises(ValueError, match="look alike"):
        load_data(tmp_path)


def test_a_folder_that_only_is_scored_needs_no_second_image(tmp_path: Path, write_photos) -> None:
    write_photos(tmp_path / "new", {"cat": 4, "owl": 1})
    with pytest.raises(ValueError, match="class 'owl' has 1 of the at least 2 images needed"):
        load_data(tmp_path / "new")
    assert len(load_data(tmp_path / "new", test_only=True).test) == 5
    for part in ("Val", "testing", "train"):
        write_photos(tmp_path / part, {f"{part}/cat": 3, f"{part}/owl": 1})
        data = load_data(tmp_path / part, test_only=True)
        assert (data.name, len(data.test), data.test_split_description) == (part, 4, "all images")


def test_hidden_files_are_neither_images_nor_counted(tmp_path: Path) -> None:
    for name in (".a.png", "desktop.ini", "a.JPG"):
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path) == ([tmp_path / "a.JPG"], Counter())
