import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfdistill.config import TrainConfig
from selfdistill.config.duration import parse_duration
from selfdistill.data import ImageData
from selfdistill.timing.budget import Timing, epochs_for_budget, estimate, measure_step_seconds
from selfdistill.training import train
from selfdistill.training.session import Session


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("60m", 3600), ("2h", 7200), ("1h30m", 5400), ("1h 30m 5s", 5405), ("0.5H", 1800), ("90 s", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "m", "1d", "30m1h", "-5m", "0s", "5m extra", "1h30"])
def test_what_is_no_duration(text: str) -> None:
    message = f"`budget` must be a duration such as 90s, 60m or 1h30m, not {text!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_duration(text)


def test_measuring_leaves_no_trace(
    tmp_path: Path, recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    timing = measure_step_seconds(recipe, data, steps=5)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert list(tmp_path.iterdir()) == []
    assert timing.steps == 3
    assert timing.final > timing.evaluation > 0


def test_warm_up_steps_do_not_count(recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    taken: list[int] = []

    def step(self: Session[Any], batches: object, position: int, meters: object) -> None:
        taken.append(len(taken))
        time.sleep(0.2 if len(taken) <= 3 else 0.01)

    monkeypatch.setattr(Session, "step", step)
    timing = measure_step_seconds(recipe, data, steps=8)
    assert len(taken) == 11
    assert 0.01 <= timing.step < 0.05


def test_several_devices_share_a_step(recipe: TrainConfig, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = set()

    def step(self: Session[Any], batches: tuple[Any, ...], position: int, meters: object) -> None:
        sizes.add(tuple(len(batch.y) for batch in batches))

    monkeypatch.setattr(Session, "step", step)
    timing = measure_step_seconds(replace(recipe, batch_size=22, accumulate=4), data, steps=4, devices=2)
    assert max(sizes) == (6, 6)
    assert timing.steps == 2


def test_a_method_with_groups_takes_as_many_more_steps(recipe: TrainConfig, data: ImageData) -> None:
    timing = measure_step_seconds(replace(recipe, method="BAKE(partners=3)"), data, steps=1, devices=3)
    assert timing.steps == 11  # 44 anchors, four to a step of 16 images; a third of it is rounded up to two groups


def test_epochs_that_fit() -> None:
    slow = Timing(step=0.1, steps=90, evaluation=2, final=5, eval_every=2)
    assert slow.epoch == 10
    assert slow.run(3) == 35
    assert epochs_for_budget(35, [slow]) == 3
    assert epochs_for_budget(34.9, [slow]) == 2
    assert epochs_for_budget(70, [slow, slow]) == 3
    message = "`budget` 0:29 is too short: one epoch of 2 run(s) takes about 0:30; take fewer images"
    with pytest.raises(ValueError, match=re.escape(message)):
        epochs_for_budget(29, [slow, slow])


def test_the_estimate_is_about_right(tmp_path: Path, recipe: TrainConfig, data: ImageData) -> None:
    recipe = replace(recipe, epochs=20)
    timing = measure_step_seconds(recipe, data, steps=20)
    record = train(recipe, tmp_path, data=data)
    assert timing.run(20) == pytest.approx(record.seconds, rel=4)  # a busy machine; a wrong unit would be far off
    assert estimate([timing], 20).startswith("about 0:0")
    assert " for 1 run of 20 epochs (" in estimate([timing], 20)
