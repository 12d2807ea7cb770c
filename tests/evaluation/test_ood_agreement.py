import math
from statistics import stdev

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.evaluation.images import read_features
from selfdistill.evaluation.ood.agreement import posterior_sd
from tests import nets
from tests.reference.losses import softmax


@pytest.fixture
def features() -> Tensor:
    return torch.randn(30, 16)


def literal(features: Tensor, head: nn.Linear, masks: Tensor, p: float, temperature: float) -> list[float]:
    """1/C sum_c of the sample's sd of class c's probability over the masks, one image and one mask at a time."""
    weights, bias = head.weight.tolist(), head.bias.tolist()
    found = []
    for f in features.tolist():
        posteriors = []
        for mask in masks.tolist():
            dropped = [value * keep / (1 - p) for value, keep in zip(f, mask, strict=True)]
            z = [
                sum(w * v for w, v in zip(row, dropped, strict=True)) + b for row, b in zip(weights, bias, strict=True)
            ]
            posteriors.append(softmax(z, temperature))
        found.append(sum(stdev(column) for column in zip(*posteriors, strict=True)) / len(bias))
    return found


@pytest.mark.parametrize(("masks", "p", "temperature"), [(20, 0.5, 1.0), (5, 0.2, 3.0)])
def test_against_a_literal_loop(features: Tensor, masks: int, p: float, temperature: float) -> None:
    head = nn.Linear(16, 4)
    kept = torch.rand(masks, 16, generator=torch.Generator().manual_seed(7)) >= p
    found = posterior_sd(features, head, masks=masks, p=p, temperature=temperature, seed=7)
    np.testing.assert_allclose(found, literal(features, head, kept, p, temperature), rtol=1e-4, atol=1e-7)
    assert kept.float().mean() == pytest.approx(1 - p, abs=0.15)


def test_by_hand() -> None:
    # One feature, doubled or dropped: the posterior is sigmoid(4) or 1/2, as often as drawn.
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[1.0], [0.0]])
    kept = (torch.rand(20, 1, generator=torch.Generator().manual_seed(0)) >= 0.5).float()
    share = float(kept.mean())
    apart = 1 / (1 + math.exp(-2 * 2.0)) - 0.5
    expected = apart * math.sqrt(share * (1 - share) * 20 / 19)
    assert posterior_sd(torch.tensor([[2.0]]), head).tolist() == pytest.approx([expected], rel=1e-5)


def test_no_dropout_no_disagreement(features: Tensor) -> None:
    assert posterior_sd(features, nn.Linear(16, 4), p=0.0).tolist() == [0.0] * 30


def test_it_grows_with_p_and_stays_within_its_bound(features: Tensor) -> None:
    head = nn.Linear(16, 2)
    head.weight.data *= 100
    means = [posterior_sd(features, head, p=p).mean() for p in (0.01, 0.1, 0.5)]
    assert means == sorted(means)
    assert posterior_sd(features, head, masks=2).max() <= 0.5 * math.sqrt(2) + 1e-12


def test_features_that_agree_are_seen_to_agree() -> None:
    # SD-Dropout's own aim: the same evidence in every feature is steadier under masks than in one feature alone.
    head = nn.Linear(64, 2, bias=False)
    head.weight.data = torch.stack([torch.ones(64), torch.zeros(64)])
    spread, single = torch.full((1, 64), 2 / 64), 2 * torch.eye(64)[:1]
    assert posterior_sd(spread, head)[0] < 0.5 * posterior_sd(single, head)[0]


def test_neither_chunks_nor_order_nor_company_matter(features: Tensor) -> None:
    head, features = nn.Linear(16, 4).double(), features.double()
    whole = posterior_sd(features, head)
    np.testing.assert_array_equal(posterior_sd(features, head), whole)
    np.testing.assert_allclose(posterior_sd(features, head, chunk=7), whole, rtol=0, atol=1e-14)
    np.testing.assert_allclose(posterior_sd(features.flip(0), head)[::-1], whole, rtol=0, atol=1e-14)
    np.testing.assert_allclose(posterior_sd(features[3:4], head), whole[3:4], rtol=0, atol=1e-14)
    assert not np.array_equal(posterior_sd(features, head, seed=1), whole)


def test_the_number_of_masks_changes_its_noise_not_its_level(features: Tensor) -> None:
    head = nn.Linear(16, 4)

    def mean_square(masks: int) -> float:
        return float(np.mean([(posterior_sd(features, head, masks=masks, seed=s) ** 2).mean() for s in range(40)]))

    assert mean_square(4) == pytest.approx(mean_square(64), rel=0.15)


def test_the_head_is_left_as_it_was_found(features: Tensor) -> None:
    head = nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4)).train()
    expected = posterior_sd(features, head.eval())
    head.train()
    statistics, random = head[0].running_mean.clone(), torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(posterior_sd(features.requires_grad_(), head), expected)
    assert head.training
    assert torch.equal(head[0].running_mean, statistics)
    assert torch.equal(random, torch.get_rng_state())
    assert [p.grad for p in head.parameters()] == [None] * 4


@pytest.mark.parametrize("net", nets.NETS)
def test_read_features_of_any_model(net: str) -> None:
    model = nets.NETS[net]()
    (x1, y1), (x2, y2) = nets.batch(net, 6), nets.batch(net, 3)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        reading = read_features(model, [(x1, y1), (x2, y2)])
    assert model.training
    model.eval()
    assert reading.logits.dtype == reading.features.dtype == torch.float32
    assert not reading.features.is_inference()
    assert reading.labels.tolist() == [*y1.tolist(), *y2.tolist()]
    with torch.no_grad():
        torch.testing.assert_close(reading.head(reading.features), reading.logits)
    assert posterior_sd(reading.features, reading.head).shape == (9,)
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_read_features_takes_a_named_head_and_maps() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    reading = read_features(model, [(torch.randn(5, 3, 8, 8), torch.zeros(5))], head="3")
    assert reading.features.shape == (5, 8, 1, 1)
    assert reading.logits.shape == (5, 4)
    found = posterior_sd(reading.features, reading.head)
    linear = nn.Linear(8, 4)
    linear.weight.data, linear.bias.data = model[3].weight.data.flatten(1), model[3].bias.data
    np.testing.assert_allclose(found, posterior_sd(reading.features.flatten(1), linear), rtol=1e-4, atol=1e-8)


def test_dropped_features_are_scaled_as_in_training() -> None:
    f = torch.ones(1, 4096)
    assert float(F.dropout(f, 0.5).max()) == 2.0  # inverted dropout: what is kept doubles
    head = nn.Linear(4096, 2, bias=False)
    head.weight.data = torch.stack([torch.ones(4096), torch.zeros(4096)]) / 4096
    kept = torch.rand(20, 4096, generator=torch.Generator().manual_seed(0)) >= 0.5
    q = (2 * kept.double().mean(1)).sigmoid()
    assert posterior_sd(f, head)[0] == pytest.approx(float(q.std()), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": 1}, "^masks: 1, expected at least 2$"),
        ({"p": 1.0}, r"^p: 1.0, expected a probability in \[0, 1\)$"),
        ({"temperature": 0.0}, "^temperature: 0.0"),
        ({"chunk": 0}, "^chunk: 0"),
        ({"seed": -1}, "^seed: -1"),
        ({"features": torch.zeros(0, 16)}, r"^features: shape \(0, 16\)"),
        ({"features": torch.full((2, 16), float("nan"))}, "^logits: 2 of 2 rows are not finite"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict[str, object], message: str) -> None:
    given = {"features": torch.zeros(2, 16), "head": nn.Linear(16, 4)} | arguments
    with pytest.raises(ValueError, match=message) as caught:
        posterior_sd(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batches: "):
        read_features(nets.mlp(), [])


def test_a_reading_keeps_no_graph_alive() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    for guard in (torch.enable_grad, torch.inference_mode):
        with guard():
            reading = read_features(model, [(torch.zeros(4, 8), torch.zeros(4))])
        assert not reading.logits.requires_grad
        assert not reading.features.requires_grad
