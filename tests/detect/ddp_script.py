"""Train a detector on two processes: Fabric's launcher starts this script a second time."""

import os
import pickle
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from selfdistill.detect import network
from selfdistill.detect.run import detect
from selfdistill.training import Interrupted, loop, run
from selfdistill.training.meters import Meters
from selfdistill.training.session import Session
from tests.detect.conftest import small_detector

network.FasterRCNN = small_detector
run.SAVE_SECONDS = 0.0
loop.MAX_LOG_STEPS = 1
taken = Session.step
stop = {"at": -1}


def step(self: Session, batches: tuple, position: int, meters: Meters) -> None:
    """Get a signal at some step in one process alone: the other has to hear of it."""
    if position == stop["at"] and self.fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    taken(self, batches, position, meters)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recipe = pickle.loads((folder / "recipe.pickle").read_bytes())
    Session.step = step
    detect(recipe, folder / "whole", devices=2, accelerator="cpu")
    stop["at"] = 0
    try:
        detect(recipe, folder / "parts", devices=2, accelerator="cpu")
        raise AssertionError("nothing stopped it")
    except Interrupted as stopped:
        (folder / f"stopped-{os.environ['LOCAL_RANK']}.txt").write_text(f"{stopped.exit_status} {stopped}")
    stop["at"] = -1
    detect(recipe, folder / "parts", devices=2, accelerator="cpu")
