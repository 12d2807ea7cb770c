"""Adversarial attacks on normalised images: FGSM in two named protocols (Table 5, Fig. 3), and PGD.

A curve over several eps needs one backward pass: `gradient_sign` once, then `standard_step` for each eps.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfdistill.evaluation.gradient import input_gradient, per_channel, plain

Protocol = Literal["standard", "paper"]

EPSILONS = (0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
"""The eps of a robustness curve, pixel units."""

PAPER_EPS = 0.2
"""The paper's eps, in normalised units: not comparable with any eps in pixel units."""


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None,
    eps: float,
    *,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    protocol: Protocol = "standard",
) -> Tensor:
    """Fast gradient sign method: one step of length eps along s = sign(d/dx sum_b CE(M(x)_b, y_b)).

    "standard", for pixels v = std * x + mean in [0, 1]: v' = clip(v + eps * s, 0, 1), y the true labels.

    "paper", the four steps behind Table 5, all in normalised units: (1) y is the model's own prediction, the labels
    are not looked at; (2) a = x + eps * s; (3) b = clip(a, 0, 1), although normalised values reach far beyond;
    (4) x' = x + clip(b - x, -eps, eps). A value below -eps therefore always moves by +eps and one above 1 + eps by
    -eps, whatever the gradient: these accuracies compare with Table 5 and with no other FGSM number.

    The model is run in evaluation mode and float32 whatever the caller left behind, and is left as it was found. A
    gradient of exactly 0 moves nothing. A softmax so saturated that its gradient underflows cannot be attacked in
    this way and looks robust: read FGSM beside `pgd` and beside the calibration.

    Args:
        model: M, on x's device.
        x: images, normalised by `mean` and `std`, (B, C, H, W).
        y: class indices, (B,); "paper" does not read them, None is fine there.
        eps: "standard": in [0, 1], a share of the pixel range, as 8/255; "paper": in normalised units, 0.2 there.
        mean: of the normalisation, one per channel.
        std: of the normalisation, one per channel, > 0.
        protocol: "standard" or "paper".

    Returns:
        x', normalised, (B, C, H, W), float32 and on x's device.

    Raises:
        ValueError: an argument is out of range or of another shape, x has pixels outside [0, 1] ("standard"), the
            model is of half precision, or a logit is not finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
        >>> x = torch.zeros(5, 3, 4, 4)  # a pixel of 0.5
        >>> attacked = fgsm(model, x, torch.zeros(5, dtype=torch.long), 0.125, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> attacked.abs().unique()
        tensor([0.5000])

    Source: Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015.
    """
    if protocol == "standard":
        if y is None:
            raise ValueError('y: None, but the protocol "standard" attacks the true labels; pass them')
        return standard_step(x, gradient_sign(model, x, y), eps, mean=mean, std=std)
    if protocol == "paper":
        return paper_step(x, gradient_sign(model, x), eps)
    raise ValueError(f'protocol: {protocol!r}, expected "standard" or "paper"')


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    steps: int = 20,
    step_size: float | None = None,
    seed: int | None = 0,
) -> Tensor:
    """Projected gradient descent: v_0 = clip(v + eps * u), v_k+1 = P(v_k + alpha * sign(d/dv sum_b CE(M(v_k)_b, y_b))).

    P projects onto {w in [0, 1] : |w - v| <= eps}, pixel by pixel, in pixel units; v = std * x + mean. The start u is
    uniform in [-1, 1] and a function of (seed, the image's own 8-bit pixels) alone, so that the result depends neither
    on the size of a batch nor on the order of the images. The last iterate is returned.

    Args:
        model: M, on x's device; run in evaluation mode and float32, and left as it was found.
        x: images, normalised by `mean` and `std`, (B, C, H, W).
        y: the true labels, class indices, (B,).
        eps: radius of the ball, in [0, 1], a share of the pixel range.
        mean: of the normalisation, one per channel.
        std: of the normalisation, one per channel, > 0.
        steps: forward and backward passes, >= 1.
        step_size: alpha > 0, pixel units; None: 2.5 * eps / steps, with which any point of the ball can be reached.
        seed: of the random start, in [0, 2**32); None: start at x itself.

    Returns:
        x', normalised, (B, C, H, W), float32 and on x's device.

    Raises:
        ValueError: as for `fgsm`, or steps, step_size or seed is out of range.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
        >>> x, y = torch.zeros(5, 3, 4, 4), torch.zeros(5, dtype=torch.long)
        >>> attacked = pgd(model, x, y, 0.125, mean=(0.5,) * 3, std=(0.25,) * 3, steps=8)
        >>> bool((attacked.abs() <= 0.5).all())
        True

    Source: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    if step_size is not None and not 0 < step_size < math.inf:
        raise ValueError(f"step_size: {step_size}, expected a positive share of the pixel range (or None)")
    if seed is not None and not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed}, expected a whole number in [0, 2**32), or None for a start at x itself")
    x, low, high = _box(x, eps, mean, std)
    sd = per_channel(std, x, "std")
    step = (2.5 * eps / steps if step_size is None else step_size) / sd
    attacked = x
    if seed is not None and eps > 0:
        noise = _start(x * sd + per_channel(mean, x, "mean"), seed)
        attacked = (x + eps / sd * noise).clamp(low, high)
    if eps > 0:
        for _ in range(steps):
            attacked = (attacked + step * gradient_sign(model, attacked, y)).clamp(low, high)
    return attacked


def gradient_sign(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """s = sign(d/dx sum_b CE(M(x)_b, y_b)), in {-1, 0, 1}; without y, of the class that M itself predicts.

    Since std > 0, the sign is the same for normalised values and for pixels.

    Args:
        model: M, on x's device; run in evaluation mode and float32, and left as it was found.
        x: images, normalised, (B, ...).
        y: class indices, (B,); None: argmax of the logits, the first of equals.

    Raises:
        ValueError: labels do not fit, the model is of half precision, or a logit is not finite.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> model.weight.data = torch.tensor([[1.0], [-1.0]])
        >>> gradient_sign(model, torch.tensor([[2.0], [-2.0]]), torch.tensor([0, 0]))
        tensor([[-1.],
                [-1.]])
        >>> gradient_sign(model, torch.tensor([[2.0], [-2.0]]))
        tensor([[-1.],
                [ 1.]])
    """
    return input_gradient(model, x, attacked_loss(y)).sign()


def attacked_loss(y: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The function z -> sum_b CE(z_b, y_b) that an attack climbs; without y, of the classes that z itself predicts.

    Args:
        y: class indices, (B,); None: argmax of the logits, the first of equals.

    Raises:
        ValueError: (when it is called) the labels do not fit the logits.

    Example:
        >>> attacked_loss()(torch.zeros(3, 2)) / 3
        tensor(0.6931)
    """

    def loss(z: Tensor) -> Tensor:
        labels = z.argmax(dim=1) if y is None else _labels(y, z)
        return F.cross_entropy(z, labels, reduction="sum")

    return loss


def standard_step(
    x: Tensor, sign: Tensor, eps: float, *, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor
) -> Tensor:
    """clip(v + eps * s, 0, 1) for pixels v = std * x + mean, normalised again: the last step of "standard".

    Args:
        x: images, normalised, (B, C, H, W).
        sign: s, of x's shape; see `gradient_sign`.
        eps: in [0, 1], a share of the pixel range; at 0 the images come back as they are.
        mean: of the normalisation, one per channel.
        std: of the normalisation, one per channel, > 0.

    Raises:
        ValueError: eps, mean or std is out of range, or x has pixels outside [0, 1].

    Example:
        >>> x = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)  # pixels 0.5 and 1
        >>> standard_step(x, torch.ones_like(x), 0.125, mean=[0.5], std=[0.25]).flatten()
        tensor([0.5000, 2.0000])
    """
    x, low, high = _box(x, eps, mean, std)
    return (x + eps / per_channel(std, x, "std") * sign).clamp(low, high)


def paper_step(x: Tensor, sign: Tensor, eps: float) -> Tensor:
    """x + clip(clip(x + eps * s, 0, 1) - x, -eps, eps), all in normalised units: the last steps of "paper".

    Args:
        x: images, normalised, any shape.
        sign: s, of x's shape; see `gradient_sign`.
        eps: >= 0, in normalised units.

    Raises:
        ValueError: eps is negative or not finite.

    Example:
        >>> paper_step(torch.tensor([-1.0, 0.5, 0.875, 2.0]), torch.tensor([-1.0, -1.0, 1.0, 1.0]), 0.25)
        tensor([-0.7500,  0.2500,  1.0000,  1.7500])
    """
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps: {eps}, expected a number >= 0 in normalised units")
    x = plain(x)
    clipped = (x + eps * sign).clamp(0, 1)
    return x + (clipped - x).clamp(-eps, eps)


def _box(
    x: Tensor, eps: float, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x in float32, and the smallest and the largest value that an attack may give each of its pixels."""
    if not 0 <= eps <= 1:
        raise ValueError(f"eps: {eps}, expected a share of the pixel range in [0, 1], as 8/255")
    x = plain(x)
    centre, sd = per_channel(mean, x, "mean"), per_channel(std, x, "std")
    lowest, highest = (x * sd + centre).aminmax()
    if not (float(lowest) >= -1e-3 and float(highest) <= 1 + 1e-3):  # NaN fails too
        raise ValueError(
            f"x: pixels from {float(lowest):.3g} to {float(highest):.3g} under this mean and std, expected [0, 1]; "
            "pass normalised images, and the mean and std they were normalised with"
        )
    # Values on the border may be past it by a rounding; the inner clamp keeps x itself inside the box.
    low = torch.minimum(x, torch.maximum(-centre / sd, x - eps / sd))
    high = torch.maximum(x, torch.minimum((1 - centre) / sd, x + eps / sd))
    return x, low, high


def _start(pixels: Tensor, seed: int) -> Tensor:
    """Uniform in [-1, 1], of the pixels' shape: each image's draw is seeded by the seed and its own 8-bit pixels."""
    images = (255 * pixels).round().clamp(0, 255).to(torch.uint8).cpu()
    generator = torch.Generator()
    draws = []
    for image in images:
        generator.manual_seed(zlib.crc32(image.numpy().tobytes(), seed))
        draws.append(torch.rand(image.shape, generator=generator))
    return (2 * torch.stack(draws) - 1).to(pixels)


def _labels(y: Tensor, z: Tensor) -> Tensor:
    if y.shape != z.shape[:1] or y.is_floating_point():
        raise ValueError(f"y: {y.dtype} of shape {tuple(y.shape)}, expected ({len(z)},) class indices")
    if bool(((y < 0) | (y >= z.shape[1])).any()):
        raise ValueError(f"y: from {int(y.min())} to {int(y.max())}, expected class indices in 0..{z.shape[1] - 1}")
    return (y.clone() if y.is_inference() else y).to(z.device, torch.long)  # autograd saves no inference tensor
