"""The published arrays, and the means of Table 6."""

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selfdistill.evaluation.corruptions import (
    CORRUPTIONS,
    fetch_cifar100c,
    open_published,
    published,
    summarise,
)
from selfdistill.records.evaluation import OWN, PUBLISHED

N = 4  # images at each severity; 10,000 as published

CROSS_ENTROPY = (23.1, 31.2, 27.1, 57.0, 25.1, 52.4, 50.1, 52.7, 47.2, 61.1, 70.2, 50.6, 59.4, 52.9, 52.4)
SD_DROPOUT = (21.9, 30.2, 25.4, 59.1, 23.1, 54.2, 52.9, 54.9, 48.7, 63.3, 72.4, 53.6, 60.7, 52.7, 51.2)
"""The rows of Table 6, percent."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All fifteen: image i of severity s of corruption c is filled with the number that the three make."""
    for at, name in enumerate(CORRUPTIONS):
        values = np.zeros((5 * N, 32, 32, 3), np.uint8)
        values += (10 * at + np.arange(5 * N, dtype=np.uint8))[:, None, None, None]
        values[..., 0] = 255  # red, so that the order of the axes shows
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "labels.npy", np.tile(np.array([3, 1, 2, 0], np.uint8), 5))
    return tmp_path


def test_the_blocks_are_the_severities_in_order(folder: Path) -> None:
    published = open_published(folder, per_severity=N)
    assert published.n == N
    assert published.labels.tolist() == [3, 1, 2, 0]
    for at, name in enumerate(CORRUPTIONS):
        for severity in (1, 2, 3, 4, 5):
            view = published.images(name, severity)
            assert view.shape == (N, 32, 32, 3)
            index = view[:, 5, 5, 2] - 10 * at
            assert (index // N == severity - 1).all(), "severity is index // images per severity"
            assert (index % N == np.arange(N)).all(), "each block in the order of the test set"


def test_a_view_stays_on_disk_and_cannot_be_written(folder: Path) -> None:
    view = open_published(folder, per_severity=N).images("fog", 3)
    assert isinstance(view, np.memmap)
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_are_unnormalised_and_in_order(folder: Path, batch_size: int) -> None:
    published = open_published(folder, per_severity=N)
    images, labels = zip(*published.batches("snow", 2, batch_size), strict=True)
    pixels, y = torch.cat(images), torch.cat(labels)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (N, 3, 32, 32)
    assert (pixels[:, 0] == 255).all()
    assert pixels[:, 1, 0, 0].tolist() == [10 * CORRUPTIONS.index("snow") + N + i for i in range(N)]
    assert y.tolist() == [3, 1, 2, 0]
    assert y.dtype == torch.int64
    with pytest.raises(ValueError, match="batch_size: 0"):
        next(published.batches("snow", 2, 0))


def test_the_four_more_that_are_published_are_not_looked_at(folder: Path) -> None:
    (folder / "speckle_noise.npy").write_bytes(b"damaged")
    published = open_published(folder, per_severity=N)
    with pytest.raises(ValueError, match="'speckle_noise' is not one of the 15 corruptions of Table 6"):
        published.images("speckle_noise", 1)
    with pytest.raises(ValueError, match="did you mean 'frost'"):
        published.images("frosty", 1)
    with pytest.raises(ValueError, match="severity: 6"):
        published.images("frost", 6)


def wrong(folder: Path, message: str, **settings) -> None:
    with pytest.raises(ValueError, match=message) as error:
        open_published(folder, **({"per_severity": N} | settings))
    assert "\n" not in str(error.value)
    assert "zenodo.org" in str(error.value) or "differ between severities" in str(error.value)


def test_missing_files_are_named_at_once_with_where_to_get_them(folder: Path) -> None:
    (folder / "fog.npy").unlink()
    (folder / "snow.npy").unlink()
    wrong(folder, r"snow.npy, fog.npy missing; get them from https://zenodo.org/records/2535967 \(CIFAR-10-C\)")
    (folder / "labels.npy").unlink()
    wrong(folder, "labels.npy missing")
    wrong(folder / "nowhere", "no such folder")


def test_damaged_files_are_named(folder: Path) -> None:
    whole = (folder / "fog.npy").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:40], b"", b"not an array at all"):
        (folder / "fog.npy").write_bytes(content)
        wrong(folder, r"fog.npy: cannot be read as an array \(.*\); get the file again from")
    np.save(folder / "fog.npy", np.array([{}]), allow_pickle=True)
    wrong(folder, "fog.npy: cannot be read as an array")
    with (folder / "fog.npy").open("wb") as file:
        np.savez(file, fog=np.zeros(3))
    wrong(folder, "fog.npy: cannot be read as an array")


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((5 * N - 1, 32, 32, 3), np.uint8),  # a wrong count
        np.zeros((N, 32, 32, 3), np.uint8),  # one severity only
        np.zeros((5 * N, 3, 32, 32), np.uint8),
        np.zeros((5 * N, 64, 64, 3), np.uint8),  # Tiny ImageNet-C's size
        np.zeros((5 * N, 32, 32, 3), np.float32),
    ],
)
def test_misshaped_images_are_named_with_what_was_expected(folder: Path, values: np.ndarray) -> None:
    np.save(folder / "contrast.npy", values)
    wrong(folder, r"contrast.npy: (uint8|float32) \(.*\), expected uint8 \(20, 32, 32, 3\); get the file again")


def test_published_files_have_50_000_images(folder: Path) -> None:
    wrong(folder, r"labels.npy: uint8 \(20,\), expected integers \(50000,\)", per_severity=10_000)


def test_the_archive_is_unpacked_once_where_it_lies_or_is_downloaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published tree, with tiny files; what is there already is left as it is."""
    tree, root = tmp_path / "CIFAR-100-C", tmp_path / "data"
    tree.mkdir()
    for number in range(19):
        np.save(tree / f"{number}.npy", np.zeros(1))
    np.save(tree / "labels.npy", np.zeros(1))
    with tarfile.open(tmp_path / "CIFAR-100-C.tar", "w") as tar:
        tar.add(tree, "CIFAR-100-C")
    made = (tmp_path / "CIFAR-100-C.tar").read_bytes()
    archive_of(monkeypatch, tmp_path / "nowhere", made)
    with pytest.raises(RuntimeError, match=r"^CIFAR-100-C is not in .*: put CIFAR-100-C.tar of https://zenodo.* into"):
        fetch_cifar100c(root)
    archive_of(monkeypatch, tmp_path / "CIFAR-100-C.tar", made + b"longer")
    with pytest.raises(RuntimeError, match="sent another file"):
        fetch_cifar100c(root)
    assert not (root / "CIFAR-100-C").exists()
    archive_of(monkeypatch, tmp_path / "CIFAR-100-C.tar", made)
    assert fetch_cifar100c(root) == root / "CIFAR-100-C"
    assert len(list((root / "CIFAR-100-C").glob("*.npy"))) == 20
    (root / "CIFAR-100-C" / "3.npy").unlink()
    archive_of(monkeypatch, tmp_path / "nowhere", made)
    assert fetch_cifar100c(root) == root / "CIFAR-100-C", "its files are checked when they are opened"


def archive_of(monkeypatch: pytest.MonkeyPatch, file: Path, content: bytes) -> None:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(published, "CIFAR100C", replace(published.CIFAR100C, address=file.as_uri(), md5=md5))


def test_labels_that_are_not_the_test_set_s_five_times(folder: Path) -> None:
    np.save(folder / "labels.npy", np.repeat(np.arange(4), 5))  # sorted by image instead of by severity
    wrong(folder, "the labels differ between severities")
    np.save(folder / "labels.npy", np.zeros(5 * N, np.float64))
    wrong(folder, r"labels.npy: float64 \(20,\), expected integers \(20,\)")
    np.save(folder / "labels.npy", np.full(5 * N, -1))
    wrong(folder, "label -1 is negative")


def test_the_other_set_s_labels_are_refused(folder: Path) -> None:
    assert open_published(folder, classes=4, per_severity=N).n == N
    wrong(folder, "labels of 4 classes, but the network has 100; get the other set", classes=100)


def rows(percent: tuple[float, ...]) -> dict[str, list[float]]:
    return {name: [value / 100] * 5 for name, value in zip(CORRUPTIONS, percent, strict=True)}


def test_mca_is_the_mean_of_table_6_s_fifteen_rows() -> None:
    """The paper prints 47.49 and 48.28, of rows before they were rounded."""
    assert 100 * summarise(rows(CROSS_ENTROPY), n=10_000, source=PUBLISHED).mca == pytest.approx(47.50, abs=0.005)
    assert 100 * summarise(rows(SD_DROPOUT), n=10_000, source=PUBLISHED).mca == pytest.approx(48.29, abs=0.005)


def test_the_four_more_are_in_no_mean() -> None:
    nineteen = rows(CROSS_ENTROPY) | dict.fromkeys(("speckle_noise", "gaussian_blur", "spatter", "saturate"), [1.0] * 5)
    assert summarise(nineteen, n=1, source=PUBLISHED) == summarise(rows(CROSS_ENTROPY), n=1, source=PUBLISHED)


def test_means_by_hand() -> None:
    accuracy = {name: [0.5 + 0.01 * at - 0.1 * s for s in range(5)] for at, name in enumerate(CORRUPTIONS)}
    result = summarise(dict(reversed(accuracy.items())), n=7, source=OWN)
    assert tuple(result.accuracy) == CORRUPTIONS, "the order of Table 6, whatever was given"
    assert result.per_corruption["gaussian_noise"] == pytest.approx(0.3)
    assert result.per_corruption["jpeg_compression"] == pytest.approx(0.44)
    assert result.per_severity == pytest.approx((0.57, 0.47, 0.37, 0.27, 0.17))
    assert result.mca == pytest.approx(0.37), "accuracy, not an error divided by another network's"
    assert result.mca == pytest.approx(sum(result.per_severity) / 5)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"fog": None}, {}, "fog missing; the mean is over all 15"),
        ({"fog": [0.5] * 4}, {}, "fog has .*, expected five fractions"),
        ({"fog": [0.5, 0.5, 0.5, 0.5, 50.0]}, {}, "expected five fractions"),
        ({"fog": [0.5, 0.5, float("nan"), 0.5, 0.5]}, {}, "expected five fractions"),
        ({}, {"n": 0}, "n: 0"),
        ({}, {"source": "somewhere"}, "source: 'somewhere'"),
    ],
)
def test_what_cannot_be_summarised(change, settings, message: str) -> None:
    accuracy = {name: values for name, values in (rows(SD_DROPOUT) | change).items() if values is not None}
    with pytest.raises(ValueError, match=message):
        summarise(accuracy, **({"n": 1, "source": OWN} | settings))
