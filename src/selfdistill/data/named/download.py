"""Published archives of images: downloaded, checked and unpacked."""

import hashlib
import tarfile
import tempfile
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfdistill.data.arrays import read_npz
from selfdistill.data.decode import IMAGE_SUFFIXES, check_regular
from selfdistill.data.folders import image_files
from selfdistill.progress import track

_CHUNK = 2**20  # bytes
_PATIENCE = 60  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """A tar archive of images.

    Attributes:
        address: where it is published.
        file: its name.
        md5: of the archive.
        count: images in it, or other files.
        inside: the folder in it that is kept; empty: all of it.
        suffixes: of the files that are counted.
        most_bytes: of the archive; what a server sends beyond is not read.
    """

    address: str
    file: str
    md5: str
    count: int
    inside: str = ""
    suffixes: Collection[str] = IMAGE_SUFFIXES
    most_bytes: int = 32 * 2**20


# The md5 of LSUN is that of the packages pytorch-ood and detectors, which agree; that of iSUN is of detectors alone.
_DROPBOX = "https://www.dropbox.com/s"
ARCHIVES = {
    "lsun_resize": Archive(
        f"{_DROPBOX}/moqh2wh8696c3yl/LSUN_resize.tar.gz?dl=1",
        "LSUN_resize.tar.gz",
        "278b7b31c8cb7e804a1465a8ce03a2dc",
        10_000,
        most_bytes=2**28,
    ),
    "isun": Archive(
        f"{_DROPBOX}/ssz7qxfqae0cca5/iSUN.tar.gz?dl=1",
        "iSUN.tar.gz",
        "be77b0f2c26fda898afac5f99645ee70",
        8_925,
        most_bytes=2**28,
    ),
    "dtd": Archive(
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        "dtd-r1.0.1.tar.gz",
        "fff73e5086ae6bdbea199a49dfb8a4c1",
        5_640,
        most_bytes=10**9,
    ),
}


def archived_files(name: str, root: Path) -> list[Path]:
    """Return the images of a set of ``ARCHIVES`` in ``root/name``, downloaded and unpacked there if needed."""
    archive, folder = ARCHIVES[name], root / name
    remedy = f"put {archive.file} into {root}, or its {archive.count} images into {folder}"
    return fetched(name, archive, folder, remedy)


def fetched(name: str, archive: Archive, folder: Path, remedy: str) -> list[Path]:
    """Return what :func:`unpacked` does for the set ``name``; where that fails, say what to do."""
    try:
        return unpacked(archive, folder)
    except (OSError, tarfile.TarError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(
            f"{name} is not in {folder.parent} and could not be downloaded ({reason}): {remedy}"
        ) from error


def svhn_test_images(root: Path) -> Tensor:
    """Return SVHN's test images, uint8 ``(26032, 3, 32, 32)``, downloaded if needed; or ``root/svhn/test.npz``."""
    file = root / "svhn" / "test.npz"
    if file.is_file():
        pixels = read_npz(file, None)[0].images
        assert pixels is not None
        return pixels
    from torchvision.datasets import SVHN

    try:
        return torch.from_numpy(torchvision_set(SVHN, root, split="test").data)
    except Exception as error:  # no network, no space, a damaged file: each layer has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError(
            f"svhn is not in {root} and could not be downloaded ({reason}): put test_32x32.mat into {root}, or its "
            f"images as an array 'images' uint8 (N, 32, 32, 3), with labels, into {file}"
        ) from error


def torchvision_set(kind: Any, root: Path, **part: Any) -> Any:
    """Return a data set of torchvision; what is not there is downloaded by :func:`download`, not by torchvision.

    Args:
        kind: the class: CIFAR10, CIFAR100 or SVHN.
        part: which part: ``train`` or ``split``.

    Raises:
        Exception: it cannot be downloaded or read; each layer has its own.
    """
    try:
        return kind(root, **part)
    except RuntimeError:  # not there, or damaged
        known = kind.split_list[part["split"]] if "split" in part else (kind.url, kind.filename, kind.tgz_md5)
        address, file, md5 = known[:3]
        if not (root / file).is_file() or _md5(root / file) != md5:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=f".{file}-") as scratch:
                download(Archive(address, file, md5, 0, most_bytes=2**28), Path(scratch)).replace(root / file)
        return kind(root, download=True, **part)  # which unpacks it


def unpacked(archive: Archive, folder: Path) -> list[Path]:
    """Return the images of an archive in ``folder``, unpacked there first if needed, and downloaded before that.

    The archive is used where it lies beside the folder already. A folder is complete or not there at all, whoever ends
    the program when, and two programs may ask at once.

    Raises:
        ValueError: what lies there is not what is published.
        OSError: it cannot be downloaded, or there is no space.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            file = folder.parent / archive.file
            if file.exists():
                check_regular(file, archive.most_bytes)
                if (found := _md5(file)) != archive.md5:
                    raise ValueError(f"{file} is not the published file (md5 {found}, not {archive.md5}): remove it")
            else:
                file = download(archive, Path(scratch))
            fresh = Path(scratch) / "images"
            with tarfile.open(file) as tar:
                tar.extractall(fresh, filter="data")  # nothing outside, no links out, no devices
            fresh /= archive.inside
            _counted(fresh, archive, file)
            try:
                fresh.replace(folder)
            except OSError:
                if not folder.exists():  # another program was quicker
                    raise
    return _counted(folder, archive, folder)


def download(archive: Archive, into: Path) -> Path:
    """Download an archive into a folder and check it.

    Raises:
        OSError: it cannot be downloaded, or what arrived is not what was published.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "there.tar").write_bytes(b"abc")
        ...     address = (Path(folder) / "there.tar").as_uri()
        ...     (Path(folder) / "here").mkdir()
        ...     published = Archive(address, "set.tar", "900150983cd24fb0d6963f7d28e17f72", 1)
        ...     download(published, Path(folder) / "here").read_bytes()
        3
        b'abc'
    """
    file = into / archive.file
    try:
        _receive(archive, file)
    except (OSError, HTTPException) as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        raise OSError(f"the connection broke off: {error!r}") from error
    return file


def _receive(archive: Archive, file: Path) -> None:
    with urllib.request.urlopen(archive.address, timeout=_PATIENCE) as response, file.open("wb") as out:
        total = int(response.headers.get("Content-Length") or 0)
        chunks = iter(lambda: response.read(_CHUNK), b"")
        for chunk in track(chunks, f"downloading {file.name}", -(-total // _CHUNK)):
            if out.tell() + len(chunk) > archive.most_bytes:
                raise OSError(f"{archive.address} sent more than the {archive.most_bytes:,} bytes that it may have")
            out.write(chunk)
    if (found := _md5(file)) != archive.md5:
        raise OSError(f"{archive.address} sent another file: md5 {found}, not {archive.md5}")


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _counted(folder: Path, archive: Archive, where: Path) -> list[Path]:
    files = image_files(folder, archive.suffixes)
    if len(files) != archive.count:
        what = "images" if archive.suffixes is IMAGE_SUFFIXES else f"{' and '.join(archive.suffixes)} files"
        raise ValueError(
            f"{where} holds {len(files)} {what}, not the {archive.count} of the published set: move it elsewhere, and "
            "it is downloaded again"
        )
    return files
