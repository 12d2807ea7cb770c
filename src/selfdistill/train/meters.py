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
        self.sums = torch.zeros(0, dtype=torch.float64, device=self.device)
        self.first_bad = torch.zeros(0, dtype=torch.int64, device=self.device)

    def add(self, output: StepOutput, y: Tensor, step: int) -> None:
        """Count one pass.

        Args:
            output: of the distiller.
            y: class indices ``(B,)``.
            step: the optimiser step in this epoch, from 0.
        """
        if not self.names:
            self.names = list(output.terms)
            self.sums = torch.zeros(len(self.names) + 2, dtype=torch.float64, device=self.device)
            self.first_bad = torch.full((len(self.names) + 1,), NEVER, dtype=torch.int64, device=self.device)
        with torch.no_grad():
            values = torch.stack([*(output.terms[name].double() for name in self.names), output.loss.double()])
            bad = torch.where(values.isfinite(), NEVER, step)
            self.first_bad = torch.minimum(self.first_bad, bad)
            hits = (output.logits.argmax(dim=1) == y).sum().double()
            self.sums += torch.cat([values * len(y), hits.view(1)])
        self.images += len(y)

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
        self.names, self.images = state["names"], state["images"]
        self.sums, self.first_bad = (state[name].to(self.device) for name in ("sums", "first_bad"))
