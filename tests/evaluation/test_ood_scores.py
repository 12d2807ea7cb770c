import numpy as np
import pytest
import torch
from pytorch_ood.detector import ODIN, EnergyBased, MaxLogit, MaxSoftmax
from torch import Tensor, nn

from selfdistill.evaluation.gradient import clean_logits
from selfdistill.evaluation.ood.metrics import ood_metrics
from selfdistill.evaluation.ood.scores import (
    ODIN_GRID,
    choose_eps,
    energy,
    max_logit,
    max_softmax,
    odin_direction,
    odin_scores,
    tuning_size,
)
from tests import nets
from tests.reference import attacks

STD = (0.2023, 0.1994, 0.2010)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nets.ConvNet(), nn.Dropout(0.5)).eval()


@pytest.fixture
def x() -> Tensor:
    return 1.5 * torch.randn(32, 3, 8, 8)


# ODIN


@pytest.mark.parametrize("temperature", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("eps", [0.0, 0.0014, 0.1])
def test_odin_against_its_definition_written_out(temperature: float, eps: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4, bias=False)).double()
    x = torch.randn(7, 3, 4, 4, dtype=torch.float64)
    std = torch.tensor(STD, dtype=torch.float64).repeat_interleave(16).tolist()
    weights = model[1].weight.tolist()
    expected = [attacks.odin(weights, row, eps, temperature, std) for row in x.flatten(1).tolist()]
    found = odin_scores(model, x, temperature=temperature, eps=eps, std=STD)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("eps", [0.0, 0.0014, 0.004])
def test_odin_against_pytorch_ood(model: nn.Module, x: Tensor, eps: float) -> None:
    # Its scores are those of outliers, in float32.
    theirs = -ODIN(model, eps=eps, temperature=1000.0, norm_std=list(STD)).predict(x).double().numpy()
    np.testing.assert_allclose(odin_scores(model, x, eps=eps, std=STD), theirs, rtol=0, atol=1e-7)


def test_odin_with_eps_0_and_t_1_is_max_softmax(model: nn.Module, x: Tensor) -> None:
    found = odin_scores(model, x, temperature=1.0, eps=0.0, std=STD)
    np.testing.assert_array_equal(found, max_softmax(clean_logits(model, x)))
    assert np.argsort(found).tolist() == np.argsort(max_softmax(model(x))).tolist()


def test_the_step_makes_the_model_surer(model: nn.Module, x: Tensor) -> None:
    scores = [odin_scores(model, x, eps=eps, std=STD) for eps in (0.0, 0.001, 0.002)]
    assert (scores[1] > scores[0]).all()
    assert (scores[2] > scores[1]).all()


def test_eps_is_a_share_of_the_pixel_range(model: nn.Module, x: Tensor) -> None:
    # In pixels every value moves by eps: std * direction is +1 or -1 in each channel.
    direction = odin_direction(model, x, std=STD)
    for channel, std in enumerate(STD):
        assert (direction[:, channel].abs() * std).numpy() == pytest.approx(1.0, abs=1e-6)
    wide = odin_scores(model, x, eps=0.0014, std=STD)
    normalised_units = odin_scores(model, x, eps=0.0014, std=(1.0, 1.0, 1.0))
    assert (wide > normalised_units).all()


def test_a_gradient_of_exactly_zero_counts_as_plus_one() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4, bias=False))
    model[1].weight.data[:, 16:] = 0  # two channels that the model does not look at
    direction = odin_direction(model, torch.randn(3, 3, 4, 4), std=(0.5, 0.5, 0.5))
    assert bool((direction[:, 1:] == 2).all())
    assert bool((direction[:, 0] == -2).any())


def test_nothing_is_clipped() -> None:
    model = nets.mlp()
    x = torch.full((2, 3, 8, 8), 100.0)
    moved = x - 0.5 * odin_direction(model, x, std=STD)
    expected = max_softmax(clean_logits(model, moved), 1000.0)
    np.testing.assert_array_equal(odin_scores(model, x, eps=0.5, std=STD), expected)


def test_autocast_train_mode_and_dropout_change_nothing(model: nn.Module, x: Tensor) -> None:
    expected = odin_scores(model, x, std=STD)
    assert len(np.unique(expected)) == len(x)
    model.train()
    statistics = model[0].norm.running_mean.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        again = odin_scores(model, x.clone(), std=STD)
    np.testing.assert_array_equal(again, expected)
    assert torch.equal(model[0].norm.running_mean, statistics)
    assert model.training
    assert [p.grad for p in model.parameters()] == [None] * 14


def test_half_precision_would_destroy_the_scores() -> None:
    # Why the softmax is taken in float64 of float32 logits: at T = 1000 the scores of 500 images lie within 1 %.
    logits = 3 * torch.randn(500, 10)
    fine = max_softmax(logits, 1000.0)
    coarse = (logits / 1000).softmax(1).bfloat16().amax(1)
    assert len(np.unique(fine)) == 500
    assert len(coarse.unique()) < 50
    order = max_softmax(logits.double().numpy(), 1000.0)
    assert np.argsort(fine).tolist() == np.argsort(order).tolist()


def test_neither_batch_size_nor_order_matters_and_a_second_run_is_equal(model: nn.Module, x: Tensor) -> None:
    model.double()
    x = x.double()
    whole = odin_scores(model, x, std=STD)
    np.testing.assert_array_equal(odin_scores(model, x, std=STD), whole)
    one_by_one = np.concatenate([odin_scores(model, x[i : i + 1], std=STD) for i in range(len(x))])
    np.testing.assert_allclose(one_by_one, whole, rtol=0, atol=1e-13)
    np.testing.assert_allclose(odin_scores(model, x.flip(0), std=STD)[::-1], whole, rtol=0, atol=1e-13)


# Scores of logits


def test_logit_scores_against_pytorch_ood() -> None:
    z = 4 * torch.randn(50, 7)
    np.testing.assert_allclose(max_softmax(z), -MaxSoftmax.score(z).numpy(), atol=1e-6)
    np.testing.assert_allclose(max_logit(z), -MaxLogit.score(z).numpy(), atol=1e-6)
    np.testing.assert_allclose(energy(z), -EnergyBased.score(z).numpy(), atol=1e-5)


def test_logit_scores_by_hand() -> None:
    z = [[np.log(3.0), 0.0], [0.0, 0.0]]
    assert max_softmax(z).tolist() == pytest.approx([0.75, 0.5])
    assert max_logit(z).tolist() == pytest.approx([np.log(3.0), 0.0])
    assert energy(z).tolist() == pytest.approx([np.log(4.0), np.log(2.0)])
    assert energy(z, temperature=0.5).tolist() == pytest.approx([0.5 * np.log(10.0), 0.5 * np.log(2.0)])
    assert max_softmax(z, temperature=0.5).tolist() == pytest.approx([0.9, 0.5])


def test_large_logits_do_not_overflow() -> None:
    assert energy([[1e5, 0.0]]).tolist() == [1e5]
    assert max_softmax([[1e5, 0.0]]).tolist() == [1.0]


# The choice of eps


def test_the_grid_is_the_release_s() -> None:
    assert len(ODIN_GRID) == 21
    assert (ODIN_GRID[0], ODIN_GRID[7], ODIN_GRID[-1]) == (0.0, 0.0014, 0.004)


def test_choose_eps_takes_the_smallest_rate_and_the_smallest_eps_among_equals() -> None:
    asked: list[float] = []

    def id_scores(eps: float) -> list[float]:
        asked.append(eps)
        return [1.0, 0.5 + eps]

    chosen = choose_eps(id_scores, lambda eps: [0.6, 0.0], grid=(0.5, 0.0, 0.25))
    assert chosen.eps == 0.25
    assert chosen.tried == (0.5, 0.0, 0.25)
    assert chosen.fpr_at_95_tpr == (0.0, 0.5, 0.0)
    assert asked == [0.5, 0.0, 0.25]  # each value once


def test_choose_eps_with_a_model(model: nn.Module, x: Tensor) -> None:
    ood, grid = torch.rand(40, 3, 8, 8), ODIN_GRID[::10]
    chosen = choose_eps(
        lambda eps: odin_scores(model, x, eps=eps, std=STD),
        lambda eps: odin_scores(model, ood, eps=eps, std=STD),
        grid,
    )
    rates = [
        ood_metrics(odin_scores(model, x, eps=eps, std=STD), odin_scores(model, ood, eps=eps, std=STD)).fpr_at_95_tpr
        for eps in grid
    ]
    assert list(chosen.fpr_at_95_tpr) == rates
    assert chosen.eps == grid[rates.index(min(rates))]


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^grid: "):
        choose_eps(lambda eps: [1.0], lambda eps: [0.0], grid=())


@pytest.mark.parametrize(("images", "first"), [(10_000, 1000), (2000, 1000), (1999, 999), (1000, 500), (2, 1), (1, 0)])
def test_tuning_size(images: int, first: int) -> None:
    assert tuning_size(images) == first


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1e-3}, "^eps: -0.001, expected a share of the pixel range"),
        ({"eps": float("nan")}, "^eps: nan"),
        ({"temperature": 0.0}, "^temperature: 0.0, expected a positive number$"),
        ({"std": (0.2,)}, "^std: 1 values for images of 3 channels"),
    ],
)
def test_bad_odin_arguments_are_one_clear_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        odin_scores(nets.mlp(), torch.zeros(2, 3, 8, 8), **({"std": STD} | arguments))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("score", [max_softmax, max_logit, energy])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([[np.nan, 0.0], [1.0, 0.0]], "^logits: 1 of 2 rows are not finite"),
        ([1.0, 2.0], r"^logits: shape \(2,\), expected \(N, C\)"),
        (np.zeros((0, 3)), r"^logits: shape \(0, 3\)"),
    ],
)
def test_bad_logits_are_one_clear_line(score: object, logits: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(logits)  # type: ignore[operator]
