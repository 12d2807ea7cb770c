"""The corruptions as a whole: names, constants, determinism, batching, severity, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from selfdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, apply, corrupt, mean_distance, table
from selfdistill.evaluation.corruptions.pixels import Draws, fingerprint

RESULTS = Path(__file__).parents[2] / "results" / "corruptions"
DRAWN = {"gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur"} | {
    *("snow", "frost", "fog", "elastic_transform")
}
"""The others draw nothing: another seed gives the same images."""

NOT_MONOTONE = {
    32: {"glass_blur", "frost", "elastic_transform"},
    224: {"glass_blur", "snow", "frost", "fog", "elastic_transform"},
}
"""By the published constants: glass blurs less and shuffles more in turn, frost darkens as it whitens, snow's and fog's
amounts repeat, and elastic trades a large affine map for a small rough one."""


@pytest.fixture(scope="module")
def patches() -> Tensor:
    """120 patches of 32 x 32 of two photographs at half size, uint8 (120, 3, 32, 32)."""
    found = []
    for photograph in load_sample_images().images:
        half = torch.from_numpy(np.array(photograph[::2, ::2])).permute(2, 0, 1)[:, :192, :320]
        found.append(half.reshape(3, 6, 32, 10, 32).permute(1, 3, 0, 2, 4).reshape(60, 3, 32, 32))
    return torch.cat(found)


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """The middles of two photographs, uint8 (2, 3, 224, 224)."""
    parts = [np.array(photograph[100:324, 200:424]) for photograph in load_sample_images().images]
    return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).contiguous()


def test_the_fifteen_of_table_6_in_its_order() -> None:
    in_order = (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    )
    assert in_order == CORRUPTIONS
    assert not set(table.EXTRA) & set(CORRUPTIONS)
    for constants in (table.CIFAR_C, table.IMAGENET_C):
        assert tuple(constants) == CORRUPTIONS
        assert all(len(values) == 5 and len({len(v) for v in values}) == 1 for values in constants.values())
    assert tuple(apply._BY_NAME) == CORRUPTIONS


def test_small_images_have_the_constants_of_cifar_c_and_not_of_imagenet_c() -> None:
    """Grey with a faint texture (equal images would meet equal noise): the noise's sd tells the constant."""
    for size, expected in ((32, table.CIFAR_C), (84, table.CIFAR_C), (85, table.IMAGENET_C), (224, table.IMAGENET_C)):
        assert table.constants_for(size) is expected
        grey = torch.randint(126, 130, (1 if size > 84 else 8, 3, size, size), dtype=torch.uint8)
        noise = corrupt(grey, "gaussian_noise", 1).double() - grey
        sigma = expected["gaussian_noise"][0][0]
        assert noise.std() / 255 == pytest.approx(sigma, rel=0.03)
    harsher = ("gaussian_noise", "impulse_noise", "brightness", "fog", "defocus_blur")
    assert all(table.IMAGENET_C[name][0][0] > table.CIFAR_C[name][0][0] for name in harsher)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_uint8_of_the_same_shape_and_another_image(patches: Tensor, name: str) -> None:
    before = patches[:5].clone()
    for severity in SEVERITIES:
        result = corrupt(patches[:5], name, severity)
        assert result.dtype == torch.uint8
        assert result.shape == (5, 3, 32, 32)
        assert result.is_contiguous()
        assert mean_distance(patches[:5], result) > 0
    assert torch.equal(patches[:5], before)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [16, 33, 100])
def test_other_sizes(name: str, size: int) -> None:
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    for severity in (1, 5):
        assert corrupt(images, name, severity).shape == images.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_s_result_is_its_own(patches: Tensor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, among others, in another order, and cut into parts inside: the same bits."""
    images = patches[30:47]
    together = corrupt(images, name, 4)
    assert torch.equal(corrupt(images, name, 4), together)
    order = torch.randperm(len(images))
    assert torch.equal(corrupt(images[order], name, 4), together[order])
    assert torch.equal(torch.cat([corrupt(part, name, 4) for part in images.split(5)]), together)
    assert torch.equal(corrupt(images[3:4], name, 4), together[3:4])
    assert torch.equal(corrupt(images.to(memory_format=torch.channels_last), name, 4), together)
    monkeypatch.setattr(apply, "_AT_ONCE", 4 * images[0].numel())
    assert torch.equal(corrupt(images, name, 4), together)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_severity_and_image_each_draw_anew(patches: Tensor, name: str) -> None:
    images = patches[:4]
    first = corrupt(images, name, 2, seed=0)
    assert torch.equal(first, corrupt(images, name, 2)), "the default is seed 0"
    assert torch.equal(first, corrupt(images, name, 2, seed=1)) == (name not in DRAWN)
    assert not torch.equal(first, corrupt(images, name, 3))


def test_the_noise_of_different_images_is_unrelated() -> None:
    """Two images that differ in one value by one level, and two severities of one image."""
    image = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    other = image.clone()
    other[0, 0, 0, 0] = 129
    a, b = (corrupt(x, "gaussian_noise", 1).double().flatten() for x in (image, other))
    c = corrupt(image, "gaussian_noise", 2).double().flatten()
    for pair in ((a, b), (a, c)):
        assert abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 5 / len(a) ** 0.5


def test_fingerprints_tell_images_apart() -> None:
    images = torch.zeros(3000, 3, 16, 16, dtype=torch.uint8)
    images.flatten(1)[torch.arange(3000), torch.arange(3000) % 768] = 1 + torch.arange(3000).div(768).to(torch.uint8)
    assert len(fingerprint(images).unique()) == 3000
    assert torch.equal(fingerprint(images[7:9]), fingerprint(images)[7:9])


def test_draws_are_float64_uniform_normal_and_whole() -> None:
    draws = Draws(5, torch.arange(4) * 10**12)
    u, n, i = draws.uniform(0, 20_000), draws.normal(1, 20_000), draws.integers(2, -2, 2, 20_000)
    assert u.dtype == n.dtype == torch.float64
    assert 0 < u.min() < 1e-3
    assert 1 > u.max() > 1 - 1e-3
    assert float(u.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(n.mean()) == pytest.approx(0, abs=0.02)
    assert float(n.std()) == pytest.approx(1, abs=0.02)
    assert float((n.abs() > 3).double().mean()) == pytest.approx(0.0027, abs=0.001)
    assert i.unique().tolist() == [-2, -1, 0, 1]
    assert not torch.equal(u, draws.uniform(1, 20_000))


@pytest.mark.parametrize("size", [32, 224])
def test_severity_is_monotone_in_distance_where_the_constants_are(patches, photographs, size: int) -> None:
    images = patches if size == 32 else photographs
    for name in CORRUPTIONS:
        distance = [mean_distance(images, corrupt(images, name, severity)) for severity in SEVERITIES]
        if name not in NOT_MONOTONE[size]:
            assert distance == sorted(distance), (name, distance)
            assert distance[4] > 1.1 * distance[0], (name, distance)


def test_the_committed_distances_are_those_of_the_code(photographs: Tensor) -> None:
    """The photographs' record of results/corruptions, of which `studies/corruptions.py` prints the table."""
    record = json.loads((RESULTS / "photographs.json").read_text())
    assert (record["n"], record["image_size"], record["seed"]) == (2, 224, 0)
    assert tuple(record["distance"]) == CORRUPTIONS
    for name, expected in record["distance"].items():
        distance = [mean_distance(photographs, corrupt(photographs, name, severity)) for severity in SEVERITIES]
        assert distance == pytest.approx(expected, rel=0.01), name  # another libjpeg decodes a little differently


def test_the_committed_distances_at_32_pixels_are_monotone_where_the_constants_are() -> None:
    record = json.loads((RESULTS / "cifar100.json").read_text())
    falling = {name for name, distance in record["distance"].items() if distance != sorted(distance)}
    assert falling == NOT_MONOTONE[32]


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("gausian_noise", 1, "name: 'gausian_noise' is not one of the 15 corruptions; did you mean 'gaussian_noise'"),
        ("jpeg", 1, "did you mean|choose from"),
        ("xyz", 1, "choose from gaussian_noise, shot_noise"),
        ("saturate", 1, "not one of the 15 corruptions of Table 6, though it is published"),
        ("fog", 0, "severity: 0, expected 1, 2, 3, 4 or 5"),
        ("fog", 6, "severity: 6"),
        ("fog", 2.0, "severity: 2.0"),
        ("fog", True, "severity: True"),
    ],
)
def test_wrong_names_and_severities_are_one_line(name, severity, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        corrupt(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), name, severity)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 32, 32), "torch.float32, expected torch.uint8"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), r"permute\(0, 3, 1, 2\) first"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), r"expected squares in colour \(N, 3, S, S\)"),
        (torch.zeros(2, 3, 32, 48, dtype=torch.uint8), "expected squares"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), "expected squares"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "8 x 8 pixels, expected at least 16 x 16"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrupt(images, "fog", 1)


def test_no_image_gives_no_image() -> None:
    assert corrupt(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), "fog", 1).shape == (0, 3, 32, 32)


def test_distance_by_hand_and_of_unlike_shapes() -> None:
    clean = torch.tensor([[0, 255], [7, 7]], dtype=torch.uint8)
    assert mean_distance(clean, torch.tensor([[255, 0], [7, 9]], dtype=torch.uint8)) == 512 / 4
    with pytest.raises(ValueError, match="shape"):
        mean_distance(clean, clean[0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_gpu_draws_what_the_cpu_draws(patches: Tensor, name: str) -> None:
    """Up to the last bit of a logarithm or an exponential, which may move a level across a whole number."""
    on_gpu = corrupt(patches.cuda(), name, 3).cpu()
    assert float((on_gpu != corrupt(patches, name, 3)).double().mean()) < 1e-4
