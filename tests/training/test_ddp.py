import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from selfdistill.config import TrainConfig
from selfdistill.data import ImageData, TrainLoader
from selfdistill.records import RunRecord
from selfdistill.training import random_state
from selfdistill.training.classification import assemble
from selfdistill.training.session import make_fabric


def by_hand(recipe: TrainConfig, data: ImageData) -> dict[str, torch.Tensor]:
    """One process that runs each rank's share with that rank's random state and averages the gradients."""
    recipe = recipe.resolve(data)
    assert recipe.batch_size is not None
    session = assemble(recipe, data, make_fabric(recipe, accelerator="cpu"))
    distiller, optimizer = session.task.distiller, session.optimizer
    loaders = [
        TrainLoader(
            data,
            distiller.method.needs,
            batch_size=recipe.batch_size,
            passes=recipe.passes_on(2),
            seed=recipe.seed,
            device="cpu",
            rank=rank,
            world_size=2,
        )
        for rank in (0, 1)
    ]
    states = []
    for rank in (0, 1):
        torch.manual_seed(random_state.rank_seed(recipe.seed, rank))
        states.append(torch.get_rng_state())
    distiller.train()
    for epoch in range(recipe.epochs):
        for step, shares in enumerate(zip(*(loader.epoch(epoch) for loader in loaders), strict=True)):
            optimizer.param_groups[0]["lr"] = session.rate(epoch * session.steps + step)
            optimizer.zero_grad()
            for rank, batches in enumerate(shares):
                torch.set_rng_state(states[rank])
                for batch in batches:
                    output = distiller(batch.x, batch.y, batch.views, batch.pair, batch.index, batch.previous)
                    (output.loss / recipe.accumulate).backward()
                states[rank] = torch.get_rng_state()
            optimizer.step()
    return {name: value.detach() for name, value in distiller.model.named_parameters()}


def test_two_processes(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, same_run: Callable[[Path, Path], None]
) -> None:
    recipe = replace(recipe, epochs=2, batch_size=16, accumulate=4)
    (tmp_path / "inputs.pickle").write_bytes(pickle.dumps((recipe, data)))
    script = Path(__file__).with_name("ddp_script.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=200, env=environment, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr

    # They are one process that runs both shares and averages.
    ours = load_file(tmp_path / "plain" / "model.safetensors")
    with random_state.preserved():
        for name, value in by_hand(recipe, data).items():
            torch.testing.assert_close(ours[name], value, atol=2e-5, rtol=1e-4, msg=name)
    assert RunRecord.load(tmp_path / "plain" / "result.json").evaluation.n == len(data.test)

    # Stopped by a signal to one of them, twice, and gone on with: the same bits, each with its own memory.
    for rank in (0, 1):
        first, second = (tmp_path / f"stopped-{rank}.txt").read_text().splitlines()
        assert first.startswith("143 stopped by SIGTERM in epoch 1 after step 2 of 3, saved; run the same command")
        assert second.startswith("143 stopped by SIGTERM in epoch 2 after step 2 of 3, saved; run the same command")
    same_run(tmp_path / "whole", tmp_path / "parts")
