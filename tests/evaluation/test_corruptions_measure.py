from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, Split
from selfdistill.evaluation.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    PublishedCorruptions,
    corrupt,
    measure_corruptions,
    open_published,
)
from selfdistill.evaluation.images import Images
from selfdistill.records.evaluation import OWN, PUBLISHED
from tests import nets

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
N = 6  # published images at each severity; 10,000 as published


def images_of(pixels: Tensor, labels: Tensor, batch_size: int = 4) -> Images:
    split = Split(labels=labels, images=pixels)
    data = ImageData(
        name="noise",
        train=split,
        test=split,
        classes=tuple("abcde"),
        mean=MEAN,
        std=STD,
        image_size=pixels.shape[-1],
        augment="none",
        test_split_description="test folder",
    )
    return Images(split, data, device="cpu", batch_size=batch_size)


@pytest.fixture
def model() -> nn.Module:
    """Reads colour and sharpness, so that corruptions change its answers; none of its numbers are near a tie."""
    net = nn.Sequential(nets.ConvNet(), nn.Dropout(0.5))
    net[0].fc.weight.data *= 5
    return net


def blotches(n: int, size: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(n, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(coarse, size=size, mode="bilinear")).to(torch.uint8)


def prediction(model: nn.Module, pixels: Tensor) -> int:
    """Of one image (3, S, S), normalised by hand."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        return int(model.eval()(((pixels.float() / 255 - mean) / std)[None]).argmax())


@pytest.fixture
def images(model: nn.Module) -> Images:
    """Ten, of which the network knows eight before they are corrupted."""
    pixels = blotches(10, 16)
    labels = torch.tensor([prediction(model, one) for one in pixels])
    labels[3], labels[7] = (labels[3] + 1) % 5, (labels[7] + 1) % 5
    return images_of(pixels, labels)


def test_own_corruptions_against_each_image_on_its_own(model: nn.Module, images: Images) -> None:
    found = measure_corruptions(model, images, seed=3)
    assert (found.n, found.source) == (10, OWN)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            right = 0
            for pixels, label in zip(images.split.images, images.split.labels.tolist(), strict=True):
                right += prediction(model, corrupt(pixels[None], name, severity, 3)[0]) == label
            assert found.accuracy[name][severity - 1] == right / 10
    assert len({accuracy for row in found.accuracy.values() for accuracy in row}) > 3


def test_another_seed_draws_other_noise(model: nn.Module, images: Images) -> None:
    found = measure_corruptions(model, images)
    assert found == measure_corruptions(model, images, seed=0)
    assert found != measure_corruptions(model, images, seed=1)


def published_folder(folder: Path, size_of_labels: int = 5) -> PublishedCorruptions:
    for at, name in enumerate(CORRUPTIONS):
        pixels = blotches(5 * N, 32, seed=at)
        np.save(folder / f"{name}.npy", pixels.permute(0, 2, 3, 1).contiguous().numpy())
    np.save(folder / "labels.npy", np.tile(np.arange(N) % size_of_labels, 5).astype(np.uint8))
    return open_published(folder, per_severity=N)


def test_published_arrays_against_each_image_on_its_own(model: nn.Module, tmp_path: Path) -> None:
    published = published_folder(tmp_path)
    test = images_of(blotches(3, 32), torch.tensor([4, 4, 4]))  # others, and fewer: only their normalisation counts
    found = measure_corruptions(model, test, published=published)
    assert (found.n, found.source) == (N, PUBLISHED)
    for name in CORRUPTIONS:
        whole = np.load(tmp_path / f"{name}.npy")
        for severity in SEVERITIES:
            block = torch.from_numpy(whole[(severity - 1) * N : severity * N]).permute(0, 3, 1, 2)
            right = [prediction(model, one) == label for one, label in zip(block, published.labels, strict=True)]
            assert found.accuracy[name][severity - 1] == sum(right) / N
    assert len({accuracy for row in found.accuracy.values() for accuracy in row}) > 2


@pytest.mark.parametrize("source", [OWN, PUBLISHED])
def test_the_batch_size_changes_nothing_and_the_bar_ends_at_75_n(model: nn.Module, source: str, tmp_path: Path) -> None:
    published = published_folder(tmp_path) if source == PUBLISHED else None
    pixels, labels = blotches(5, 32), torch.arange(5)
    results = []
    for batch_size in (1, 3, 512):
        ticks: list[int] = []
        images = images_of(pixels, labels, batch_size)
        results.append(measure_corruptions(model, images, published=published, tick=ticks.append))
        assert sum(ticks) == 75 * results[-1].n
        assert max(ticks) <= batch_size
    assert results[0] == results[1] == results[2]
    assert results[0].source == source


class Counted(Images):
    """Counts the times that its images are decoded."""

    passes = 0

    def pixels(self) -> Iterator[tuple[Tensor, Tensor]]:
        type(self).passes += 1
        return super().pixels()


def test_an_image_is_decoded_once(model: nn.Module, images: Images) -> None:
    measure_corruptions(model, Counted(images.split, images.data, "cpu", batch_size=4))
    assert Counted.passes == 1


def test_what_the_caller_left_behind_changes_nothing_and_stays(model: nn.Module, images: Images) -> None:
    expected = measure_corruptions(model.eval(), images)
    model.train()
    model[0].norm.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert measure_corruptions(model, images) == expected
    assert model.training
    assert not model[0].norm.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_published_images_of_another_size_are_refused(model: nn.Module, images: Images, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images of 32 x 32 pixels, but the network takes 16 x 16; without") as caught:
        measure_corruptions(model, images, published=published_folder(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_clear_line(model: nn.Module, images: Images) -> None:
    with pytest.raises(ValueError, match=r"^images: "):
        measure_corruptions(model, images_of(blotches(2, 8), torch.zeros(2, dtype=torch.long)))
    with pytest.raises(ValueError, match=r"^n: "):
        measure_corruptions(model, images.part(0, 0))
    nn.init.constant_(model[0].fc.bias, float("nan"))
    with pytest.raises(ValueError, match=r"^logits: 4 of 4 rows are not finite; the model diverged"):
        measure_corruptions(model, images)
