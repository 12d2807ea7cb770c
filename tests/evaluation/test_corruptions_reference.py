"""Each corruption against its definition, written down literally: loops over pixels, scipy, PIL and colorsys."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from selfdistill.data.randomness import hash_key
from selfdistill.evaluation.corruptions import CORRUPTIONS, corrupt, resample
from selfdistill.evaluation.corruptions.blur import defocus_blur, disk, displace, glass_blur, zoom_blur
from selfdistill.evaluation.corruptions.digital import affine, box_resize, elastic_transform, pixelate
from selfdistill.evaluation.corruptions.noise import poisson
from selfdistill.evaluation.corruptions.pixels import Draws, fingerprint
from selfdistill.evaluation.corruptions.table import CIFAR_C, IMAGENET_C
from selfdistill.evaluation.corruptions.weather import frost, ice, plasma


@pytest.fixture
def images() -> Tensor:
    """Smooth blobs with a little noise, uint8 (3, 3, 32, 32): every level occurs, and neighbours are alike."""
    noise = np.random.default_rng(0).normal(size=(3, 3, 32, 32))
    smooth = ndimage.gaussian_filter(noise, (0, 0.5, 3, 3)) * 6 + 0.1 * noise
    return torch.from_numpy((255 * (smooth - smooth.min()) / np.ptp(smooth)).round().astype(np.uint8))


def array(image: Tensor) -> np.ndarray:
    """(3, S, S) in [0, 1]."""
    return image.numpy() / 255


def pixels(x: np.ndarray) -> np.ndarray:
    """Clipped and cut off; what is whole but for rounding is whole."""
    return np.floor(np.clip(x, 0, 1) * 255 + 1e-6).astype(np.uint8)


def draws_of(images: Tensor, name: str, severity: int, seed: int = 0) -> Draws:
    return Draws(hash_key(seed, CORRUPTIONS.index(name), severity), fingerprint(images))


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_noise_in_distribution(severity: int) -> None:
    grey = torch.randint(126, 130, (20, 3, 32, 32), dtype=torch.uint8)
    noise = corrupt(grey, "gaussian_noise", severity).double() - grey
    sigma = 255 * CIFAR_C["gaussian_noise"][severity - 1][0]
    n = noise.numel()
    assert float(noise.mean()) == pytest.approx(-0.5, abs=5 * sigma / n**0.5)  # the fraction is cut off
    assert float(noise.std()) == pytest.approx((sigma**2 + 1 / 12) ** 0.5, rel=5 / (2 * n) ** 0.5)
    channels = noise.transpose(0, 1).flatten(1)
    assert torch.corrcoef(channels).fill_diagonal_(0).abs().max() < 5 / channels.shape[1] ** 0.5


def test_gaussian_noise_is_clipped_at_black_and_white() -> None:
    half = torch.randint(0, 2, (4, 3, 32, 32), dtype=torch.uint8) * 255
    noisy = corrupt(half, "gaussian_noise", 5)
    assert ((noisy == half).double().mean() - 0.5).abs() < 0.05


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_shot_noise_has_the_mean_and_variance_of_photons(severity: int) -> None:
    photons = CIFAR_C["shot_noise"][severity - 1][0]
    for level in (20, 128):
        grey = torch.full((20, 3, 32, 32), level, dtype=torch.uint8)
        grey[:, :, 0, 0] = torch.arange(20)[:, None].to(torch.uint8)  # equal images would meet equal noise
        noisy = corrupt(grey, "shot_noise", severity)[:, :, 1:].double() / 255
        x, n = level / 255, noisy.numel()
        sd = (x / photons) ** 0.5
        assert float(noisy.mean()) == pytest.approx(x, abs=5 * sd / n**0.5 + 1 / 255)
        assert float(noisy.std()) == pytest.approx(sd, rel=0.03)


@pytest.mark.parametrize("photons", [3, 60, 500])
def test_poisson_against_scipy(photons: int) -> None:
    levels = torch.randint(0, 256, (3000,), dtype=torch.uint8)
    levels[:3] = torch.tensor([0, 255, 255])
    u = torch.rand(3000, dtype=torch.float64)
    u[1:3] = torch.tensor([1e-9, 1 - 1e-9], dtype=torch.float64)
    theirs = stats.poisson.ppf(u.numpy(), photons / 255 * levels.double().numpy())
    theirs[levels.numpy() == 0] = 0  # a mean of 0 gives no number there
    assert np.array_equal(poisson(levels, photons, u).numpy(), theirs)


def test_impulse_noise_is_salt_and_pepper_in_single_channels(images: Tensor) -> None:
    grey = images.clamp(1, 254).repeat(8, 1, 1, 1)
    grey[:, 0, 0, 0] = torch.arange(1, 25).to(torch.uint8)
    for severity in (1, 5):
        noisy = corrupt(grey, "impulse_noise", severity)
        amount, n = CIFAR_C["impulse_noise"][severity - 1][0], noisy.numel()
        for value in (0, 255):
            share = float((noisy == value).double().mean())
            assert share == pytest.approx(amount / 2, abs=5 * (amount / 2 / n) ** 0.5)
        kept = (noisy != 0) & (noisy != 255)
        assert torch.equal(noisy[kept], grey[kept])
        changed = (~kept).sum(dim=1)
        assert (changed == 1).sum() > 10 * (changed == 3).sum()


def reflected(index: int, size: int) -> int:
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


@pytest.mark.parametrize(("radius", "sigma"), [*CIFAR_C["defocus_blur"], (3, 0.1), (8, 0.5), (10, 0.5)])
def test_the_disk(radius: float, sigma: float) -> None:
    reach = 8 if radius <= 8 else radius
    hard = {
        (i, j): float(i * i + j * j <= radius * radius)
        for i in range(-reach, reach + 1)
        for j in range(-reach, reach + 1)
    }
    total, soft = sum(hard.values()), 1 if radius <= 8 else 2
    weight = {t: math.exp(-t * t / (2 * sigma * sigma)) for t in range(-soft, soft + 1)}
    norm, side = sum(weight.values()), 2 * reach + 1

    def value(i: int, j: int) -> float:
        near = [(p, q) for p in weight for q in weight]
        at = {(p, q): tuple(reflected(k + reach, side) - reach for k in (i + p, j + q)) for p, q in near}
        return sum(weight[p] * weight[q] * hard[at[p, q]] for p, q in near) / norm**2 / total

    expected = [[value(i, j) for j in range(-reach, reach + 1)] for i in range(-reach, reach + 1)]
    np.testing.assert_allclose(disk(radius, sigma).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize(("radius", "sigma"), [(0.3, 0.4), (1.5, 0.1), (4, 0.5)])
def test_defocus_blur_is_a_weighted_mean_over_the_disk(images: Tensor, radius: float, sigma: float) -> None:
    kernel, x = disk(radius, sigma).numpy(), array(images[0, :, :20, :20])
    expected = np.zeros((3, 20, 20))
    for row in range(20):
        for column in range(20):
            for i, j in zip(*np.nonzero(kernel), strict=True):
                at = reflected(row + i - 8, 20), reflected(column + j - 8, 20)
                expected[:, row, column] += kernel[i, j] * x[:, at[0], at[1]]
    ours = defocus_blur(images[:1, :, :20, :20], draws_of(images, "defocus_blur", 1), radius, sigma)
    assert np.array_equal(ours[0].numpy(), pixels(expected))


@pytest.mark.parametrize(("sigma", "size"), [(0.05, 9), (0.25, 9), (0.4, 9), (1.5, 20), (6.4, 32), (30, 9)])
def test_gaussian_blur_against_scipy(sigma: float, size: int) -> None:
    x = torch.rand(2, size, size, dtype=torch.float64)
    for mirrored, mode, truncate in ((False, "nearest", 4.0), (True, "reflect", 3.0)):
        theirs = ndimage.gaussian_filter(x.numpy(), (0, sigma, sigma), mode=mode, truncate=truncate)
        ours = resample.gaussian_blur(x, sigma, truncate=truncate, mirrored=mirrored)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-14)


@pytest.mark.parametrize("delta", [1, 2, 4])
def test_displace_takes_pixel_after_pixel_from_the_last_to_the_first(images: Tensor, delta: int) -> None:
    down, right = torch.randint(-delta, delta, (2, 3, 32, 32))
    expected, i, j = images.numpy().copy(), down.numpy(), right.numpy()
    for n in range(3):
        for row in range(32 - delta, delta, -1):
            for column in range(32 - delta, delta, -1):
                expected[n, :, row, column] = expected[n, :, row + i[n, row, column], column + j[n, row, column]]
    assert np.array_equal(displace(images, down, right, delta).numpy(), expected)


def test_displace_is_what_an_assignment_of_views_does(images: Tensor) -> None:
    """`a[p], a[q] = a[q], a[p]` with rows of a numpy array: the second half finds the first one done."""
    down, right = torch.randint(-2, 2, (2, 1, 16, 16))
    image = images[0, :, :16, :16].permute(1, 2, 0).numpy().copy()
    for h in range(14, 2, -1):
        for w in range(14, 2, -1):
            p, q = (h, w), (h + int(down[0, h, w]), w + int(right[0, h, w]))
            image[p], image[q] = image[q], image[p]
    ours = displace(images[:1, :, :16, :16], down, right, 2)
    assert np.array_equal(ours[0].permute(1, 2, 0).numpy(), image)


@pytest.mark.parametrize(("sigma", "delta", "times"), [CIFAR_C["glass_blur"][4], IMAGENET_C["glass_blur"][2]])
def test_glass_blur_step_by_step(images: Tensor, sigma: float, delta: int, times: int) -> None:
    draws = draws_of(images, "glass_blur", 1)
    x = np.floor(ndimage.gaussian_filter(images.numpy() / 255, (0, 0, sigma, sigma), mode="nearest") * 255 + 1e-6)
    for time in range(times):
        offset = draws.integers(time, -delta, delta, 2, 32, 32).numpy()
        assert set(np.unique(offset)) == set(range(-delta, delta))
        for n in range(3):
            for row in range(32 - delta, delta, -1):
                for column in range(32 - delta, delta, -1):
                    down, right = offset[n, :, row, column]
                    x[n, :, row, column] = x[n, :, row + down, column + right]
    expected = pixels(ndimage.gaussian_filter(x / 255, (0, 0, sigma, sigma), mode="nearest"))
    assert np.array_equal(glass_blur(images, draws, sigma, delta, times).numpy(), expected)


def literal_motion(levels: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Pixel by pixel, (C, S, S) in and out."""
    size, width = levels.shape[-1], 2 * math.ceil(radius) + 1
    weight = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(width)]
    angle, result = math.radians(degrees), np.zeros_like(levels)
    for i in range(width):
        right, down = (math.ceil(i * part - 0.5) for part in (math.cos(angle), math.sin(angle)))
        for row in range(size):
            for column in range(size):
                at = min(max(row + down, 0), size - 1), min(max(column + right, 0), size - 1)
                result[:, row, column] += weight[i] / sum(weight) * levels[:, at[0], at[1]]
    return result


def test_motion_blur_pixel_by_pixel(images: Tensor) -> None:
    levels = images[:, :, :12, :12].double()
    degrees = torch.tensor([-44.0, 13.7, -120.0])
    ours = resample.motion_blur(levels, 5, 1.5, degrees)
    for n in range(3):
        expected = literal_motion(levels[n].numpy(), 5, 1.5, float(degrees[n]))
        np.testing.assert_allclose(ours[n].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("severity", [1, 5])
def test_motion_blur_is_within_45_degrees_of_the_horizontal_and_rounded(images: Tensor, severity: int) -> None:
    degrees = 90 * draws_of(images, "motion_blur", severity).uniform(0) - 45
    ours = corrupt(images, "motion_blur", severity)
    radius, sigma = CIFAR_C["motion_blur"][severity - 1]
    assert len(degrees.unique()) == 3
    expected = literal_motion(images[1].double().numpy(), radius, sigma, float(degrees[1]))
    assert np.array_equal(ours[1].numpy(), np.floor(expected + 0.5 + 1e-6).astype(np.uint8))


def literal_zoom(x: np.ndarray, factor: float) -> np.ndarray:
    size = x.shape[-1]
    middle = int(np.ceil(size / factor))
    start = (size - middle) // 2
    large = ndimage.zoom(x[:, start : start + middle, start : start + middle], (1, factor, factor), order=1)
    cut = (large.shape[-1] - size) // 2
    return large[:, cut : cut + size, cut : cut + size]


@pytest.mark.parametrize("factor", [1, 1.01, 1.06, 1.25, 1.75, 2.25, 3, 4.5])
def test_zoom_against_scipy(images: Tensor, factor: float) -> None:
    ours = resample.zoom(images.double() / 255, factor)
    for n in range(3):
        np.testing.assert_allclose(ours[n].numpy(), literal_zoom(array(images[n]), factor), atol=1e-14)


@pytest.mark.parametrize(("severity", "factors"), [(1, 7), (2, 12), (3, 16), (4, 21), (5, 26)])
def test_zoom_blur_is_the_mean_over_the_factors(images: Tensor, severity: int, factors: int) -> None:
    """With the end among the factors where floating point puts it there: 1.06 and 1.11, but not 1.16."""
    stop, step = CIFAR_C["zoom_blur"][severity - 1]
    every = np.arange(1, stop, step)
    assert len(every) == factors
    expected = (array(images[2]) + sum(literal_zoom(array(images[2]), f) for f in every)) / (len(every) + 1)
    ours = zoom_blur(images, draws_of(images, "zoom_blur", 1), stop, step)
    assert np.array_equal(ours[2].numpy(), pixels(expected))


@pytest.mark.parametrize("severity", [1, 4])
def test_snow_step_by_step(images: Tensor, severity: int) -> None:
    mean, sd, factor, threshold, radius, sigma, keep = CIFAR_C["snow"][severity - 1]
    draws, x = draws_of(images, "snow", severity), array(images[0])
    layer = literal_zoom(mean + sd * draws.normal(0, 1, 32, 32)[0].numpy(), factor)
    layer[layer < threshold] = 0
    degrees = 90 * float(draws.uniform(1)[0]) - 135
    layer = np.floor(literal_motion(pixels(layer).astype(float), radius, sigma, degrees) + 0.5 + 1e-6) / 255
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    white = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    expected = pixels(white + layer + np.rot90(layer, 2, axes=(1, 2)))
    assert np.array_equal(corrupt(images, "snow", severity)[0].numpy(), expected)


def literal_plasma(noise: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square point by point on a torus; `noise` in (-1, 1) is each point's own."""
    size = len(noise)
    field, step, width = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half = step // 2
        for row in range(half, size, step):
            for column in range(half, size, step):
                corners = [field[(row + i) % size, (column + j) % size] for i in (-half, half) for j in (-half, half)]
                field[row, column] = sum(corners) / 4 + width * noise[row, column] * width
        coarse = field.copy()
        for row in range(0, size, half):
            for column in range(0, size, half):
                if (row + column) // half % 2:
                    ways = ((half, 0), (-half, 0), (0, half), (0, -half))
                    near = [coarse[(row + i) % size, (column + j) % size] for i, j in ways]
                    field[row, column] = sum(near) / 4 + width * noise[row, column] * width
        step, width = half, width / decay
    return (field - field.min()) / (field.max() - field.min())


@pytest.mark.parametrize("decay", [3, 1.75, 1.4])
def test_plasma_point_by_point(decay: float) -> None:
    noise = 2 * torch.rand(2, 16, 16, dtype=torch.float64) - 1
    ours = plasma(noise, decay)
    for n in range(2):
        np.testing.assert_allclose(ours[n].numpy(), literal_plasma(noise[n].numpy(), decay), atol=1e-12)
    assert ours.amin(dim=(1, 2)).tolist() == [0, 0]
    assert ours.amax(dim=(1, 2)).tolist() == [1, 1]


def test_fog_against_its_formula(images: Tensor) -> None:
    images = images.clamp(max=200)
    for severity, (amount, decay) in enumerate(CIFAR_C["fog"], start=1):
        noise = 2 * draws_of(images, "fog", severity).uniform(0, 32, 32) - 1
        x, field = array(images[1]), literal_plasma(noise[1].numpy(), decay)
        expected = pixels((x + amount * field) * x.max() / (x.max() + amount))
        assert np.array_equal(corrupt(images, "fog", severity)[1].numpy(), expected)


def test_fog_of_an_odd_size_is_cut_out_of_the_next_power_of_two(images: Tensor) -> None:
    part = images[:1, :, :30, :30].contiguous()
    amount, decay = CIFAR_C["fog"][0]
    noise = 2 * draws_of(part, "fog", 1).uniform(0, 32, 32) - 1
    x, field = array(part[0]), literal_plasma(noise[0].numpy(), decay)[:30, :30]
    expected = pixels((x + amount * field) * x.max() / (x.max() + amount))
    assert np.array_equal(corrupt(part, "fog", 1)[0].numpy(), expected)


def test_frost_is_procedural_and_says_so(images: Tensor) -> None:
    """The published weights on ice of our own: bluish, uneven, between a quarter and all of white."""
    assert "not the published frost" in (frost.__doc__ or "")
    assert "procedural" in (frost.__doc__ or "")
    assert "procedural" in (corrupt.__doc__ or "")
    layer = ice(*(2 * torch.rand(2, 8, 64, 64, dtype=torch.float64) - 1))
    assert 0.25 <= layer.min() < 0.3
    assert 0.85 < layer.max() <= 1
    assert 0.4 < layer.mean() < 0.6
    assert layer.std() > 0.1
    black = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    black[:, 0, 0, 0] = torch.arange(4).to(torch.uint8)
    red, green, blue = (corrupt(black, "frost", 1)[:, channel, 1:].double() for channel in range(3))
    assert (red <= green).all()
    assert (green <= blue).all()
    assert blue.max() <= 0.2 * 255
    ours = corrupt(images, "frost", 5).double()
    kept, amount = CIFAR_C["frost"][4]
    assert (ours + 1 > kept * images + 0.8 * amount * 0.25 * 255).all()
    assert (ours <= kept * images + amount * 255).all()


def test_brightness_in_hsv(images: Tensor) -> None:
    images = images[:, :, :16, :16].clone()
    images[0, :, 0, :3] = torch.tensor([[0, 255, 90], [0, 255, 90], [0, 255, 90]], dtype=torch.uint8)
    for severity, (amount,) in enumerate(CIFAR_C["brightness"], start=1):
        ours = corrupt(images, "brightness", severity)
        for row in range(16):
            for column in range(16):
                hue, saturation, value = colorsys.rgb_to_hsv(*array(images[0])[:, row, column])
                expected = pixels(np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))))
                assert ours[0, :, row, column].tolist() == expected.tolist()


def test_contrast_around_each_channel_s_mean(images: Tensor) -> None:
    for severity, (factor,) in enumerate(CIFAR_C["contrast"], start=1):
        ours = corrupt(images, "contrast", severity)
        for n in range(3):
            for channel in range(3):
                x = array(images[n])[channel]
                assert np.array_equal(ours[n, channel].numpy(), pixels((x - x.mean()) * factor + x.mean()))


def literal_affine(x: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Forward map from three points, inverted; scipy's "mirror" repeats no border pixel."""
    size = x.shape[-1]
    m, t = size // 2, size // 3
    points = np.array([[m + t, m + t], [m + t, m - t], [m - t, m - t]], dtype=float)
    forward = np.linalg.solve(np.c_[points, np.ones(3)], points + offset).T  # (2, 3): right, down
    inverse = np.linalg.inv(np.r_[forward, [[0, 0, 1]]])
    down, right = np.mgrid[:size, :size]
    at = np.einsum("ij,jhw->ihw", inverse, np.stack([right, down, np.ones_like(down)]))
    return np.stack([ndimage.map_coordinates(c, [at[1], at[0]], order=1, mode="mirror") for c in x])


def test_affine_moves_the_three_points(images: Tensor) -> None:
    offset = 6 * torch.rand(3, 3, 2, dtype=torch.float64) - 3
    ours = affine(images.double() / 255, offset)
    for n in range(3):
        np.testing.assert_allclose(ours[n].numpy(), literal_affine(array(images[n]), offset[n].numpy()), atol=1e-12)
    shift = torch.tensor([[2.0, -1.0]], dtype=torch.float64).expand(3, 3, 2)
    moved = affine(images.double(), shift)  # two to the right, one up
    torch.testing.assert_close(moved[:, :, :-1, 2:], images.double()[:, :, 1:, :-2])


@pytest.mark.parametrize("severity", [1, 2, 5])
@pytest.mark.parametrize("constants", [CIFAR_C, IMAGENET_C])
def test_elastic_transform_step_by_step(images: Tensor, severity: int, constants) -> None:
    amplitude, sigma, corner = (32 * value for value in constants["elastic_transform"][severity - 1])
    draws = draws_of(images, "elastic_transform", severity)
    offset = corner * (2 * draws.uniform(0, 3, 2) - 1)
    noise = (2 * draws.uniform(1, 2, 32, 32) - 1).numpy()
    ours = elastic_transform(images, draws, *constants["elastic_transform"][severity - 1])
    for n in range(2):
        x = literal_affine(array(images[n]), offset[n].numpy())
        down, right = (
            amplitude * ndimage.gaussian_filter(part, sigma, mode="reflect", truncate=3) if sigma else 0 * part
            for part in noise[n]
        )
        row, column = np.mgrid[:32, :32]
        at = [row + down, column + right]
        expected = np.stack([ndimage.map_coordinates(c, at, order=1, mode="reflect") for c in x])
        assert abs(ours[n].numpy().astype(int) - pixels(expected)).max() <= 1
        assert (ours[n].numpy() != pixels(expected)).mean() < 1e-3


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [16, 20, 31, 32, 100, 224])
def test_pixelate_is_pil_s_box_filter_twice(size: int) -> None:
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    for constants in (CIFAR_C, IMAGENET_C):
        for (factor,) in constants["pixelate"]:
            small = int(size * factor)
            ours, half = pixelate(images, draws_of(images, "pixelate", 1), factor), box_resize(images, small)
            for n in range(2):
                theirs = pil(images[n]).resize((small, small), Image.Resampling.BOX)
                assert np.array_equal(half[n].permute(1, 2, 0).numpy(), np.array(theirs))
                theirs = theirs.resize((size, size), Image.Resampling.BOX)
                assert np.array_equal(ours[n].permute(1, 2, 0).numpy(), np.array(theirs))


def test_jpeg_is_pil_s_at_the_published_quality(images: Tensor) -> None:
    for severity, (quality,) in enumerate(CIFAR_C["jpeg_compression"], start=1):
        ours = corrupt(images, "jpeg_compression", severity)
        for n in range(3):
            file = io.BytesIO()
            pil(images[n]).save(file, "JPEG", quality=quality)
            assert np.array_equal(ours[n].permute(1, 2, 0).numpy(), np.array(Image.open(file)))
