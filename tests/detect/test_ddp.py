"""Two processes are one that runs both shares and averages; a signal to one of them stops both."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfdistill.detect.batches import BoxLoader
from selfdistill.detect.coco import load_coco
from selfdistill.detect.config import DetectConfig
from selfdistill.detect.network import load_backbone
from selfdistill.detect.record import DetectRecord
from selfdistill.detect.task import assemble
from selfdistill.training import random_state
from selfdistill.training.session import make_fabric


def by_hand(recipe: DetectConfig) -> dict[str, torch.Tensor]:
    """One process that runs each rank's share with that rank's random state and averages the gradients."""
    recipe, data = recipe.resolve("resnet18", trained=False), load_coco(recipe.data)
    session = assemble(recipe, data, load_backbone(recipe), make_fabric(recipe, accelerator="cpu"))
    loaders, states = [], []
    for rank in (0, 1):
        shared = {"batch_size": recipe.batch_size, "seed": recipe.seed, "device": session.device, "workers": 0}
        loaders.append(BoxLoader(data.train.images, flip=recipe.flip, rank=rank, world_size=2, **shared))  # type: ignore[arg-type]
        torch.manual_seed(random_state.rank_seed(recipe.seed, rank))
        states.append(torch.get_rng_state())
    detector, optimizer = session.task.detector.train(), session.optimizer
    for epoch in range(recipe.epochs):
        for step, shares in enumerate(zip(*(loader.epoch(epoch) for loader in loaders), strict=True)):
            optimizer.param_groups[0]["lr"] = session.rate(epoch * session.steps + step)
            optimizer.zero_grad()
            for rank, ((images, targets),) in enumerate(shares):
                torch.set_rng_state(states[rank])
                (sum(detector(images, targets).values()) / 2).backward()
                states[rank] = torch.get_rng_state()
            optimizer.step()
    return {name: value.detach() for name, value in detector.named_parameters()}


@pytest.mark.slow
@pytest.mark.usefixtures("small_head")
def test_two_processes(tmp_path: Path, recipe: DetectConfig) -> None:
    (tmp_path / "recipe.pickle").write_bytes(pickle.dumps(recipe))
    script = Path(__file__).with_name("ddp_script.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=250, env=environment, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr

    ours = load_file(tmp_path / "whole" / "model.safetensors")
    for name, value in by_hand(recipe).items():
        torch.testing.assert_close(ours[name], value, atol=2e-4, rtol=1e-3, msg=name)
    record = DetectRecord.load(tmp_path / "whole" / "result.json")
    assert (record.processes, record.evaluation.n) == (2, 3)

    for rank in (0, 1):
        told = (tmp_path / f"stopped-{rank}.txt").read_text()
        assert told.startswith("143 stopped by SIGTERM in epoch 1 after step 1 of 2, saved; run the same command")
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
