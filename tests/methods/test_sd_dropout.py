"""SD-Dropout against Algorithm 1, before the head and inside the model."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfdistill import DDGSD, DML, CrossEntropy, Dropout, SDDropout, SelfDistiller
from selfdistill.losses import Direction
from tests.counting import gradients, rows_of_calls, updates
from tests.nets import CLASSES, HEADS, NETS, ConvNet, batch, mlp
from tests.reference import algorithm_1, sd_dropout

DIRECTIONS = ["both", "forward", "reverse"]


def masks(features: Tensor, p: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the masks u and v that the library draws under this seed: one call on 2B rows."""
    torch.manual_seed(seed)
    u, v = F.dropout(torch.ones_like(features).repeat(2, *[1] * (features.dim() - 1)), p).chunk(2)
    return u, v


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
    distiller.set_progress(progress)
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


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("at", ["stem", "block"])
def test_separate_passes_are_algorithm_1_with_the_later_layers_as_its_head(direction: Direction, at: str) -> None:
    """Clean, u and v one after the other: loss, gradients, and BatchNorm's statistics after the step."""
    model, (x, y) = ConvNet().double(), batch("conv")
    x = x.double()
    by_hand = copy.deepcopy(model)
    method = SDDropout(0.3, 0.5, 2.0, direction, at=at, channels=True, passes="separate")
    distiller = SelfDistiller(model, method, example_input=x)
    torch.manual_seed(7)
    output = distiller(x, y)

    def before(images: Tensor) -> Tensor:
        maps = by_hand.stem(images)
        return maps if at == "stem" else by_hand.block(by_hand.norm(maps).relu())

    def behind(maps: Tensor) -> Tensor:
        if at == "stem":
            maps = by_hand.block(by_hand.norm(maps).relu())
        return by_hand.fc(by_hand.after(maps).mean((2, 3)))

    torch.manual_seed(7)
    u, v = F.dropout2d(torch.ones(12, 8, 8, 8, dtype=torch.float64), 0.3).chunk(2)
    expected = algorithm_1.loss_total(
        before, behind, x, y.tolist(), u, v, weight=0.5, temperature=2.0, direction=direction
    )
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, by_hand))
    assert int(model.after[1].num_batches_tracked) == 3
    assert int(model.norm.num_batches_tracked) == (3 if at == "stem" else 1)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict())
    torch.testing.assert_close(output.terms["ce"], F.cross_entropy(model(x), y).detach())  # a plain pass


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
        ("layer9", "at='layer9' is not a submodule of this ConvNet; its children are: stem, norm, block, after, fc"),
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


def test_channels_are_dropped_whole() -> None:
    """As inside against literal, the masks being of channels."""
    model, (x, y) = ConvNet().double().eval(), batch("conv")  # the norms as constants: they are tested above
    x = x.double()
    distiller = SelfDistiller(model, SDDropout(0.3, at="block", channels=True), example_input=x)
    torch.manual_seed(7)
    output = distiller(x, y)

    inner = model.block(model.norm(model.stem(x)).relu())
    torch.manual_seed(7)
    mask = F.dropout2d(torch.ones_like(inner).repeat(2, 1, 1, 1), 0.3)
    assert all(len(channel.unique()) == 1 for image in mask for channel in image)
    u, v = mask.chunk(2)
    assert not torch.equal(u, v)
    logits_u, logits_v = (model.fc(model.after(inner * each).mean((2, 3))) for each in (u, v))
    torch.testing.assert_close(output.terms["sdd"], sd_dropout.both_ways(logits_u, logits_v, 3.0).detach())
    expected = F.cross_entropy(model(x), y) + 9 * sd_dropout.both_ways(logits_u, logits_v, 3.0)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model))


# one_sided=


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_sided_against_literal(direction: Direction) -> None:
    """The authors' second version; ``direction`` holds the teacher, the student or neither."""
    model, (x, y) = mlp().double(), batch("mlp")
    x = x.double()
    distiller = SelfDistiller(model, SDDropout(0.3, 0.7, 2.0, direction, one_sided=True), example_input=x)
    rows = rows_of_calls(model[3])
    torch.manual_seed(7)
    output = distiller(x, y)
    assert rows == [6, 6]  # one head pass fewer

    features = model[:3](x)
    torch.manual_seed(7)
    u = F.dropout(torch.ones_like(features), 0.3)
    z_u, z = model[3](features * u), model[3](features)
    if direction == "both":
        divergence = sd_dropout.one_sided(model[3], features, u, 2.0)
    elif direction == "forward":
        divergence = sd_dropout.one_way(z_u.detach(), z, 2.0)
    else:
        divergence = sd_dropout.one_way(z_u, z.detach(), 2.0)
    expected = algorithm_1.ce_loss(z, y.tolist()) + 0.7 * 2.0**2 * divergence
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(output.loss, model), gradients(expected, model), rtol=1e-8, atol=1e-10)


def test_one_sided_inside() -> None:
    model, (x, y) = ConvNet().double().eval(), batch("conv")
    x = x.double()
    distiller = SelfDistiller(model, SDDropout(0.3, at="block", one_sided=True), example_input=x)
    torch.manual_seed(7)
    output = distiller(x, y)
    inner = model.block(model.norm(model.stem(x)).relu())
    u, _ = masks(inner, 0.3, seed=7)
    dropped = model.fc(model.after(inner * u).mean((2, 3)))
    torch.testing.assert_close(output.terms["sdd"], sd_dropout.one_way(dropped, model(x), 3.0).detach())


# pairing=


def assert_sum_is(divergence: Tensor, alone: Tensor, output: Any, *modules: torch.nn.Module) -> None:
    """The loss is the other method's own and 0.1 * 9 times the divergence, value and gradient."""
    expected = alone + 0.1 * 9 * divergence
    torch.testing.assert_close(output.terms["sdd"], divergence.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
    found, wanted = gradients(output.loss, *modules), gradients(expected, *modules)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_beside_ddgsd_as_run(direction: Direction) -> None:
    """One mask for each view, compared across the views."""
    model, (a, y) = ConvNet().double(), batch("conv")
    a, b = a.double(), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    method = DDGSD() + SDDropout(weight=0.1, direction=direction)
    distiller = SelfDistiller(model, method, example_input=a)
    calls, heads = rows_of_calls(model), rows_of_calls(model.fc)
    torch.manual_seed(7)
    output = distiller(a, y, views=[b])
    assert (calls, heads) == ([12], [12, 12])  # SD-Dropout adds a call of the head
    assert updates(model) == {1}

    alone = SelfDistiller(model, DDGSD())(a, y, views=[b]).loss
    f_a, f_b = model.features(torch.cat([a, b])).chunk(2)
    u, v = masks(f_a, 0.5, seed=7)
    divergence = sd_dropout.across_views(model.fc, f_a, f_b, u, v, 3.0)
    if direction != "both":
        z_u, z_v = model.fc(f_a * u), model.fc(f_b * v)
        divergence = algorithm_1.loss_kd_of(z_u, z_v, 3.0, direction)
    assert_sum_is(divergence, alone, output, model)


def test_beside_ddgsd_within() -> None:
    """Two masks on each of the 2B features."""
    model, (a, y) = ConvNet().double(), batch("conv")
    a, b = a.double(), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    method = DDGSD() + SDDropout(weight=0.1, pairing="within")
    torch.manual_seed(7)
    output = SelfDistiller(model, method, example_input=a)(a, y, views=[b])

    alone = SelfDistiller(model, DDGSD())(a, y, views=[b]).loss
    f_a, f_b = model.features(torch.cat([a, b])).chunk(2)
    torch.manual_seed(7)
    of_a, of_b = (tuple(F.dropout(torch.ones_like(f_a).repeat(2, 1)).chunk(2)) for _ in range(2))
    assert_sum_is(sd_dropout.within_views(model.fc, f_a, f_b, of_a, of_b, 3.0), alone, output, model)


def test_beside_dml_as_run() -> None:
    """One mask for each network, both classified by the student's head: the peer's own head learns nothing of it."""
    model, peer, (x, y) = ConvNet().double(), ConvNet().double(), batch("conv")
    x = x.double()
    method = DML(peer=peer) + SDDropout(weight=0.1)
    distiller = SelfDistiller(model, method, example_input=x)
    calls = [rows_of_calls(module) for module in (model, model.fc, peer, peer.fc)]
    torch.manual_seed(7)
    output = distiller(x, y)
    assert calls == [[6], [6, 12], [6], [6]]
    assert updates(model) == updates(peer) == {1}

    alone = SelfDistiller(model, DML(peer=peer), example_input=x)(x, y).loss
    f_1, f_2 = model.features(x), peer.features(x)
    u, v = masks(f_1, 0.5, seed=7)
    divergence = sd_dropout.across_networks(model.fc, f_1, f_2, u, v, 3.0)
    assert_sum_is(divergence, alone, output, model, peer)
    assert torch.autograd.grad(divergence, peer.fc.weight, allow_unused=True) == (None,)


def test_beside_dml_within() -> None:
    """Each network with masks and the head of its own, averaged."""
    model, peer, (x, y) = ConvNet().double(), ConvNet().double(), batch("conv")
    x = x.double()
    method = DML(peer=peer) + SDDropout(weight=0.1, pairing="within")
    torch.manual_seed(7)
    output = SelfDistiller(model, method, example_input=x)(x, y)

    alone = SelfDistiller(model, DML(peer=peer), example_input=x)(x, y).loss
    f_1, f_2 = model.features(x), peer.features(x)
    torch.manual_seed(7)
    of_1, of_2 = (tuple(F.dropout(torch.ones_like(f_1).repeat(2, 1)).chunk(2)) for _ in range(2))
    divergence = sd_dropout.within_networks(model.fc, peer.fc, f_1, f_2, of_1, of_2, 3.0)
    assert_sum_is(divergence, alone, output, model, peer)


def test_a_peer_with_other_features_is_compared_within() -> None:
    x, y = batch("mlp")
    peer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4), torch.nn.Linear(4, CLASSES))
    distiller = SelfDistiller(mlp(), DML(peer=peer) + SDDropout(), example_input=x)
    with pytest.raises(ValueError, match=r"the peer has features \(4,\) and the model \(24,\); set pairing='within'"):
        distiller(x, y)
    within = SelfDistiller(mlp(), DML(peer=peer) + SDDropout(pairing="within"), example_input=x)
    assert within(x, y).terms["sdd"] > 0


@pytest.mark.parametrize("pairing", ["paper", "within"])
def test_alone_the_two_pairings_are_one(pairing: Any) -> None:
    model, (x, y) = mlp(), batch("mlp")
    losses = []
    for method in (SDDropout(), SDDropout(pairing=pairing)):
        torch.manual_seed(7)
        losses.append(SelfDistiller(model, method)(x, y).loss)
    assert losses[0] == losses[1]


def test_one_backbone_pass_two_head_calls() -> None:
    """SD-Dropout adds no pass, no BatchNorm update, and one call of the head on 2B rows."""
    model, (x, y) = ConvNet(), batch("conv")
    distiller = SelfDistiller(model, SDDropout(), example_input=x)
    calls, norms, heads = rows_of_calls(model), rows_of_calls(model.norm), rows_of_calls(model.fc)
    distiller(x, y)
    assert (calls, norms, heads) == ([6], [6], [6, 12])
    assert updates(model) == {1}


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
        ({"pairing": "both"}, "SDDropout: pairing must be 'paper' or 'within', not 'both'"),
        (
            {"channels": True},
            "SDDropout: channels=True drops channels of a map; name the module that gives it with at=",
        ),
        ({"passes": "one"}, "SDDropout: passes must be 'joint' or 'separate', not 'one'"),
        (
            {"passes": "separate"},
            "SDDropout: passes='separate' applies to the layers behind a module; name it with at=",
        ),
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
    assert (method.channels, method.one_sided, method.pairing) == (False, False, "paper")
