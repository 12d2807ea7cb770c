"""Images without labels: pieces of photographs, folders, arrays, and published sets from archives written here."""

import hashlib
import io
import re
import tarfile
import threading
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import datasets
from torchvision.transforms import v2

from selfdistill.data import Unlabelled, load_unlabelled
from selfdistill.data.named.download import ARCHIVES, Archive, unpacked
from tests.data.conftest import noise


def load(source: str | Path, size: int = 32, root: Path = Path("nowhere"), *, skip: bool = False) -> Unlabelled:
    return load_unlabelled(str(source), image_size=size, root=root, skip_unreadable=skip)


def fails(source: str | Path, error: type[Exception] = ValueError, **settings: object) -> str:
    with pytest.raises(error) as raised:
        load(source, **settings)  # type: ignore[arg-type]
    message = str(raised.value)
    assert "\n" not in message
    return message


# Photographs


def test_photographs_at_32_are_every_square_of_a_grid() -> None:
    pieces = load("photographs")
    expected = [
        photograph[top : top + 32, left : left + 32]
        for photograph in load_sample_images().images
        for top in range(0, 427 - 31, 32)
        for left in range(0, 640 - 31, 32)
    ]
    assert pieces.split.images is not None
    assert np.array_equal(pieces.split.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert len(expected) == 2 * 13 * 20
    assert pieces.split.labels.eq(0).all()
    assert (pieces.name, pieces.prepared) == ("photographs", "squares of 32 px cut from two photographs")


@pytest.mark.parametrize("size", [33, 64, 224])
def test_larger_pieces_overlap_no_more_than_they_must(size: int) -> None:
    def count(stride: int) -> int:
        return len(range(0, 427 - size + 1, stride)) * len(range(0, 640 - size + 1, stride))

    pieces = load("photographs", size)
    stride = max((s for s in range(1, size + 1) if count(s) >= 250), default=1)
    assert len(pieces.split) == 2 * count(stride) >= 500
    overlap = "" if stride == size else f", {stride} px apart and so overlapping"
    assert pieces.prepared == f"squares of {size} px cut from two photographs{overlap}"
    images = pieces.split.images
    assert images is not None
    assert images.shape[1:] == (3, size, size)
    last = load_sample_images().images[1]
    rows, columns = (427 - size) // stride, (640 - size) // stride
    corner = last[rows * stride :, columns * stride :][:size, :size]
    assert np.array_equal(images[-1].permute(1, 2, 0).numpy(), corner)


def test_photographs_are_not_enlarged() -> None:
    assert fails("photographs", size=428) == (
        "photographs: 427 px high, but the network takes 428 px; name another set"
    )


# Folders


def test_a_folder_at_any_depth_is_cut_to_central_squares(tmp_path: Path, write_images: Callable[..., Path]) -> None:
    write_images(tmp_path / "set/b/deep", 1, (60, 40))
    write_images(tmp_path / "set/a", 1, (40, 100))
    write_images(tmp_path / "set/.hidden", 1)
    loaded = load(tmp_path / "set", 20)
    expected = []
    for file, (width, height) in (("a/00.png", (20, 50)), ("b/deep/00.png", (30, 20))):
        scaled = Image.open(tmp_path / "set" / file).resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - 20) // 2, (height - 20) // 2
        expected.append(np.asarray(scaled)[top : top + 20, left : left + 20])
    assert loaded.split.images is not None
    assert np.array_equal(loaded.split.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert (loaded.name, loaded.prepared) == ("set", "shorter side to 20 px, central square")
    assert loaded.split.labels.tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(97, 61), (61, 97), (51, 47), (33, 32), (20, 27), (32, 35)])
def test_the_preparation_is_torchvision_s(
    tmp_path: Path, write_images: Callable[..., Path], shape: tuple[int, int]
) -> None:
    write_images(tmp_path / "set", 2, shape)
    steps = v2.Compose([v2.Resize(32), v2.CenterCrop(32), v2.PILToTensor()])
    expected = torch.stack([steps(Image.open(file)) for file in sorted((tmp_path / "set").iterdir())])
    images = load(tmp_path / "set").split.images
    assert images is not None
    assert torch.equal(images, expected)


def test_a_folder_of_the_network_s_size_stays_as_it_is(tmp_path: Path, write_images: Callable[..., Path]) -> None:
    write_images(tmp_path / "set", 3, (32, 32))
    loaded = load(tmp_path / "set")
    stored = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "set").iterdir())]
    assert loaded.split.images is not None
    assert np.array_equal(loaded.split.images.permute(0, 2, 3, 1).numpy(), np.stack(stored))
    assert loaded.prepared == "as they are"
    write_images(tmp_path / "set/more", 1, (33, 32))
    assert load(tmp_path / "set").prepared == "shorter side to 32 px, central square"


def test_large_images_are_decoded_while_they_are_used(tmp_path: Path, write_images: Callable[..., Path]) -> None:
    write_images(tmp_path / "set", 2, (90, 70))
    (tmp_path / "set/zz.png").write_bytes(b"")
    loaded = load(tmp_path / "set", 112, skip=True)
    assert loaded.split.paths == (tmp_path / "set/00.png", tmp_path / "set/01.png")
    assert loaded.prepared == "shorter side to 128 px, central square of 112 px"
    assert "zz.png: the file is empty (1 unreadable of 3 images" in fails(tmp_path / "set", size=112)


def test_unreadable_files(tmp_path: Path, write_images: Callable[..., Path]) -> None:
    folder = write_images(tmp_path / "set", 3)
    (folder / "01.png").write_bytes(b"no image")
    assert fails(folder) == (
        f"{folder}/01.png: not an image, or a format that cannot be read (1 unreadable of 3 images in {folder}: "
        "repair or remove it, or pass `skip_unreadable=True`)"
    )
    assert len(load(folder, skip=True).split) == 2
    for file in folder.iterdir():
        file.write_bytes(b"")
    message = fails(folder, skip=True)
    assert message.endswith(f"(3 unreadable of 3 images in {folder}: repair or remove them)")


def test_a_folder_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    assert fails(tmp_path).startswith(f"{tmp_path}: no image in it or below (looked for .avif, .bmp,")


# Arrays


@pytest.mark.parametrize("shape", [(5, 16, 16, 3), (5, 16, 16, 1), (5, 16, 16)])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    pixels, file = noise(1, *shape), tmp_path / f"other{suffix}"
    if suffix == ".npy":
        np.save(file, pixels)
    else:
        np.savez(file, images=pixels, labels=np.array(["not", "looked", "at"]))
    loaded = load(file, 16)
    expected = np.broadcast_to(pixels.reshape(5, 16, 16, -1), (5, 16, 16, 3))
    assert loaded.split.images is not None
    assert np.array_equal(loaded.split.images.permute(0, 2, 3, 1).numpy(), expected)
    assert (loaded.name, loaded.prepared, loaded.split.labels.tolist()) == ("other", "as they are", [0] * 5)


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (noise(0, 4, 32, 32, 3), "images of 32 x 32 px, but the network takes 16 x 16: resize them yourself"),
        (noise(0, 4, 16, 17, 3), "images of 16 x 17 px, but the network takes 16 x 16"),
        (noise(0, 4, 16, 16, 4), r"images have shape (4, 16, 16, 4), wanted (N, H, W, 3), (N, H, W, 1) or (N, H, W)"),
        (noise(0, 4, 3, 16, 16), "or (N, H, W); transpose (0, 2, 3, 1)"),
        (noise(0, 0, 16, 16, 3), "images have shape (0, 16, 16, 3)"),
        (noise(0, 4, 16), "images have shape (4, 16)"),
        (np.zeros((4, 16, 16, 3), np.float32), "images are float32, wanted uint8 with values 0 to 255"),
        (np.array([{}, {}]), "cannot be read as an array (Object arrays cannot be loaded when allow_pickle=False)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, pixels: np.ndarray, told: str) -> None:
    np.save(tmp_path / "a.npy", pixels, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=pixels)
    for file in (tmp_path / "a.npy", tmp_path / "a.npz"):
        message = fails(file, size=16)
        assert message.startswith(f"{file}: ")
        assert told in message


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=noise(0, 4, 16, 16, 3))
    assert fails(tmp_path / "a.npz") == f"{tmp_path}/a.npz: no array 'images', it has ['pictures']"
    (tmp_path / "a.npy").write_bytes(b"")
    assert fails(tmp_path / "a.npy").startswith(f"{tmp_path}/a.npy: cannot be read as an array (")
    (tmp_path / "a.npz").write_bytes(b"PK\3\4 damaged")
    assert fails(tmp_path / "a.npz").startswith(f"{tmp_path}/a.npz: cannot be read as an array (")
    (tmp_path / "a.jpg").write_bytes(b"")
    assert fails(tmp_path / "a.jpg").startswith(f"{tmp_path}/a.jpg is a file, but not .npy or .npz: pass a folder")


# Names


@pytest.mark.parametrize(
    ("source", "meant"),
    [("photograph", "photographs"), ("SVHN", "svhn"), ("lsun-resize", "lsun_resize"), ("iSUN", "isun"), ("zzzz", None)],
)
def test_an_unknown_set_names_the_nearest(source: str, meant: str | None) -> None:
    every = (
        "pass photographs, lsun_resize, isun, dtd, svhn, imagenet_resize or cifar10, or a folder, .npy or .npz file "
    )
    remedy = f"did you mean {meant!r}?" if meant else f"{every}that exists"
    assert fails(source) == f"unknown set of images {source!r}; {remedy}"


def test_a_mistyped_path_names_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    assert f"; did you mean '{tmp_path}/textures'?" in fails(tmp_path / "texture")


# Published sets


def pack(file: Path, count: int, size: tuple[int, int] = (32, 32), top: str = "SET/SET") -> Path:
    """Write a .tar.gz of so many noise images, with what a Mac leaves beside each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as tar:
        for number in range(count):
            image = io.BytesIO()
            Image.fromarray(noise(number, size[1], size[0], 3)).save(image, "png")
            for name, content in ((f"{number:03}.png", image.getvalue()), (f"._{number:03}.png", b"not an image")):
                member = tarfile.TarInfo(f"{top}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file


def published(file: Path, count: int, name: str = "set.tar.gz") -> Archive:
    return Archive(file.as_uri(), name, hashlib.md5(file.read_bytes()).hexdigest(), count)


@pytest.fixture(params=["lsun_resize", "isun", "dtd"])
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a published set be an archive of 6 images under ``there``."""
    name: str = request.param
    file = pack(tmp_path / "there" / ARCHIVES[name].file, 6, (48, 40) if name == "dtd" else (32, 32))
    monkeypatch.setitem(ARCHIVES, name, published(file, 6, file.name))
    return name


def test_a_published_set_is_downloaded_once(small: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    loaded = load(small, root=root)
    assert loaded.name == small
    assert loaded.prepared == ("shorter side to 32 px, central square" if small == "dtd" else "as they are")
    assert loaded.split.images is not None
    if small != "dtd":
        expected = np.stack([noise(number, 32, 32, 3) for number in range(6)])
        assert np.array_equal(loaded.split.images.permute(0, 2, 3, 1).numpy(), expected)
    assert [entry.name for entry in root.iterdir()] == [small], "nothing else is left"
    (tmp_path / "there" / ARCHIVES[small].file).unlink()
    again = load(small, root=root)
    assert again.split.images is not None
    assert torch.equal(again.split.images, loaded.split.images)


def test_an_archive_in_the_root_is_used(small: str, tmp_path: Path) -> None:
    file = tmp_path / "there" / ARCHIVES[small].file
    (tmp_path / "data").mkdir()
    beside = file.rename(tmp_path / "data" / file.name)
    assert len(load(small, root=tmp_path / "data").split) == 6
    assert beside.exists()


def test_no_network(tmp_path: Path, small: str) -> None:
    archive, root = ARCHIVES[small], tmp_path / "data"
    root.mkdir()
    (tmp_path / "there" / archive.file).unlink()
    message = fails(small, RuntimeError, root=root)
    assert message.startswith(f"{small} is not in {root} and could not be downloaded (")
    assert message.endswith(f"): put {archive.file} into {root}, or its 6 images into {root / small}")
    assert not list(root.iterdir()), "nothing half done is left"


def test_another_file_at_the_address(tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = replace(ARCHIVES[small], md5="0" * 32), tmp_path / "data"
    root.mkdir()
    found = ARCHIVES[small].md5
    monkeypatch.setitem(ARCHIVES, small, archive)
    message = fails(small, RuntimeError, root=root)
    assert f"({archive.address} sent another file: md5 {found}, not {'0' * 32})" in message
    assert not list(root.iterdir())


def test_a_damaged_archive_in_the_root(tmp_path: Path, small: str) -> None:
    file = tmp_path / "data" / ARCHIVES[small].file
    file.parent.mkdir()
    file.write_bytes(b"half of it")
    md5 = hashlib.md5(b"half of it").hexdigest()
    told = f"{file} is not the published file (md5 {md5}, not {ARCHIVES[small].md5}): remove it"
    assert fails(small, root=tmp_path / "data") == told


def test_a_folder_that_is_not_the_whole_set(tmp_path: Path, small: str, write_images: Callable[..., Path]) -> None:
    folder = write_images(tmp_path / "data" / small, 5, (32, 32))
    assert fails(small, root=tmp_path / "data") == (
        f"{folder} holds 5 images, not the 6 of the published set: move it elsewhere, and it is downloaded again"
    )


def test_a_named_set_goes_before_a_folder_of_that_name(
    tmp_path: Path, small: str, write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / small, 2, (32, 32))
    monkeypatch.chdir(tmp_path)
    assert len(load(small, root=Path("data")).split) == 6
    assert len(load(f"./{small}").split) == 2


def test_the_published_numbers() -> None:
    """What the paper's table was measured on."""
    assert {name: archive.count for name, archive in ARCHIVES.items()} == {
        "lsun_resize": 10_000,
        "isun": 8_925,
        "dtd": 5_640,
    }
    from torchvision.datasets import DTD

    assert (ARCHIVES["dtd"].address, ARCHIVES["dtd"].md5) == (DTD._URL, DTD._MD5)
    for archive in ARCHIVES.values():
        assert archive.address.startswith("https://")
        assert re.fullmatch("[0-9a-f]{32}", archive.md5)


@pytest.mark.parametrize("member", ["../outside.png", "/outside.png"])
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, member: str) -> None:
    name = member if member.startswith("..") else str(tmp_path / member[1:])  # an absolute name loses its slash
    file = tmp_path / "there.tar"
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    if member.startswith(".."):
        with pytest.raises(tarfile.TarError, match="outside"):
            unpacked(published(file, 1), tmp_path / "data/set")
    else:
        (inside,) = unpacked(published(file, 1), tmp_path / "data/set")
        assert inside.is_relative_to(tmp_path / "data/set")
    assert not list(tmp_path.glob("outside.png"))
    assert not list(tmp_path.glob("data/outside.png"))


def test_a_link_out_of_an_archive(tmp_path: Path) -> None:
    file = tmp_path / "there.tar"
    with tarfile.open(file, "w") as tar:
        link = tarfile.TarInfo("set/0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../secret.png"
        tar.addfile(link)
    with pytest.raises(tarfile.TarError):
        unpacked(published(file, 1), tmp_path / "data/set")


def test_an_archive_with_another_number_of_images_leaves_nothing(tmp_path: Path) -> None:
    file = pack(tmp_path / "there.tar.gz", 3)
    with pytest.raises(ValueError, match="holds 3 images, not the 4 of the published set"):
        unpacked(published(file, 4), tmp_path / "data/set")
    assert not list((tmp_path / "data").iterdir())


def test_two_at_once(tmp_path: Path) -> None:
    archive = published(pack(tmp_path / "there.tar.gz", 20), 20)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(unpacked(archive, tmp_path / "data/set")))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [20] * 6
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["set"]


# SVHN


def test_svhn_is_the_first_of_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    pixels = noise(0, 32, 32, 3, 20)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": (np.arange(20) % 10 + 1)[:, None]})
    md5 = hashlib.md5((tmp_path / "test_32x32.mat").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.SVHN, "split_list", {"test": ["", "test_32x32.mat", md5]})
    monkeypatch.setattr("selfdistill.data.unlabelled._SVHN_FIRST", 12)
    loaded = load("svhn", root=tmp_path)
    assert loaded.split.images is not None
    assert torch.equal(loaded.split.images, torch.from_numpy(pixels).permute(3, 2, 0, 1)[:12])
    assert (loaded.name, loaded.prepared) == ("svhn", "the first 12 test images, as they are")
    assert loaded.split.labels.tolist() == [0] * 12
    larger = load("svhn", 64, root=tmp_path)
    assert larger.split.images is not None
    assert larger.split.images.shape == (12, 3, 64, 64)
    assert larger.prepared == "the first 12 test images, from 32 to 64 px"


def test_svhn_from_arrays(tmp_path: Path, write_arrays: Callable[..., Path]) -> None:
    write_arrays(tmp_path / "svhn/test.npz", 10_003)
    loaded = load("svhn", root=tmp_path)
    assert (len(loaded.split), loaded.prepared) == (10_000, "the first 10,000 test images, as they are")


def test_svhn_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    message = fails("svhn", RuntimeError, root=tmp_path)
    assert message.startswith(f"svhn is not in {tmp_path} and could not be downloaded (")
    assert f"put test_32x32.mat into {tmp_path}, or its images" in message


@pytest.mark.parametrize("size", [32, 16])
def test_substitutes_become_means_of_blocks_like_the_networks_own(tmp_path: Path, size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "cifar10_test.npz", images=pixels)
    folder = tmp_path / "imagenet_resize"
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    block = 32 // size
    expected = pixels.reshape(3, size, block, size, block, 3).astype(float).mean((2, 4)).transpose(0, 3, 1, 2)
    for source in ("cifar10", "imagenet_resize"):
        found = load_unlabelled(source, image_size=size, root=tmp_path)
        assert found.name == source
        assert np.abs(found.split.images.numpy() - expected).max() <= 0.5


def test_a_substitute_that_is_not_there_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"imagenet_resize is not in .*: put image files, photographs at 32 x 32, in"
    ):
        load_unlabelled("imagenet_resize", image_size=16, root=tmp_path)
