"""Care in long runs: saves inside an epoch, signals, numbers that overflow, damaged caches, killed workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.cli.app import app
from selfdistill.config.duration import SaveEvery, parse_save_every
from selfdistill.data import load_data
from selfdistill.data.cache import with_cache
from selfdistill.data.files import DecodingProcess, FileImages, FileLoader, explained_worker_losses
from selfdistill.errors import ArgumentError, NonFiniteError
from selfdistill.evaluation.images import predict
from selfdistill.files import remove_leftovers
from selfdistill.paper import PaperConfig
from selfdistill.paper.scales import Training
from selfdistill.progress import Progress
from selfdistill.runs.compare import run_comparison
from selfdistill.training import Interrupted, train
from selfdistill.training.checkpoint import Checkpoints
from selfdistill.training.session import Session
from selfdistill.training.signals import Interruptions
from tests.faults.tiny import RECIPE, images, run_tiny


class KilledError(Exception):
    """In the place of a kill: nothing is saved any more."""


def compare_tiny(out: Path, **changed: Any) -> Path:
    recipe = replace(RECIPE, **changed)
    run_comparison(recipe, [recipe.method], seeds=1, epochs=3, jobs=1, out=out.parent, data=images())
    return out


@pytest.mark.parametrize("every", ["2 steps", "0.001s"])
@pytest.mark.parametrize("run", [run_tiny, compare_tiny])
def test_a_run_killed_inside_an_epoch_resumes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, run: Callable[..., Path]
) -> None:
    monkeypatch.setattr("selfdistill.training.loop.LOG_SECONDS", 0.0)
    whole, killed = run_tiny(tmp_path / "whole", epochs=3), tmp_path / "killed" / "sddropout-seed0"
    step = Session.step

    def dying(self: Session[Any], batches: Any, position: int, meters: Any) -> None:
        if position == 5:  # in the second epoch of 3 steps, after its second
            raise KilledError
        step(self, batches, position, meters)

    monkeypatch.setattr(Session, "step", dying)
    with pytest.raises(KilledError):
        run(killed, epochs=3, save_every=every)
    assert max((killed / "checkpoints").glob("*.pt")).name.startswith("epoch-00001-step-000000")
    monkeypatch.setattr(Session, "step", step)
    run(killed, epochs=3)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    columns = [[line.split(",")[:5] for line in (run / "log.csv").read_text().splitlines()] for run in (whole, killed)]
    assert columns[0] == columns[1]


@pytest.mark.parametrize("command", ["train", "compare", "tune", "detect", "reproduce"])
def test_every_command_that_trains_saves_as_often_as_is_said(command: str) -> None:
    assert "--save-every" in [one.name for one in app[command].assemble_argument_collection()]


def test_a_table_s_runs_save_as_often_as_is_said(tmp_path: Path) -> None:
    config = PaperConfig("smoke", tmp_path, save_every="5 steps")
    assert config.plan_run(Training("SDDropout()"), 0).recipe.save_every == "5 steps"


def test_save_every_is_a_duration_or_steps() -> None:
    assert parse_save_every("1h30m") == SaveEvery(seconds=5400.0)
    assert parse_save_every("500 steps") == parse_save_every("500steps") == SaveEvery(steps=500)
    for wrong in ("", "0 steps", "ten minutes", "-5m", "0s", "5 step s"):
        with pytest.raises(ArgumentError, match=r"^`save_every` "):
            parse_save_every(wrong)


def test_sighup_saves_as_sigterm_does(tmp_path: Path) -> None:
    def hang_up(event: Progress) -> None:
        if event.epoch_done:
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(Interrupted, match="stopped by SIGHUP after epoch 1, saved") as stopped:
        train(RECIPE, tmp_path, data=images(), progress=hang_up)
    assert stopped.value.exit_status == 129
    found = Checkpoints(tmp_path / "checkpoints").newest()
    assert found is not None
    assert found[1]["epoch"] == 1


def test_under_nohup_a_closed_terminal_changes_nothing() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptions("") as interruptions:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interruptions.received == 0
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("where", ["weight", "statistics"])
def test_weights_that_overflow_end_the_training_unsaved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    step = Session.step

    def overflow(self: Session[Any], batches: Any, position: int, meters: Any) -> None:
        step(self, batches, position, meters)
        if position == 5:  # the last step of the second epoch: no loss will see it
            model = self.task.model
            value = next(
                value
                for name, value in [*model.named_parameters(), *model.named_buffers()]
                if name.endswith("weight" if where == "weight" else "running_var")
            )
            with torch.no_grad():
                value.fill_(torch.inf)

    monkeypatch.setattr(Session, "step", overflow)
    with pytest.raises(NonFiniteError, match=rf"^{tmp_path}: .* in epoch 2; try a lower `lr` \(it was 0.05\)"):
        train(replace(RECIPE, epochs=3), tmp_path, data=images(), save_seconds=1e-9)
    found = Checkpoints(tmp_path / "checkpoints").newest()
    assert found is not None
    assert (found[1]["epoch"], found[1]["step"]) == (1, 0)


def test_logits_that_overflow_end_an_evaluation() -> None:
    batches = [(torch.full((2, 3), 3e38), torch.zeros(2, dtype=torch.int64))]
    model = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(model.weight, 10.0)
    with pytest.raises(NonFiniteError, match="logits of 2 of 2 images"):
        predict(model, batches)
    masked = torch.nn.Module()
    masked.forward = lambda x: torch.tensor([[0.0, -torch.inf]]).repeat(len(x), 1)  # type: ignore[method-assign]
    assert predict(masked, batches)[0].shape == (2, 2), "a class that is masked out is no overflow"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for at in range(12):
        file = tmp_path / "photos" / "ab"[at % 2] / f"{at}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (80, 90, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


@pytest.mark.parametrize("harm", ["flip", "zeros", "cut", "gone"])
def test_a_damaged_cache_changes_no_pixel(photos: Path, tmp_path: Path, harm: str) -> None:
    data = with_cache(load_data(photos, image_size=72), 82, tmp_path / "cache")
    assert data.train.cache is not None
    file, whole = data.train.cache.file, [data.train.cache[at] for at in range(len(data.train))]
    content = file.read_bytes()
    half = len(content) // 2
    images = FileImages(data.train.paths or (), size=72, augment="none", seed=0, cache=data.train.cache)
    if harm == "flip":
        at = int(data.train.cache.index[3, 0]) + 5
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif harm == "zeros":
        file.write_bytes(content[:half] + bytes(len(content) - half))
    elif harm == "cut":
        os.truncate(file, 1000)
    else:
        file.unlink()
        images.cache = type(data.train.cache)(file, 82, data.train.cache.index)
    with pytest.warns(UserWarning, match="is damaged: its images are decoded anew"):
        seen = [images._read(at) for at in range(len(whole))]
    for before, after in zip(whole, seen, strict=True):
        assert before is not None
        assert np.array_equal(np.asarray(before), np.asarray(after))
    again = with_cache(load_data(photos, image_size=72), 82, tmp_path / "cache")
    assert again.train.cache is not None
    assert file.read_bytes() == content, "the damaged cache was not made again"


def test_a_damaged_index_of_a_cache_is_made_again(photos: Path, tmp_path: Path) -> None:
    cache = with_cache(load_data(photos, image_size=72), 82, tmp_path / "cache").train.cache
    assert cache is not None
    content = cache.file.read_bytes()
    cache.file.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    with_cache(load_data(photos, image_size=72), 82, tmp_path / "cache")
    assert cache.file.read_bytes() == content


@pytest.mark.parametrize("with_a_batch", [False, True])
def test_a_killed_decoding_worker_is_told_in_our_words(
    photos: Path, with_a_batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = tuple(sorted(photos.rglob("*.png")))
    loader = FileLoader(FileImages(paths, size=72, augment="crop", seed=0), workers=2, device=torch.device("cpu"))

    def read_and_kill() -> None:
        for at, _ in enumerate(loader.batches([(0, torch.arange(8), view)] for view in range(200))):
            if at == 3:
                if with_a_batch:  # its connection ends before the kernel tells of its death
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    monkeypatch.setattr(DecodingProcess, "is_alive", lambda worker: True)
                    time.sleep(0.3)
                for worker in loader.loader._iterator._workers:  # type: ignore[union-attr]
                    os.kill(worker.pid, signal.SIGKILL)

    former = signal.getsignal(signal.SIGCHLD)
    try:
        with pytest.raises(RuntimeError, match=r"^a decoding worker .* again, with fewer `workers`"):
            explained_worker_losses()(read_and_kill)()
    finally:
        signal.signal(signal.SIGCHLD, former)


def test_temporary_files_of_a_killed_run_go(tmp_path: Path) -> None:
    names = (".report.html.abcdefgh.tmp", ".seeds.svg.a_cd0fgh.tmp", ".model.safetensors.abcdefgh.tmp")
    others = (".mine.tmp", "report.html.tmp", ".bashrc.abcdefgh.tmp")
    for name in (*names, *others):
        (tmp_path / name).touch()
    script = (
        "import sys, time, selfdistill.files as files\n"
        "files.os.fsync = lambda _: (print('writing', flush=True), time.sleep(60))\n"
        "files.write_atomically(files.Path(sys.argv[1]), b'x')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "live.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        remove_leftovers(tmp_path)
        left = {file.name for file in tmp_path.iterdir()}
        assert left - set(others) == {name for name in left if name.startswith(".live.json.")}
        assert set(others) < left
        writer.kill()
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(others)
