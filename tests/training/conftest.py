"""Small sets and a small recipe: a run takes well under a second."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, Split
from selfdistill.progress import Progress
from selfdistill.records import RunRecord
from selfdistill.training import load, train


def images(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Noise around a grey level that says the class."""
    noise = torch.randint(0, 60, (len(labels), 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    return (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)


@pytest.fixture(scope="session")
def data() -> ImageData:
    labels = torch.arange(44) % 3
    return ImageData(
        name="grey",
        train=Split(labels, images=images(labels, 0)),
        test=Split(labels[:21], images=images(labels[:21], 1)),
        classes=("dark", "grey", "light"),
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        image_size=16,
        augment="crop_flip",
        test_split_description="test folder",
    )


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, data: ImageData) -> ImageData:
    """The same kind of images as files that workers decode."""
    root = tmp_path_factory.mktemp("photos")

    def as_files(part: str, split: Split) -> Split:
        assert split.images is not None
        paths = tuple(root / f"{part}{i}.png" for i in range(len(split)))
        for image, path in zip(split.images, paths, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).resize((24, 20)).save(path)
        return Split(split.labels, paths=paths)

    return replace(data, train=as_files("train", data.train), test=as_files("test", data.test))


@pytest.fixture
def recipe() -> TrainConfig:
    return TrainConfig(
        data="grey", model="resnet10_cifar", width=4, epochs=3, batch_size=16, lr=0.05, method="SDDropout()", threads=1
    )


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.Popen[str]]:
    """Start Python on a piece of code with arguments."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    return start


@pytest.fixture
def same_run() -> Callable[[Path, Path], None]:
    """Assert that two run folders hold the same bits, times apart."""

    def check(one: Path, other: Path) -> None:
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
        assert timeless(one / "log.csv") == timeless(other / "log.csv")

    return check


def train_with_a_stop(recipe: TrainConfig, out: Path, data: ImageData, *, after: int = 2) -> RunRecord:
    """Train, break off after so many epochs, and go on."""

    def stop(event: Progress) -> None:
        if event.epoch_done and event.training is not None and event.training.epoch == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, data=data, progress=stop, save_seconds=1e-9)
    return train(recipe, out, data=data)


def assert_same_weights(one: Path, other: Path) -> None:
    """Compare the networks of two runs bit by bit."""
    ours, theirs = load(one).state_dict(), load(other).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def timeless(log: Path) -> list[list[str]]:
    """The log without its two last columns, seconds and images per second."""
    return [line.split(",")[:-2] for line in log.read_text().splitlines()]
