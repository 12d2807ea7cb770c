"""Sums over an epoch, held on the device: nothing is read back until it is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfdistill.errors import NonFiniteError
from selfdistill.network import float64_device

NEVER = 2**62


class NonFiniteLossError(NonFiniteError, RuntimeError):
    """The loss or a weight is not finite any more; the message names the run, the term, the epoch and the step."""


class Loss(NamedTuple):
    """The loss of a micro-batch.

    Attributes:
        loss: what is minimised, a mean over the images.
        terms: each L by name: detached, unweighted, a mean over the images.
        counts: of how many images something is true, by the log's column, such as ``train_accuracy``.
        images: how many images.
    """

    loss: Tensor
    terms: Mapping[str, Tensor]
    counts: Mapping[str, Tensor]
    images: int


@dataclass(frozen=True)
class Means:
    """Means over the images of an epoch so far.

    Attributes:
        images: how many images.
        loss: the loss that is minimised.
        terms: each L by name, unweighted.
        shares: the share of the images that each count is of, such as ``train_accuracy``: by the clean logits in
            training mode.
    """

    images: int
    loss: float
    terms: dict[str, float]
    shares: dict[str, float]


class Meters:
    """Sums of the loss, of each term and of each count, and the first step at which each loss was not finite.

    A micro-batch only leaves its numbers behind, in a few operations; they are added up, in the order of the
    micro-batches, when they are read: on a GPU each operation of a step costs its launch.

    Args:
        device: where the losses are, and the sums too if it has float64.
        counts: names of the counts.
    """

    def __init__(self, device: torch.device, counts: Sequence[str] = ()):
        self.device = float64_device(device)
        self.counts = tuple(counts)
        self.reset()

    def reset(self) -> None:
        """Start a new epoch."""
        self.names: list[str] = []
        self.images = 0
        self._sums = torch.zeros(0, dtype=torch.float64, device=self.device)
        self._first_nonfinite_step = torch.zeros(0, dtype=torch.int64, device=self.device)
        self._pending: list[Tensor] = []  # of each micro-batch since the last reading: terms, loss, counts
        self._sizes: list[tuple[int, int]] = []  # its images, its step

    def add(self, output: Loss, step: int) -> None:
        """Count one micro-batch.

        Args:
            step: the optimiser step in this epoch, from 0.
        """
        if not self.names:
            self.names = list(output.terms)
            width = len(self.names) + 1
            self._sums = torch.zeros(width + len(self.counts), dtype=torch.float64, device=self.device)
            self._first_nonfinite_step = torch.full((width,), NEVER, dtype=torch.int64, device=self.device)
        with torch.no_grad():
            counts = (output.counts[name].to(output.loss.dtype) for name in self.counts)
            self._pending.append(torch.stack([*(output.terms[name] for name in self.names), output.loss, *counts]))
        self._sizes.append((output.images, step))
        self.images += output.images

    @property
    def sums(self) -> Tensor:
        """Of each term and of the loss, times the images; and of each count."""
        self._add_up()
        return self._sums

    @property
    def first_nonfinite_step(self) -> Tensor:
        """The first step at which each term, or the loss, was not finite."""
        self._add_up()
        return self._first_nonfinite_step

    def _add_up(self) -> None:
        if not self._pending:
            return
        values = torch.stack(self._pending).to(self.device).double()
        losses = values[:, : len(self.names) + 1]
        images, steps = torch.tensor(self._sizes, device=self.device).T
        losses *= images[:, None]
        # One after another, as if added at once: when they were read must not show in the last digit.
        self._sums = torch.cat((self._sums[None], values)).cumsum(dim=0)[-1]
        nonfinite = torch.where(losses.isfinite(), NEVER, steps[:, None])
        self._first_nonfinite_step = torch.minimum(self._first_nonfinite_step, nonfinite.amin(dim=0))
        self._pending, self._sizes = [], []

    def means(self, sums: Tensor | None = None, images: int | None = None) -> Means:
        """Read the means, of this process or of the given sums (waits for the device)."""
        images = images or self.images
        numbers = [number / images for number in (self.sums if sums is None else sums).tolist()]
        loss = len(self.names)
        terms, shares = zip(self.names, numbers[:loss], strict=True), zip(self.counts, numbers[loss + 1 :], strict=True)
        return Means(images, numbers[loss], dict(terms), dict(shares))

    def check(self, first_nonfinite_step: Tensor, epoch: int, remedy: str) -> None:
        """Raise if a term was not finite (waits for the device).

        Args:
            first_nonfinite_step: this process's, or the smallest over all processes.
            epoch: the epoch, from 0; the message counts from 1.

        Raises:
            NonFiniteLossError: names the first such term (the loss only where every term was finite).
        """
        steps = first_nonfinite_step.tolist()
        if steps and min(steps) < NEVER:
            name = [*self.names, "loss"][steps.index(min(steps))]
            what = f"the term {name!r}" if name != "loss" else "the loss"
            raise NonFiniteLossError(f"{what} was not finite at epoch {epoch + 1}, step {min(steps) + 1}; {remedy}")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed epoch goes on from."""
        tensors = {"sums": self.sums, "first_bad": self.first_nonfinite_step}  # the format's names
        return {"names": self.names, "images": self.images, **tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.reset()
        self.names, self.images = state["names"], state["images"]
        self._sums, self._first_nonfinite_step = (state[name].to(self.device) for name in ("sums", "first_bad"))
