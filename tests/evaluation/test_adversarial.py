import numpy as np
import pytest
import torch
import torch.nn.functional as F
from art.attacks.evasion import FastGradientMethod
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from selfdistill.evaluation.adversarial import fgsm, gradient_sign, paper_step, pgd, standard_step
from selfdistill.evaluation.gradient import clean_logits
from tests import nets
from tests.reference import attacks

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
NORM = {"mean": MEAN, "std": STD}
EPS = 8 / 255


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def as_pixels(x: Tensor) -> Tensor:
    return x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.fixture
def model() -> nn.Module:
    net = nets.ConvNet()
    for module in net.modules():  # a trained network's statistics are not 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.3, 1.5)
    return net.eval()


@pytest.fixture
def x() -> Tensor:
    return normalised(torch.randint(256, (24, 3, 8, 8)) / 255)


@pytest.fixture
def y() -> Tensor:
    return torch.arange(24) % nets.CLASSES


def loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(x), y))


def linear() -> tuple[nn.Module, list[list[float]]]:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 4, bias=False)).double()
    return model, model[1].weight.tolist()


# The paper's four steps


@pytest.mark.parametrize("eps", [0.2, 0.03, 1.0])
def test_paper_equals_art(model: nn.Module, x: Tensor, eps: float) -> None:
    classifier = PyTorchClassifier(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=(3, 8, 8), nb_classes=nets.CLASSES, clip_values=(0, 1)
    )
    theirs = FastGradientMethod(classifier, eps=eps).generate(x.numpy())
    ours = fgsm(model, x, None, eps, **NORM, protocol="paper")
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    assert bool((model(ours).argmax(1) == model(torch.tensor(theirs)).argmax(1)).all())


def test_paper_equals_its_four_steps_written_out() -> None:
    model, weights = linear()
    x = 2 * torch.randn(9, 3, 4, 4, dtype=torch.float64)
    expected = [attacks.paper(weights, row, 0.2) for row in x.flatten(1).tolist()]
    ours = fgsm(model, x, None, 0.2, **NORM, protocol="paper")
    np.testing.assert_allclose(ours.flatten(1).numpy(), expected, atol=1e-12)


def test_paper_moves_the_dark_and_the_bright_whatever_the_gradient(x: Tensor) -> None:
    # Values below -eps always gain eps, those above 1 + eps always lose it: most of a normalised image.
    for sign in (-1.0, 0.0, 1.0):
        change = paper_step(x, torch.full_like(x, sign), 0.2) - x
        assert change[x < -0.2].numpy() == pytest.approx(0.2, abs=1e-6)
        assert change[x > 1.2].numpy() == pytest.approx(-0.2, abs=1e-6)
        assert float(change.abs().max()) <= 0.2 + 1e-6
    assert float(((x < -0.2) | (x > 1.2)).float().mean()) > 0.5


def test_paper_projects_after_it_clips(x: Tensor) -> None:
    sign = torch.ones_like(x)
    clipped_alone = (x + 0.2 * sign).clamp(0, 1)
    assert float((paper_step(x, sign, 0.2) - clipped_alone).abs().max()) > 1


def test_paper_attacks_the_prediction_not_the_label(model: nn.Module, x: Tensor, y: Tensor) -> None:
    ours = fgsm(model, x, y, 0.2, **NORM, protocol="paper")
    assert torch.equal(ours, fgsm(model, x, y.flip(0), 0.2, **NORM, protocol="paper"))
    predicted = model(x).argmax(1)
    assert torch.equal(gradient_sign(model, x), gradient_sign(model, x, predicted))
    wrong = predicted != y
    assert not torch.equal(gradient_sign(model, x)[wrong], gradient_sign(model, x, y)[wrong])


def test_paper_needs_no_mean_and_no_valid_range() -> None:
    far = 50 * torch.randn(4, 3, 8, 8)
    assert torch.isfinite(fgsm(nets.mlp(), far, None, 0.2, mean=(0, 0, 0), std=(1, 1, 1), protocol="paper")).all()


# Standard


def test_standard_equals_its_definition_written_out() -> None:
    model, weights = linear()
    x = normalised(torch.rand(9, 3, 4, 4)).double()
    y = torch.arange(9) % 4
    mean, std = (torch.tensor(values, dtype=torch.float64).repeat_interleave(16).tolist() for values in (MEAN, STD))
    expected = [
        attacks.standard(weights, row, label, 0.1, mean, std)
        for row, label in zip(x.flatten(1).tolist(), y.tolist(), strict=True)
    ]
    ours = fgsm(model, x, y, 0.1, **NORM)
    np.testing.assert_allclose(ours.flatten(1).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("eps", [0.5 / 255, 1 / 255, EPS])
def test_every_pixel_moves_by_exactly_eps_where_it_is_not_clipped(
    model: nn.Module, x: Tensor, y: Tensor, eps: float
) -> None:
    before, after = as_pixels(x), as_pixels(fgsm(model, x, y, eps, **NORM))
    inside = (before > eps + 1e-6) & (before < 1 - eps - 1e-6)
    assert (after - before)[inside].abs().numpy() == pytest.approx(eps, abs=1e-6)
    assert float((after - before).abs().max()) <= eps + 1e-6
    assert float(after.min()) >= -1e-6
    assert float(after.max()) <= 1 + 1e-6


def test_the_loss_rises_and_rises_with_eps(model: nn.Module, x: Tensor, y: Tensor) -> None:
    losses = [loss(model, fgsm(model, x, y, e, **NORM), y) for e in (0, 1e-3, 2e-3, 5e-3)]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 1e-3


def test_eps_0_changes_nothing(model: nn.Module, x: Tensor, y: Tensor) -> None:
    assert torch.equal(fgsm(model, x, y, 0.0, **NORM), x)
    assert torch.equal(pgd(model, x, y, 0.0, **NORM), x)
    assert torch.equal(fgsm(model, x, y, 0.0, **NORM, protocol="paper"), x)


def test_one_gradient_serves_a_curve_of_eps(model: nn.Module, x: Tensor, y: Tensor) -> None:
    sign = gradient_sign(model, x, y)
    for eps in (1 / 255, EPS):
        assert torch.equal(standard_step(x, sign, eps, **NORM), fgsm(model, x, y, eps, **NORM))


@pytest.mark.parametrize("scale", [1.0, 4.0, 20.0])
def test_a_saturated_softmax_s_small_gradients_are_attacked_all_the_same(
    model: nn.Module, x: Tensor, scale: float
) -> None:
    # Over-confident networks have gradients below 1e-6. To skip them would make such networks look robust.
    model.fc.weight.data *= 10 * scale
    y = model(x).argmax(1)
    before, after = as_pixels(x), as_pixels(fgsm(model, x, y, 1 / 255, **NORM))
    inside = (before > 0.01) & (before < 0.99)
    assert float(((after - before)[inside].abs() > 0.5 / 255).float().mean()) == 1.0
    assert loss(model, normalised(after), y) >= loss(model, x, y)


def test_a_gradient_of_exactly_zero_moves_nothing() -> None:
    # What FGSM cannot see: at a gap of 1000 the float32 softmax is 1 and 0, and its gradient is nothing at all.
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2, bias=False))
    model[1].weight.data = torch.tensor([[1000.0], [-1000.0]]).repeat(1, 192)
    x = normalised(torch.full((2, 3, 8, 8), 0.9))
    assert torch.equal(fgsm(model, x, torch.zeros(2, dtype=torch.long), 0.01, **NORM), x)


@pytest.mark.parametrize("protocol", ["standard", "paper"])
def test_autocast_and_train_mode_change_nothing(model: nn.Module, x: Tensor, y: Tensor, protocol: str) -> None:
    # In half precision small gradients are exactly 0, and a sign of 0 is no attack.
    expected = fgsm(model, x, y, EPS, **NORM, protocol=protocol)  # type: ignore[arg-type]
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        again = fgsm(model, x.clone(), y.clone(), EPS, **NORM, protocol=protocol)  # type: ignore[arg-type]
    assert torch.equal(again, expected)
    assert again.dtype == torch.float32
    assert model.training
    assert [p.grad for p in model.parameters()] == [None] * 14


@pytest.mark.parametrize("attack", ["standard", "paper", "pgd"])
def test_neither_batch_size_nor_order_matters_and_a_second_run_is_equal(
    model: nn.Module, x: Tensor, y: Tensor, attack: str
) -> None:
    def run(images: Tensor, labels: Tensor) -> Tensor:
        if attack == "pgd":
            return pgd(model, images, labels, EPS, **NORM, steps=3)
        return fgsm(model, images, labels, EPS, **NORM, protocol=attack)  # type: ignore[arg-type]

    model.double()
    x = x.double()
    whole = run(x, y)
    assert torch.equal(run(x, y), whole)
    one_by_one = torch.cat([run(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(one_by_one, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(run(x.flip(0), y.flip(0)).flip(0), whole, rtol=0, atol=1e-12)


# PGD


def test_pgd_stays_in_the_ball_and_in_the_valid_range(model: nn.Module, x: Tensor, y: Tensor) -> None:
    after = as_pixels(pgd(model, x, y, EPS, **NORM, step_size=EPS, steps=4))
    assert float((after - as_pixels(x)).abs().max()) <= EPS + 1e-6
    assert float(after.min()) >= -1e-6
    assert float(after.max()) <= 1 + 1e-6


def test_one_step_of_eps_from_x_itself_is_fgsm(model: nn.Module, x: Tensor, y: Tensor) -> None:
    ours = pgd(model, x, y, EPS, **NORM, steps=1, step_size=EPS, seed=None)
    torch.testing.assert_close(ours, fgsm(model, x, y, EPS, **NORM), rtol=0, atol=1e-6)


def test_twenty_steps_are_worse_for_the_model_than_one(model: nn.Module, x: Tensor, y: Tensor) -> None:
    once, often = fgsm(model, x, y, 0.1, **NORM), pgd(model, x, y, 0.1, **NORM)
    assert loss(model, often, y) > loss(model, once, y)


def test_pgd_against_a_literal_loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
    model, weights = linear()
    x, y = x[:5, :, :4, :4].double(), y[:5] % 4
    ours = as_pixels(pgd(model, x, y, EPS, **NORM, steps=3, step_size=0.02, seed=None)).flatten(1)
    mean, std = (torch.tensor(values, dtype=torch.float64).repeat_interleave(16).tolist() for values in (MEAN, STD))
    for row, label, found in zip(x.flatten(1).tolist(), y.tolist(), ours.tolist(), strict=True):
        pixels = [value * s + m for value, m, s in zip(row, mean, std, strict=True)]
        now = list(pixels)
        for _ in range(3):
            values = [(pixel - m) / s for pixel, m, s in zip(now, mean, std, strict=True)]
            slopes = attacks.loss_gradient(weights, values, label)
            now = [
                max(0.0, start - EPS, min(1.0, start + EPS, pixel + 0.02 * attacks.sign(slope)))
                for start, pixel, slope in zip(pixels, now, slopes, strict=True)
            ]
        assert found == pytest.approx(now, abs=1e-6)


def test_the_random_start_is_the_seed_s_and_fills_the_ball(x: Tensor, y: Tensor) -> None:
    blind = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    blind[1].weight.data.zero_()  # no gradient: what comes back is the start
    starts = [pgd(blind, x, y, 0.1, **NORM, steps=1, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    before = as_pixels(x)
    moved = (as_pixels(starts[0]) - before)[(before > 0.1) & (before < 0.9)]
    assert abs(float(moved.mean())) < 0.005
    assert float(moved.std()) == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert not torch.equal(starts[0][0] - x[0], starts[0][1] - x[1])  # another image, another start
    state = torch.get_rng_state()
    pgd(blind, x, y, 0.1, **NORM, steps=1)
    assert torch.equal(state, torch.get_rng_state())


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 8}, r"^eps: 8, expected a share of the pixel range in \[0, 1\], as 8/255$"),
        ({"eps": float("nan")}, "^eps: nan"),
        ({"eps": -0.1, "protocol": "paper"}, "^eps: -0.1, expected a number >= 0 in normalised units"),
        ({"protocol": "papre"}, '^protocol: \'papre\', expected "standard" or "paper"$'),
        ({"y": None}, '^y: None, but the protocol "standard"'),
        ({"y": torch.tensor([0, 5])}, r"^y: from 0 to 5, expected class indices in 0\.\.4$"),
        ({"y": torch.tensor([0])}, r"^y: torch.int64 of shape \(1,\), expected \(2,\) class indices$"),
        ({"y": torch.tensor([0.0, 1.0])}, "^y: torch.float32"),
        (
            {"x": torch.full((2, 3, 8, 8), 9.0)},
            r"^x: pixels from 2.26 to 2.31 under this mean and std, expected \[0, 1",
        ),
        ({"std": (0.2, 0.2)}, "^std: 2 values for images of 3 channels"),
    ],
)
def test_bad_input_is_one_clear_line(arguments: dict[str, object], message: str) -> None:
    given = {"x": torch.zeros(2, 3, 8, 8), "y": torch.zeros(2, dtype=torch.long), "eps": EPS, **NORM} | arguments
    with pytest.raises(ValueError, match=message) as caught:
        fgsm(nets.mlp(), **given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"steps": 0}, "^steps: 0"), ({"step_size": 0.0}, "^step_size: 0.0"), ({"seed": -1}, "^seed: -1")],
)
def test_bad_pgd_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pgd(nets.mlp(), torch.zeros(2, 3, 8, 8), torch.zeros(2).long(), EPS, **NORM, **arguments)  # type: ignore[arg-type]


def test_nan_logits_are_one_clear_line() -> None:
    model = nets.mlp()
    model[3].bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"^logits: 2 of 2 rows are not finite"):
        fgsm(model, torch.zeros(2, 3, 8, 8), torch.zeros(2).long(), EPS, **NORM)
    with pytest.raises(ValueError, match=r"^logits: 2 of 2 rows are not finite"):
        clean_logits(model, torch.zeros(2, 3, 8, 8))
