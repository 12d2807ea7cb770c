"""Train on two processes: Fabric's launcher starts this script a second time."""

import os
import pickle
import signal
import sys
from pathlib import Path

import torch

from selfdistill.config import TrainConfig
from selfdistill.method import Method, Step, Term
from selfdistill.training import Interrupted, classification, loop, run, train
from selfdistill.training.meters import Meters
from selfdistill.training.session import Session

run.SAVE_SECONDS = 0.0
loop.MAX_LOG_STEPS = 1
taken = Session.step
stop = {"at": -1}


def step(self: Session, batches: tuple, position: int, meters: Meters) -> None:
    """Get a signal at some step in one process alone: the other has to hear of it."""
    if position == stop["at"] and self.fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    taken(self, batches, position, meters)


class Memory(Method):
    """Remembers the labels that it saw, in each process others, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(())

    def terms(self, step: Step) -> dict[str, Term]:
        self.seen += step.batch.y.sum()
        return {"memory": Term((step.outputs[0].features.pow(2) * torch.rand(())).mean() * self.seen, 0.001)}

    def get_extra_state(self) -> torch.Tensor:
        return self.seen

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.seen = state


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recipe, data = pickle.loads((folder / "inputs.pickle").read_bytes())
    assert isinstance(recipe, TrainConfig)
    Session.step = step
    train(recipe, folder / "plain", data=data, devices=2, accelerator="cpu")
    classification.parse_method = lambda _: Memory()
    train(recipe, folder / "whole", data=data, devices=2, accelerator="cpu")
    for stop["at"] in (1, 4):
        try:
            train(recipe, folder / "parts", data=data, devices=2, accelerator="cpu")
            raise AssertionError("nothing stopped it")
        except Interrupted as stopped:
            with (folder / f"stopped-{os.environ['LOCAL_RANK']}.txt").open("a") as file:
                file.write(f"{stopped.exit_status} {stopped}\n")
    stop["at"] = -1
    train(recipe, folder / "parts", data=data, devices=2, accelerator="cpu")
