"""The suite: a model and a data set in, one frozen `Evaluation` out, whole to JSON and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfdistill.data import ImageData, Split, eval_batches
from selfdistill.evaluate.accuracy import (
    brier_score,
    negative_log_likelihood,
    rank_of_label,
    softmax,
    top_k_accuracy,
)
from selfdistill.evaluate.arrays import checked_logits
from selfdistill.evaluate.calibration import Reliability, calibration_gap, reliability
from selfdistill.tap import call, evaluation_mode, logits_of


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one trained model on one test set. Every rate is a fraction.

    Attributes:
        n: test images.
        top1: share of test images whose predicted class is right.
        top5: share whose class is among the five likeliest; None where there are fewer than six classes.
        nll: mean negative log-likelihood, nats.
        brier: Brier score, in [0, 2].
        ece: expected calibration error (Eq. 12) over `bins` bins.
        bins: number of equal-width bins of `ece` and `reliability`.
        confidence: mean of the largest probability.
        gap: `confidence` minus `top1`: above 0 over-confident, below 0 under-confident.
        reliability: the diagram's numbers.
        per_class: accuracy of each class; None for a class without a test image.
        train_n: training images that were scored, without augmentation and in eval mode; None where none were.
        train_top1: accuracy on them: near 1 says that the network has fitted its training set.
    """

    n: int
    top1: float
    top5: float | None
    nll: float
    brier: float
    ece: float
    bins: int
    confidence: float
    gap: float
    reliability: Reliability
    per_class: tuple[float | None, ...]
    train_n: int | None = None
    train_top1: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return asdict(self) | {"reliability": self.reliability.to_dict(), "per_class": list(self.per_class)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`, exactly."""
        parts = {
            "reliability": Reliability.from_dict(values["reliability"]),
            "per_class": tuple(values["per_class"]),
        }
        return cls(**(dict(values) | parts))


def evaluate(
    model: nn.Module,
    data: ImageData,
    *,
    device: torch.device | str,
    batch_size: int = 512,
    workers: int = 0,
    train: bool = True,
    max_train: int = 10_000,
    bins: int = 10,
    precision: str = "32-true",
) -> Evaluation:
    """Score a model on the test images of `data`, and on its training images without augmentation.

    Args:
        model: already on `device`; a `SelfDistiller` scores its student. Its train/eval modes are restored.
        data: a data set; see `selfdistill.data.load_data`.
        device: where the batches go.
        batch_size: images a pass, >= 1; the result does not depend on it beyond rounding.
        workers: decoding processes for a set that lives in files.
        train: score training images too.
        max_train: at most this many of them, evenly spaced over the set; `train_n` says how many.
        bins: bins of the ECE, >= 1.
        precision: "32-true", or "bf16-mixed" for the forward passes; every metric is float64.

    Raises:
        ValueError: an argument is out of range, or the model's output does not fit the data set.

    Example:
        >>> from torch import nn
        >>> from selfdistill.data import load_data
        >>> data = load_data("digits", per_class=4, test_per_class=5)
        >>> model = nn.Sequential(nn.Flatten(), nn.LazyLinear(len(data.classes)))
        >>> result = evaluate(model, data, device="cpu")
        >>> result.n, result.train_n
        (50, 40)
    """
    if max_train < 1:
        raise ValueError(f"max_train: {max_train}, expected at least 1 (or train=False)")

    def scored(split: Split) -> tuple[Tensor, Tensor]:
        batches = eval_batches(split, data, batch_size=batch_size, device=device, workers=workers)
        logits, labels = predict(model, batches, precision=precision)
        if logits.shape[1] != len(data.classes):
            raise ValueError(
                f"model: {logits.shape[1]} logits an image, but {data.name} has {len(data.classes)} classes"
            )
        return logits, labels

    train_n = train_top1 = None
    if train:
        logits, labels = scored(spaced(data.train, max_train))
        train_n, train_top1 = len(labels), top_k_accuracy(logits, labels)
    return score(*scored(data.test), bins=bins, train_n=train_n, train_top1=train_top1)


def score(
    logits: Tensor, labels: Tensor, *, bins: int = 10, train_n: int | None = None, train_top1: float | None = None
) -> Evaluation:
    """The `Evaluation` of logits (N, C) and labels (N,) at hand; the two last arguments are only kept.

    Example:
        >>> score(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])).top1
        0.5
    """
    z, y = checked_logits(logits, labels)
    p = softmax(z)
    right = rank_of_label(z, y) == 1
    diagram = reliability(p, y, bins)
    return Evaluation(
        n=len(y),
        top1=float(right.mean()),
        top5=top_k_accuracy(z, y, 5) if z.shape[1] > 5 else None,
        nll=negative_log_likelihood(z, y),
        brier=brier_score(p, y),
        ece=diagram.expected_calibration_error,
        bins=bins,
        confidence=float(p.max(axis=1).mean()),
        gap=calibration_gap(p, y),
        reliability=diagram,
        per_class=tuple(float(right[y == c].mean()) if (y == c).any() else None for c in range(z.shape[1])),
        train_n=train_n,
        train_top1=train_top1,
    )


def predict(
    model: nn.Module, batches: Iterable[tuple[Any, Tensor]], *, precision: str = "32-true"
) -> tuple[Tensor, Tensor]:
    """All logits of a model, in eval mode and without gradients.

    Args:
        model: a tensor is passed as `model(x)`, a mapping as `model(**x)`; any output that
            `selfdistill.tap.logits_of` understands.
        batches: pairs (x, y) already on the model's device.
        precision: "32-true" or "bf16-mixed".

    Returns:
        Logits (N, C), float32, and labels (N,), int64, both on the CPU and in the order of the batches.

    Raises:
        ValueError: no batch, or an unknown precision.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> logits, labels = predict(model, [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))])
        >>> logits.shape, logits.dtype, model.training
        (torch.Size([4, 2]), torch.float32, True)
    """
    if precision not in ("32-true", "bf16-mixed"):
        raise ValueError(f'precision: {precision!r}, expected "32-true" or "bf16-mixed"')
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluation_mode(model), torch.inference_mode():
        for x, y in batches:
            context: AbstractContextManager[Any] = nullcontext()
            if precision == "bf16-mixed":
                context = torch.autocast(y.device.type, dtype=torch.bfloat16)
            with context:
                output = call(model, x)
            logits.append(logits_of(output).float().cpu())
            labels.append(y.cpu())
    if not logits:
        raise ValueError("batches: there is no image to predict")
    return torch.cat(logits), torch.cat(labels)


def spaced(split: Split, most: int) -> Split:
    """At most `most` images of a split, evenly spaced, so that a set sorted by class keeps its classes.

    Example:
        >>> whole = Split(labels=torch.arange(10), images=torch.zeros(10, 3, 8, 8, dtype=torch.uint8))
        >>> spaced(whole, 4).labels
        tensor([0, 2, 5, 7])
    """
    n = len(split)
    return split if n <= most else split.select(torch.arange(most) * n // most)
