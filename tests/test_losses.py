"""Eq. 1, 3, 6 and 7: values and gradients."""

from math import log

import pytest
import torch
from torch import Tensor

from selfdistill.losses import Direction, kl, symmetric, symmetric_kl, symmetric_kl_of_samples
from tests.reference import differences
from tests.reference import losses as literal

TEMPERATURES = [1.0, 3.0, 0.7]


def two_logits(rows: int = 4, classes: int = 5) -> tuple[Tensor, Tensor]:
    a, b = (3 * torch.randn(rows, classes, dtype=torch.float64) for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_against_literal(temperature: float) -> None:
    target, logits = two_logits()
    value = kl(target, logits, temperature)
    value.backward()

    assert value.item() == pytest.approx(literal.kl(target.tolist(), logits.tolist(), temperature), rel=1e-12)
    by_target = differences.gradient(lambda t: literal.kl(t, logits.tolist(), temperature), target.detach())
    by_logits = differences.gradient(lambda z: literal.kl(target.tolist(), z, temperature), logits.detach())
    torch.testing.assert_close(target.grad, by_target, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(logits.grad, by_logits, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_symmetric_kl_against_literal(temperature: float) -> None:
    a, b = two_logits()
    value = symmetric_kl(a, b, temperature)
    value.backward()

    assert value.item() == pytest.approx(literal.symmetric_kl(a.tolist(), b.tolist(), temperature), rel=1e-12)
    by_a = differences.gradient(lambda z: literal.symmetric_kl(z, b.tolist(), temperature), a.detach())
    torch.testing.assert_close(a.grad, by_a, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_direction_against_literal(direction: str) -> None:
    """Eq. 6 lets the gradient through the second posterior of each divergence alone, Eq. 7 through the first."""
    a, b = two_logits()
    symmetric_kl(a, b, 3.0, direction).backward()  # type: ignore[arg-type]
    fixed = b.tolist()
    forward = differences.gradient(lambda z: literal.kl(fixed, z, 3.0), a.detach())
    reverse = differences.gradient(lambda z: literal.kl(z, fixed, 3.0), a.detach())
    expected, other = (forward, reverse) if direction == "forward" else (reverse, forward)
    torch.testing.assert_close(a.grad, expected, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(expected, other, rtol=1e-2)


def test_kl_by_hand() -> None:
    """(3/4, 1/4) against (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2, also when the temperature is undone."""
    target, logits = torch.tensor([[log(3.0), 0.0]]), torch.zeros(1, 2)
    by_hand = 0.75 * log(1.5) + 0.25 * log(0.5)
    assert kl(target, logits).item() == pytest.approx(by_hand, rel=1e-6)
    assert kl(4 * target, logits, 4.0).item() == pytest.approx(by_hand, rel=1e-6)


def test_kl_sums_over_classes_and_averages_over_the_batch() -> None:
    target, logits = two_logits(rows=1, classes=4)
    value = kl(target, logits)
    torch.testing.assert_close(kl(target.repeat(7, 1), logits.repeat(7, 1)), value)
    # A class that neither posterior gives any weight changes nothing: a mean over classes would shrink.
    dead = torch.full((1, 60), -1e4, dtype=torch.float64)
    torch.testing.assert_close(kl(torch.cat([target, dead], 1), torch.cat([logits, dead], 1)), value)


def test_kl_of_equal_logits_is_zero_and_shifts_do_not_matter() -> None:
    target, logits = two_logits()
    assert kl(target, target).item() == 0
    torch.testing.assert_close(kl(target + 11, logits - 5), kl(target, logits))


def test_kl_is_not_symmetric() -> None:
    target, logits = two_logits()
    assert abs(kl(target, logits).item() - kl(logits, target).item()) > 0.1


def test_three_directions_have_one_value() -> None:
    a, b = two_logits()
    both = symmetric_kl(a, b, 3.0, "both")
    assert symmetric_kl(a, b, 3.0, "forward").item() == both.item()
    assert symmetric_kl(a, b, 3.0, "reverse").item() == both.item()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_of_both_is_forward_plus_reverse(temperature: float) -> None:
    """Lemma 1."""
    a, b = two_logits()
    gradients = {
        direction: torch.autograd.grad(symmetric_kl(a, b, temperature, direction), (a, b))  # type: ignore[arg-type]
        for direction in ("both", "forward", "reverse")
    }
    for of_both, of_forward, of_reverse in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(of_both, of_forward + of_reverse, rtol=1e-12, atol=1e-15)
        assert of_forward.abs().sum() > 0
        assert of_reverse.abs().sum() > 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradients_against_closed_forms(temperature: float) -> None:
    """``d/dz_p KL(sg q || p) = (p - q) / T`` and ``d/dz_p KL(p || sg q) = p (log(p/q) - KL(p || q)) / T``, a sample."""
    z_p, z_q = two_logits(rows=1)
    p, q = ((z / temperature).softmax(-1) for z in (z_p, z_q))
    (forward,) = torch.autograd.grad(kl(z_q.detach(), z_p, temperature), z_p)
    (reverse,) = torch.autograd.grad(kl(z_p, z_q.detach(), temperature), z_p)
    log_ratio = (p / q).log()
    torch.testing.assert_close(forward, (p - q) / temperature)
    torch.testing.assert_close(reverse, p * (log_ratio - (p * log_ratio).sum()) / temperature)


def test_gradient_times_t_squared_hardly_depends_on_t() -> None:
    """For logits small against T, T**2 times the gradient is that of a squared distance: so Eq. 4 has T**2."""
    a, b = two_logits()
    a, b = (0.01 * a).detach().requires_grad_(), (0.01 * b).detach()
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0):
        (gradient,) = torch.autograd.grad(temperature**2 * symmetric_kl(a, b, temperature), a)
        sizes.append(gradient.norm().item())
    assert sizes == pytest.approx([sizes[0]] * 4, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = (z.detach().to(dtype) for z in two_logits())
    for value in (kl(a, b, 3.0), symmetric_kl(a, b)):
        assert value.dtype == torch.float32
    torch.testing.assert_close(kl(a, b, 3.0), kl(a.float(), b.float(), 3.0), rtol=0, atol=0)


def test_kl_under_autocast_is_float32() -> None:
    a, b = (z.detach().bfloat16() for z in two_logits())
    expected = symmetric_kl(a.float(), b.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = symmetric_kl(a, b)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_extreme_logits_stay_finite() -> None:
    a, b = torch.tensor([[1e4, -1e4]], requires_grad=True), torch.tensor([[-1e4, 1e4]])
    value = symmetric_kl(a, b)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_bad_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive, not"):
        kl(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


def test_unequal_shapes() -> None:
    with pytest.raises(ValueError, match=r"kl compares logits of one shape, not \(1, 2\) with \(2, 2\)"):
        kl(torch.zeros(1, 2), torch.zeros(2, 2))


def test_unknown_direction() -> None:
    with pytest.raises(ValueError, match="direction must be 'both', 'forward' or 'reverse', not 'backward'"):
        symmetric_kl(torch.zeros(1, 2), torch.zeros(1, 2), 3.0, "backward")  # type: ignore[arg-type]


def plain_symmetric_kl(a: Tensor, b: Tensor, direction: Direction) -> Tensor:
    """Eq. 3, 6 and 7 by plain autograd, to compare derivatives of every order with."""
    of_a, of_b = (a, b) if direction == "both" else (a.detach(), b.detach())
    if direction == "reverse":
        return kl(a, of_b, 3.0) + kl(b, of_a, 3.0)
    return kl(of_a, b, 3.0) + kl(of_b, a, 3.0)


@pytest.mark.parametrize("direction", ["both", "forward", "reverse"])
def test_first_and_second_derivatives_against_plain_autograd(direction: Direction) -> None:
    a, b = two_logits()
    along = torch.randn_like(a)
    found, expected = [], []
    for loss, results in ((symmetric_kl(a, b, 3.0, direction), found), (plain_symmetric_kl(a, b, direction), expected)):
        first = torch.autograd.grad(loss, (a, b), create_graph=True)
        second = torch.autograd.grad((first[0] * along).sum() + (first[1] * along).sum(), (a, b))
        results += [*first, *second]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("direction", ["both", "forward", "reverse"])
def test_symmetric_kl_of_one_side_that_needs_no_gradient(direction: Direction) -> None:
    a, b = two_logits()
    (expected,) = torch.autograd.grad(plain_symmetric_kl(a, b, direction), b)
    symmetric_kl(a.detach(), b, 3.0, direction).backward()
    torch.testing.assert_close(b.grad, expected)


def test_symmetric_kl_keeps_nothing_but_the_two_logits() -> None:
    a, b = (torch.randn(4, 5, requires_grad=True) for _ in range(2))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        symmetric_kl(2 * a, 2 * b)
    assert [tuple(tensor.shape) for tensor in kept if tensor.dim()] == [(2, 4, 5)]


def test_symmetric_kl_of_samples_is_that_of_its_halves() -> None:
    a, b = two_logits()
    assert symmetric_kl_of_samples(torch.stack((a, b)), 2.0, "forward").item() == symmetric_kl(a, b, 2.0).item()
    for wrong in (a, torch.stack((a, b, a))):
        with pytest.raises(ValueError, match=r"takes logits \(2, B, C\), not "):
            symmetric_kl_of_samples(wrong)


def test_symmetric_kl_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large logits are worked on a few rows at a time: the value and the gradients are those of all at once."""
    a, b = two_logits(rows=7)
    whole = symmetric_kl(a, b)
    expected = torch.autograd.grad(whole, (a, b))
    monkeypatch.setattr(symmetric, "_PART", 2 * 2 * a.shape[1])
    in_parts = symmetric_kl(a, b)
    torch.testing.assert_close(in_parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(in_parts, (a, b)), expected, rtol=1e-12, atol=1e-15)


def test_gradients_of_single_samples() -> None:
    """``torch.func`` reads through it: a gradient for each sample, as gradient analyses take them."""
    a, b = (side.detach() for side in two_logits())

    def of_one(z: Tensor, other: Tensor) -> Tensor:
        return symmetric_kl(z[None], other[None])

    each = torch.func.vmap(torch.func.grad(of_one))(a, b)
    expected = [torch.func.grad(of_one)(z, other) for z, other in zip(a, b, strict=True)]
    torch.testing.assert_close(each, torch.stack(expected))


def test_half_precision_logits_have_gradients_of_their_own_kind() -> None:
    a, b = (torch.randn(4, 5, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    value = symmetric_kl(a, b)
    value.backward()
    assert value.dtype == torch.float32
    assert a.grad is not None
    assert a.grad.dtype == torch.bfloat16
