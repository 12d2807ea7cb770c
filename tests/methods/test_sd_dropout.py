"""SD-Dropout against Algorithm 1, before the head and inside the model."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill import CrossEntropy, Dropout, SDDropout, SelfDistiller
from selfdistill.losses import Direction
from tests.nets import CLASSES, HEADS, NETS, ConvNet, batch, mlp
from tests.reference import algorithm_1

DIRECTIONS = ["both", "forward", "reverse"]


def masks(features: Tensor, p: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the masks u and v that the library draws under this seed: one call on 2B rows."""
    torch.manual_seed(seed)
    u, v = F.dropout(torch.ones_like(features).repeat(2, *[1] * (features.dim() - 1)), p).chunk(2)
    return u, v


def gradients(loss: Tensor, model: torch.nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("p", "weight", "temperature"), [(0.5, 1.0, 3.0), (0.3, 0.1, 1.0), (0.8, 2.5, 4.0)])
def test_against_algorithm_1(direction: Direction, p: float, weight: float, temperature: float) -> None:
    model, (x, y) = ConvNet().double(), batch("conv")
    x = x.double()
    distiller = SelfDistiller(model, SDDropout(p, weight, temperature, direction))
    torch.manual_seed(7)
    output = distiller(x, y)

    u, v = masks(torch.empty(6, 16, dtype=torch.float64), p, seed=7)
    assert set(torch.cat([u, v]).unique().tolist()) == {0.0, 1 / (1 - p)}
    assert not torch.equal(u, v)
    expected = algorithm_1.loss_total(
        model.features, model.fc, x, y.tolist(), u, v, weight=weight, temperature=temperature, direction=direction
    )
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(output.loss.detach(), output.terms["ce"] + weight * temperature**2 * output.terms["sdd"])
    torch.testing.assert_close(output.logits, model(x))


def test_directions_share_the_value_and_split_the_gradient() -> None:
    model, (x, y) = mlp().double(), batch("mlp")
    x = x.double()
    losses, found = [], []
    for direction in DIRECTIONS:
        torch.manual_seed(7)
        loss = SelfDistiller(model, SDDropout(direction=direction))(x, y).loss  # type: ignore[arg-type]
        losses.append(loss.item())
        found.append(gradients(loss, model))
    plain = gradients(SelfDistiller(model, CrossEntropy())(x, y).loss, model)
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])
    for both, forward, reverse, of_ce in zip(*found, plain, strict=True):
        torch.testing.assert_close(both, forward + reverse - of_ce)
        assert not torch.allclose(forward, reverse, rtol=1e-3)


def test_cross_entropy_sees_clean_logits_only() -> None:
    model, (x, y) = mlp(), batch("mlp")
    output = SelfDistiller(model, SDDropout())(x, y)
    torch.testing.assert_close(output.terms["ce"], F.cross_entropy(model(x), y).detach())


def test_without_dropout_the_term_is_zero() -> None:
    output = SelfDistiller(mlp(), SDDropout(p=0.0))(*batch("mlp"))
    assert output.terms["sdd"].item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(output.loss.detach(), output.terms["ce"])


def test_more_dropout_means_a_larger_term() -> None:
    model, (x, y) = mlp(), batch("mlp", 100)
    terms = [SelfDistiller(model, SDDropout(p))(x, y).terms["sdd"].item() for p in (0.0, 0.1, 0.3, 0.5, 0.8)]
    assert terms == sorted(terms)
    assert terms[4] > 4 * terms[1] > 0


def test_without_weight_it_is_cross_entropy() -> None:
    model, (x, y) = mlp(), batch("mlp")
    plain, weightless = (SelfDistiller(model, method)(x, y) for method in (CrossEntropy(), SDDropout(weight=0.0)))
    assert plain.loss.item() == weightless.loss.item()
    torch.testing.assert_close(gradients(plain.loss, model), gradients(weightless.loss, model), rtol=0, atol=0)
    assert weightless.terms["sdd"] > 0


def test_masks_are_drawn_anew() -> None:
    distiller, (x, y) = SelfDistiller(mlp(), SDDropout()), batch("mlp")
    assert distiller(x, y).terms["sdd"] != distiller(x, y).terms["sdd"]


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.1, 0.25), (0.3, 0.75), (0.4, 1.0), (0.9, 1.0)])
def test_warmup_ramps_the_weight(progress: float, share: float) -> None:
    distiller, (x, y) = SelfDistiller(mlp(), SDDropout(weight=0.5, warmup=0.4)), batch("mlp")
    distiller.progress.fill_(progress)
    loss, _, terms = distiller(x, y)
    torch.testing.assert_close(loss.detach(), terms["ce"] + share * 0.5 * 9 * terms["sdd"])


def test_without_warmup_the_weight_is_whole_from_the_start() -> None:
    loss, _, terms = SelfDistiller(mlp(), SDDropout(weight=0.5))(*batch("mlp"))
    torch.testing.assert_close(loss.detach(), terms["ce"] + 0.5 * 9 * terms["sdd"])


# at=


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_dropout_inside_against_literal(direction: Direction) -> None:
    """The rest of the net by hand on clean, u and v together: its BatchNorm sees all three."""
    model, (x, y) = ConvNet().double(), batch("conv")
    x = x.double()
    by_hand = copy.deepcopy(model)
    torch.manual_seed(7)
    output = SelfDistiller(model, SDDropout(0.3, 0.5, 2.0, direction, at="block"))(x, y)

    inner = by_hand.block(by_hand.norm(by_hand.stem(x)).relu())
    u, v = masks(inner, 0.3, seed=7)
    together = torch.cat([inner, inner * u, inner * v])
    conv, norm, relu = by_hand.after
    z = conv(together)
    mean, variance = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), keepdim=True, unbiased=False)
    z = (z - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    clean, logits_u, logits_v = by_hand.fc(relu(z).mean((2, 3))).chunk(3)
    expected = algorithm_1.ce_loss(clean, y.tolist())
    expected = expected + 0.5 * 2.0**2 * algorithm_1.loss_kd_of(logits_u, logits_v, 2.0, direction)

    torch.testing.assert_close(output.logits, clean)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, by_hand))
    assert model.norm.num_batches_tracked == 1
    assert norm.num_batches_tracked == 0  # by hand it was not called
    assert model.after[1].num_batches_tracked == 1
    torch.testing.assert_close(model.after[1].running_mean, 0.1 * mean.flatten())


@pytest.mark.parametrize(
    ("net", "at"), [("conv", "stem"), ("attention", "patches"), ("mlp", "2"), ("mapping", "pooler")]
)
def test_dropout_inside_any_net(net: str, at: str) -> None:
    x, y = batch(net)
    model = NETS[net]()
    loss, logits, terms = SelfDistiller(model, SDDropout(at=at))(x, y)
    loss.backward()
    assert logits.shape == (6, CLASSES)
    assert terms["sdd"] > 0
    torch.testing.assert_close(loss.detach(), terms["ce"] + 9 * terms["sdd"])


def test_dropout_just_before_the_head_is_the_same_at_both_places() -> None:
    """``at=`` the last module before the head draws the same masks as no ``at``."""
    model, (x, y) = mlp(), batch("mlp")
    losses = []
    for at in (None, "2"):
        torch.manual_seed(7)
        losses.append(SelfDistiller(model, SDDropout(at=at))(x, y).loss)
    torch.testing.assert_close(*losses)


def test_standard_dropout_and_dropout_inside_together() -> None:
    model, (x, y) = ConvNet(), batch("conv")
    loss, logits, terms = SelfDistiller(model, Dropout(p=0.0) + SDDropout(at="block", weight=0.0))(x, y)
    torch.testing.assert_close(terms["ce"], F.cross_entropy(logits, y).detach())
    torch.testing.assert_close(loss.detach(), terms["ce"])


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("layer9", "at='layer9' is no module of this ConvNet; its children are: stem, norm, block, after, fc"),
        ("block.conv1", None),
        ("block.conv2", "at='block.conv2': the layers after it cannot run on clean and dropped copies together"),
        ("block.norm2", "at='block.norm2': the layers after it cannot run on clean and dropped copies together"),
    ],
)
def test_bad_places_are_errors_in_the_first_step(at: str, message: str | None) -> None:
    message = message or "at='block.conv1': the layers after it cannot run on clean and dropped copies together"
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, SDDropout(at=at))
    for _ in range(2):
        with pytest.raises((ValueError, RuntimeError), match=message):
            distiller(x, y)


def test_a_place_inside_the_head_is_not_a_feature() -> None:
    """Dropping the logits themselves is odd but defined: features and head stay those of the clean pass."""
    model, (x, y) = mlp(), batch("mlp")
    output = SelfDistiller(model, SDDropout(at=HEADS["mlp"]))(x, y)
    torch.testing.assert_close(output.logits, model(x))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 1.0}, r"SDDropout: p is the probability to drop a feature, in \[0, 1\), not 1.0"),
        ({"p": -0.5}, r"SDDropout: p is the probability to drop a feature, in \[0, 1\), not -0.5"),
        ({"p": float("nan")}, r"SDDropout: p is the probability"),
        ({"weight": -0.1}, "SDDropout: weight must be at least 0 and finite, not -0.1"),
        ({"weight": float("nan")}, "SDDropout: weight must be at least 0 and finite, not nan"),
        ({"weight": float("inf")}, "SDDropout: weight must be at least 0 and finite, not inf"),
        ({"temperature": 0.0}, "SDDropout: temperature must be positive and finite, not 0.0"),
        ({"temperature": -3.0}, "SDDropout: temperature must be positive and finite, not -3.0"),
        ({"direction": "sideways"}, "SDDropout: direction must be 'both', 'forward' or 'reverse', not 'sideways'"),
        ({"warmup": 1.1}, r"SDDropout: warmup is a share of the training, in \[0, 1\], not 1.1"),
        ({"warmup": -0.1}, r"SDDropout: warmup is a share of the training, in \[0, 1\], not -0.1"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SDDropout(**arguments)  # type: ignore[arg-type]


def test_defaults_are_those_of_the_papers_runs() -> None:
    method = SDDropout()
    settings = (method.p, method.weight, method.temperature, method.direction, method.at, method.warmup)
    assert settings == (0.5, 1.0, 3.0, "both", None, 0.0)
