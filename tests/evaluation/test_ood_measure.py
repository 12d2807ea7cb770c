import math
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.data import ImageData, Split
from selfdistill.evaluation.images import Images, Reading, read_features
from selfdistill.evaluation.ood.measure import measure_ood, ood_passes
from selfdistill.evaluation.ood.metrics import ood_metrics, roc_curve, score_detector
from selfdistill.evaluation.ood.scores import ODIN_GRID
from selfdistill.records.evaluation import OODResult
from tests import nets

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
BASIC = ["max softmax", "max logit", "energy", "ODIN fixed", "ODIN released"]


class Bent(nn.Module):
    """u |u|: the surer the network, the more a step of ODIN adds, so that its eps changes the order."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.abs()


class Double(nn.Module):
    """Float64 in_distribution, so that rounding, which depends on the batch, reorders no score."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.BatchNorm1d(12), Bent(), nn.Dropout(0.5))
        self.head = nn.Linear(12, 5)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.double()))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return Double()


def images_of(pixels: Tensor, *, batch_size: int = 8, classes: int = 5) -> Images:
    split = Split(labels=torch.arange(len(pixels)) % classes, images=pixels)
    data = ImageData(
        name="noise",
        train=split,
        test=split,
        classes=tuple(f"class {c}" for c in range(classes)),
        mean=MEAN,
        std=STD,
        image_size=8,
        augment="none",
        test_split_description="test folder",
    )
    return Images(split, data, device="cpu", batch_size=batch_size)


def pixels(n: int, low: int, high: int, seed: int) -> Tensor:
    return torch.randint(low, high, (n, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def id_images(batch_size: int = 8, n: int = 31) -> Images:
    return images_of(pixels(n, 0, 256, 0), batch_size=batch_size)


def ood_images(batch_size: int = 8) -> list[tuple[str, str, Images]]:
    return [
        ("grey", "as they are", images_of(pixels(24, 60, 200, 1), batch_size=batch_size)),
        ("dark", "shorter side to 8 px, central square", images_of(pixels(17, 0, 140, 2), batch_size=batch_size)),
        ("pale", "as they are", images_of(pixels(24, 30, 220, 3), batch_size=batch_size)),
        ("two", "as they are", images_of(pixels(2, 0, 256, 6), batch_size=batch_size)),
    ]


def training_images(batch_size: int = 8, n: int = 60) -> Images:
    return images_of(pixels(n, 0, 256, 4), batch_size=batch_size)


def measured(model: nn.Module, batch_size: int = 8, **settings: object) -> tuple[OODResult, ...]:
    """Everything that can be measured."""
    in_distribution = id_images(batch_size)
    readings = {
        "training": read_features(model, training_images(batch_size).batches()),
        "id_reading": read_features(model, in_distribution.batches()),
    }
    return measure_ood(model, in_distribution, ood_images(batch_size), **(readings | settings))


# Each score written down for one image on its own


def alone(images: Images) -> list[Tensor]:
    return [x[i : i + 1] for x, _ in images.batches() for i in range(len(x))]


def probabilities(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def logits(model: nn.Module, x: Tensor) -> list[float]:
    with torch.no_grad():
        return model.eval()(x)[0].tolist()


def odin(model: nn.Module, x: Tensor, eps: float, temperature: float) -> float:
    moving = x.clone().requires_grad_()
    z = model.eval()(moving) / temperature
    F.cross_entropy(z, z.argmax(dim=1)).backward()
    for p in model.parameters():
        p.grad = None
    std = torch.tensor(STD)[:, None, None]
    moved = x - eps * (torch.where(moving.grad >= 0, 1.0, -1.0) / std)
    return max(probabilities(logits(model, moved), temperature))


def features(model: nn.Module, x: Tensor) -> list[float]:
    with torch.no_grad():
        return model.eval().body(x.double())[0].tolist()


def mahalanobis(model: nn.Module, images: Images) -> list[float]:
    training = training_images()
    by_class: dict[int, list[np.ndarray]] = {}
    for x, label in zip(alone(training), training.split.labels.tolist(), strict=True):
        by_class.setdefault(label, []).append(np.array(features(model, x)))
    means = {label: np.mean(rows, axis=0) for label, rows in by_class.items()}
    covariance = sum(np.outer(f - means[label], f - means[label]) for label, rows in by_class.items() for f in rows)
    precision = np.linalg.inv(covariance / len(training))
    found = []
    for x in alone(images):
        f = np.array(features(model, x))
        found.append(-min((f - mean) @ precision @ (f - mean) for mean in means.values()))
    return found


def disagreement(model: nn.Module, images: Images) -> float:
    found = []
    for seed in range(5):
        kept = (torch.rand(20, 12, generator=torch.Generator().manual_seed(seed)) >= 0.5).tolist()
        for x in alone(images):
            f, posteriors = features(model, x), []
            for mask in kept:
                dropped = [2 * value if keep else 0.0 for value, keep in zip(f, mask, strict=True)]
                with torch.no_grad():
                    z = model.head(torch.tensor([dropped], dtype=torch.float64))[0].tolist()
                posteriors.append(probabilities(z, 1.0))
            found.append(fmean(stdev(column) for column in zip(*posteriors, strict=True)))
    return fmean(found)


def test_scores_of_one_pass_against_each_image_on_its_own(model: nn.Module) -> None:
    in_distribution = id_images()
    for detection, (_, _, ood) in zip(measured(model), ood_images(), strict=True):
        z_in, z_out = ([logits(model, x) for x in alone(images)] for images in (in_distribution, ood))
        for name, score in (
            ("max softmax", lambda z: max(probabilities(z, 1.0))),
            ("max logit", max),
            ("energy", lambda z: math.log(sum(math.exp(value) for value in z))),
        ):
            found = detection.detectors[name]
            assert found.metrics == ood_metrics([score(z) for z in z_in], [score(z) for z in z_out])
            assert found.eps is None


def test_mahalanobis_against_each_image_on_its_own(model: nn.Module) -> None:
    scores = mahalanobis(model, id_images())
    for detection, (_, _, ood) in zip(measured(model), ood_images(), strict=True):
        assert list(detection.detectors) == [*BASIC, "Mahalanobis", "kNN", "ViM", "ReAct", "DICE", "ASH"]
        assert detection.detectors["Mahalanobis"].metrics == ood_metrics(scores, mahalanobis(model, ood))


@pytest.mark.parametrize(("fixed_eps", "temperature"), [(0.0014, 1000.0), (0.02, 10.0), (0.0, 1.0)])
def test_odin_fixed_against_each_image_on_its_own(model: nn.Module, fixed_eps: float, temperature: float) -> None:
    scores = [odin(model, x, fixed_eps, temperature) for x in alone(id_images())]
    found = measured(model, fixed_eps=fixed_eps, temperature=temperature)
    for detection, (_, _, ood) in zip(found, ood_images(), strict=True):
        expected = ood_metrics(scores, [odin(model, x, fixed_eps, temperature) for x in alone(ood)])
        assert detection.detectors["ODIN fixed"].metrics == expected
        assert (detection.detectors["ODIN fixed"].eps, detection.temperature) == (fixed_eps, temperature)
        if (fixed_eps, temperature) == (0.0, 1.0):
            assert detection.detectors["ODIN fixed"].metrics == detection.detectors["max softmax"].metrics


@pytest.mark.parametrize("temperature", [1000.0, 2.0])
def test_odin_released_against_each_image_on_its_own(model: nn.Module, temperature: float) -> None:
    first_in, rest_in = alone(id_images())[:15], alone(id_images())[15:]
    chosen = []
    for detection, (_, _, ood) in zip(measured(model, temperature=temperature), ood_images(), strict=True):
        half = len(ood) // 2
        first_out, rest_out = alone(ood)[:half], alone(ood)[half:]

        def metrics(eps: float, in_distribution: list[Tensor], ood: list[Tensor]):
            return ood_metrics(*([odin(model, x, eps, temperature) for x in part] for part in (in_distribution, ood)))

        rates = [metrics(eps, first_in, first_out).fpr_at_95_tpr for eps in ODIN_GRID]
        best = ODIN_GRID[rates.index(min(rates))]  # the first among equals
        released = detection.detectors["ODIN released"]
        assert released.eps == best
        assert released.metrics == metrics(best, rest_in, rest_out)
        assert detection.tuned_on == (15, half)
        assert (released.metrics.n_in, released.metrics.n_out) == (16, len(ood) - half)
        chosen.append(best)
    assert len(set(chosen)) > 2  # each set has its own


def test_images_that_are_scored_choose_nothing(model: nn.Module) -> None:
    grey = pixels(24, 60, 200, 1)
    other = torch.cat([grey[:12], pixels(12, 0, 90, 9)])
    in_distribution = id_images()
    sets = [("a", "as they are", images_of(grey)), ("b", "as they are", images_of(other))]
    a, b = (found.detectors["ODIN released"] for found in measure_ood(model, in_distribution, sets))
    assert a.eps == b.eps
    assert a.metrics != b.metrics


def test_a_set_of_2000_gives_its_first_thousand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    in_distribution = images_of(pixels(2001, 0, 256, 5), batch_size=512, classes=3)
    ood = images_of(pixels(1999, 0, 128, 6), batch_size=512, classes=3)
    (found,) = measure_ood(model, in_distribution, [("dark", "as they are", ood)])
    released = found.detectors["ODIN released"].metrics
    assert (found.tuned_on, released.n_in, released.n_out) == ((1000, 999), 1001, 1000)
    fixed = found.detectors["ODIN fixed"].metrics
    assert (found.n, fixed.n_in, fixed.n_out) == (1999, 2001, 1999)


def test_the_spread_over_masks_against_a_literal_loop(model: nn.Module) -> None:
    in_distribution = disagreement(model, id_images())
    for detection, (_, _, ood) in zip(measured(model), ood_images(), strict=True):
        found = detection.disagreement
        assert (found.masks, found.p, found.temperature, found.seeds) == (20, 0.5, 1.0, 5)
        assert found.in_distribution == pytest.approx(in_distribution, rel=1e-6)
        assert found.ood == pytest.approx(disagreement(model, ood), rel=1e-6)


# What is computed, and how often


def test_each_set_is_measured_as_it_would_be_alone(model: nn.Module) -> None:
    in_distribution, together = id_images(), measured(model)
    readings = {
        "training": read_features(model, training_images().batches()),
        "id_reading": read_features(model, in_distribution.batches()),
    }
    for detection, one in zip(together, ood_images(), strict=True):
        assert measure_ood(model, in_distribution, [one], **readings) == (detection,)
        assert (detection.name, detection.prepared, detection.n) == (one[0], one[1], len(one[2]))


@pytest.mark.parametrize("with_reading", [True, False])
def test_what_the_sets_share_is_computed_once_and_the_bar_ends_at_its_total(
    model: nn.Module, with_reading: bool
) -> None:
    in_distribution, grey = id_images(), ood_images()[0]
    reading = read_features(model, in_distribution.batches()) if with_reading else None
    rows = 0

    def count(module: nn.Module, args: tuple[Tensor]) -> None:
        nonlocal rows
        rows += len(args[0])

    model.register_forward_pre_hook(count)

    def cost(times: int) -> int:
        nonlocal rows
        ticks: list[int] = []
        rows = 0
        measure_ood(model, in_distribution, [grey] * times, id_reading=reading, tick=ticks.append)
        assert sum(ticks) == ood_passes(31, [24] * times)
        assert all(tick > 0 for tick in ticks)
        return rows

    # Of 31 test images 15 choose eps, of 24 others 12: a gradient and 21 passes each; a gradient and one pass where an
    # eps is at hand. A second equal set repeats its own share alone, and adds nothing for the test images.
    shared = 2 * 31 + 22 * 15 + (0 if with_reading else 31)
    own, rest = 24 + 2 * 24 + 22 * 12 + 2 * 12, 2 * 16
    assert cost(1) == shared + own + rest
    assert cost(2) == shared + 2 * own + rest
    assert ood_passes(31, [24, 24]) == 2 * 31 + 22 * 15 + 2 * (own + rest)
    assert cost(0) == 0


def test_the_batch_size_changes_nothing(model: nn.Module) -> None:
    for small, large in zip(measured(model, 3), measured(model, 512), strict=True):
        assert small.tuned_on == large.tuned_on
        for name, found in small.detectors.items():
            other = large.detectors[name]
            assert (found.metrics, found.curve, found.eps) == (other.metrics, other.curve, other.eps)
        assert small.disagreement.ood == pytest.approx(large.disagreement.ood, rel=1e-12)


def test_a_second_run_is_equal_to_the_last_bit() -> None:
    model = nets.ConvNet()
    assert measured(model) == measured(model)


def test_what_the_caller_left_behind_changes_nothing_and_stays() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nets.ConvNet())
    expected = measured(model.eval())
    model.train()
    model[1].norm.eval()  # a frozen BatchNorm stays frozen
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert measured(model) == expected
    assert model.training
    assert model[0].training
    assert not model[1].norm.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # it would matter: the logits themselves are others
        assert model.eval()(torch.ones(1, 3, 8, 8)).dtype == torch.bfloat16


def test_the_same_images_cannot_be_told_apart(model: nn.Module) -> None:
    in_distribution = id_images()
    reading = read_features(model, in_distribution.batches())
    training = read_features(model, training_images().batches())
    sets = [("the same", "as they are", in_distribution)]
    (found,) = measure_ood(model, in_distribution, sets, training=training, id_reading=reading)
    assert [detector.metrics.auroc for detector in found.detectors.values()] == [pytest.approx(0.5, abs=1e-12)] * 11
    assert found.disagreement.in_distribution == found.disagreement.ood


# What cannot be measured is left out


def test_without_readings_there_is_neither_mahalanobis_nor_spread(model: nn.Module) -> None:
    training = read_features(model, training_images().batches())
    full = measured(model)
    plain = measure_ood(model, id_images(), ood_images(), training=training)
    for detection, whole in zip(plain, full, strict=True):
        assert list(detection.detectors) == BASIC
        assert detection.disagreement is None
        assert {name: found.metrics for name, found in detection.detectors.items()} == {
            name: whole.detectors[name].metrics for name in BASIC
        }


def test_training_features_that_do_not_vary_within_a_class_give_no_mahalanobis(model: nn.Module) -> None:
    one_each = read_features(model, training_images(n=5).batches())
    found = measured(model, training=one_each)
    assert [list(detection.detectors) for detection in found] == [BASIC] * 4
    assert all(detection.disagreement is not None for detection in found)


def test_the_outer_sets_are_read_at_the_head_of_the_reading() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh(), nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 5)))
    in_distribution = id_images()
    reading = read_features(model, in_distribution.batches(), head="3")  # the stack of two, not the innermost layer
    training = read_features(model, training_images().batches(), head="3")
    assert reading.features.shape == (31, 12)
    sets = [("the same", "as they are", in_distribution)]
    (found,) = measure_ood(model, in_distribution, sets, training=training, id_reading=reading)
    assert found.detectors["Mahalanobis"].metrics.auroc == pytest.approx(0.5, abs=1e-12)


# The curve and the histogram


def test_the_curve_is_thinned_and_nothing_in_it_is_invented() -> None:
    random = np.random.default_rng(0)
    in_distribution, ood = random.normal(1, 1, 900), random.normal(0, 1, 700)
    found = score_detector(in_distribution, ood).curve
    points = list(zip(found.fpr, found.tpr, strict=True))
    fpr, tpr = roc_curve(in_distribution, ood)
    assert len(points) == 101
    assert points[0] == (0.0, 0.0)
    assert points[-1] == (1.0, 1.0)
    assert set(points) <= set(zip(fpr.tolist(), tpr.tolist(), strict=True))
    assert points == sorted(points)
    few = score_detector(in_distribution[:20], ood[:30]).curve
    assert (few.fpr, few.tpr) == tuple(tuple(part.tolist()) for part in roc_curve(in_distribution[:20], ood[:30]))


def test_the_histogram_against_a_literal_count() -> None:
    random = np.random.default_rng(0)
    in_distribution, ood = random.normal(1, 1, 200).tolist(), random.normal(0, 2, 100).tolist()
    found = score_detector(np.array(in_distribution), np.array(ood)).histogram
    low, high = min(in_distribution + ood), max(in_distribution + ood)
    assert found.edges == pytest.approx([low + (high - low) * k / 30 for k in range(31)])
    assert (found.edges[0], found.edges[-1]) == (low, high)
    for scores, counts in ((in_distribution, found.in_distribution), (ood, found.ood)):
        assert list(counts) == [
            sum(left <= score < right or (k == 29 and score == right) for score in scores)
            for k, (left, right) in enumerate(zip(found.edges, found.edges[1:], strict=False))
        ]


@pytest.mark.parametrize(
    ("in_distribution", "ood"),
    [([0.1] * 3, [0.1] * 2), ([1.0, 1.0], [1.0 - 2**-53]), ([1e30], [1e30]), ([0.0], [5e-324]), ([-7.0], [-7.0])],
)
def test_scores_with_fewer_numbers_than_bins_between_them(in_distribution: list[float], ood: list[float]) -> None:
    found = score_detector(np.array(in_distribution), np.array(ood)).histogram
    assert len(found.edges) == 31
    assert (np.diff(found.edges) > 0).all()
    assert (sum(found.in_distribution), sum(found.ood)) == (len(in_distribution), len(ood))


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_networks_that_know_nothing_or_are_sure_to_the_last_bit(model: nn.Module, scale: float) -> None:
    model.head.weight.data *= scale
    model.head.bias.data *= scale
    for detection in measured(model):
        softmax = detection.detectors["max softmax"]
        assert sum(softmax.histogram.ood) == detection.n
        if scale == 0:
            assert {found.metrics.auroc for name, found in detection.detectors.items() if name in BASIC} == {0.5}
            assert detection.detectors["ODIN released"].eps == 0.0
            assert (detection.disagreement.in_distribution, detection.disagreement.ood) == (0.0, 0.0)
        else:
            assert softmax.metrics.fpr_at_95_tpr > 0.8  # nearly all are 1


# Bad input


def reading_of(model: nn.Module) -> Reading:
    return read_features(model, id_images().batches())


@pytest.mark.parametrize("n", [0, 1])
def test_a_set_that_is_too_small_is_named(model: nn.Module, n: int) -> None:
    expected = f"images {n}, expected at least 2: one half chooses ODIN's eps, one is scored$"
    tiny = [("holiday", "as they are", images_of(pixels(n, 0, 256, 0)))]
    with pytest.raises(ValueError, match=f"^holiday: {expected}"):
        measure_ood(model, id_images(), [ood_images()[0], *tiny])
    with pytest.raises(ValueError, match=f"^the test images: {expected}"):
        measure_ood(model, id_images(n=n), ood_images())


@pytest.mark.parametrize("with_reading", [True, False])
def test_logits_that_are_not_finite_are_one_clear_line(model: nn.Module, with_reading: bool) -> None:
    reading = reading_of(model) if with_reading else None
    nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(ValueError, match=r"^logits: 8 of 8 rows are not finite; the model diverged") as caught:
        measure_ood(model, id_images(), ood_images(), id_reading=reading)
    assert "\n" not in str(caught.value)


def test_a_reading_of_another_model_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"^id_reading: its head is not a module of this model"):
        measure_ood(model, id_images(), ood_images(), id_reading=reading_of(Double()))


def test_a_reading_of_other_images_is_refused(model: nn.Module) -> None:
    part = read_features(model, id_images().part(0, 9).batches())
    with pytest.raises(ValueError, match=r"^id_reading: of 9 images, but in_distribution holds 31"):
        measure_ood(model, id_images(), ood_images(), id_reading=part)


@pytest.mark.parametrize("fixed_eps", [-0.0014, 1.4, math.inf, math.nan])
def test_an_eps_out_of_range_is_named(model: nn.Module, fixed_eps: float) -> None:
    expected = rf"^fixed_eps: {fixed_eps}, expected a share of the pixel range in \[0, 1\], as 0.0014$"
    with pytest.raises(ValueError, match=expected):
        measure_ood(model, id_images(), ood_images(), fixed_eps=fixed_eps, id_reading=None)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_out_of_range_is_named(model: nn.Module, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"^temperature: "):
        measure_ood(model, id_images(), ood_images(), temperature=temperature, id_reading=None)


def test_without_a_set_there_is_nothing_to_refuse(model: nn.Module) -> None:
    assert measure_ood(model, id_images(n=1), [], id_reading=None) == ()
