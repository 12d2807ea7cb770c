"""What an epoch adds up, kept on the device: nothing is read back until somebody asks."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfdistill.distiller import StepOutput

NEVER = 2**62


class NonFiniteLossError(RuntimeError):
    """The loss is no longer a number; the message names the term, the epoch and the step."""


@dataclass(frozen=True)
class Means:
    """Means over the images of an epoch so far.

    Attributes:
        images: how many images.
        loss: the loss that is minimised.
        terms: each L by name, unweighted.
        accuracy: share of the images that were classified right, by the clean logits in training mode.
    """

    images: int
    loss: float
    terms: dict[str, float]
    accuracy: float


class Meters:
    """Sums of the loss, of each term and of the hits, and the first step at which each was not finite.

    A pass only leaves its numbers behind, in six operations; they are added up, in the order of the passes, when
    somebody reads: on a GPU each operation of a step costs its launch.

    Args:
        device: where the outputs are.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Start a new epoch."""
        self.names: list[str] = []
        self.images = 0
        self._sums = torch.zeros(0, dtype=torch.float64, device=self.device)
        self._first_bad = torch.zeros(0, dtype=torch.int64, device=self.device)
        self._passes: list[Tensor] = []  # of each pass since the last reading: every term, the loss, the hits
        self._sizes: list[tuple[int, int]] = []  # its images, its step

    def add(self, output: StepOutput, y: Tensor, step: int) -> None:
        """Count one pass.

        Args:
            output: of the distiller.
            y: class indices ``(B,)``.
            step: the optimiser step in this epoch, from 0.
        """
        if not self.names:
            self.names = list(output.terms)
            self._sums = torch.zeros(len(self.names) + 2, dtype=torch.float64, device=self.device)
            self._first_bad = torch.full((len(self.names) + 1,), NEVER, dtype=torch.int64, device=self.device)
        with torch.no_grad():
            hits = (output.logits.argmax(dim=1) == y).sum().to(output.loss.dtype)
            self._passes.append(torch.stack([*(output.terms[name] for name in self.names), output.loss, hits]))
        self._sizes.append((len(y), step))
        self.images += len(y)

    @property
    def sums(self) -> Tensor:
        """Of each term and of the loss, times the images; and the hits."""
        self._add_up()
        return self._sums

    @property
    def first_bad(self) -> Tensor:
        """The first step at which each term, or the loss, was not finite."""
        self._add_up()
        return self._first_bad

    def _add_up(self) -> None:
        if not self._passes:
            return
        values = torch.stack(self._passes).double()
        images, steps = torch.tensor(self._sizes, device=self.device).T
        values[:, :-1] *= images[:, None]
        # One after another, as if added at once: when they were read must not show in the last digit.
        self._sums = torch.cat((self._sums[None], values)).cumsum(dim=0)[-1]
        bad = torch.where(values[:, :-1].isfinite(), NEVER, steps[:, None])
        self._first_bad = torch.minimum(self._first_bad, bad.amin(dim=0))
        self._passes, self._sizes = [], []

    def means(self, sums: Tensor | None = None, images: int | None = None) -> Means:
        """Read the means, of this process or of the given sums (waits for the device)."""
        numbers = (self.sums if sums is None else sums).tolist()
        images = images or self.images
        *terms, loss, hits = (number / images for number in numbers)
        return Means(images, loss, dict(zip(self.names, terms, strict=True)), hits)

    def check(self, first_bad: Tensor, epoch: int, remedy: str) -> None:
        """Raise if a term was not finite (waits for the device).

        Args:
            first_bad: this process's, or the smallest over all processes.
            epoch: the epoch, from 0; the message counts from 1.
            remedy: the second half of the message.

        Raises:
            NonFiniteLossError: names the first such term (the loss only where every term was finite).
        """
        steps = first_bad.tolist()
        if steps and min(steps) < NEVER:
            name = [*self.names, "loss"][steps.index(min(steps))]
            what = f"the term {name!r}" if name != "loss" else "the loss"
            raise NonFiniteLossError(f"{what} was not finite at epoch {epoch + 1}, step {min(steps) + 1}; {remedy}")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed epoch goes on from."""
        tensors = {"sums": self.sums, "first_bad": self.first_bad}
        return {"names": self.names, "images": self.images, **tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.reset()
        self.names, self.images = state["names"], state["images"]
        self._sums, self._first_bad = (state[name].to(self.device) for name in ("sums", "first_bad"))
