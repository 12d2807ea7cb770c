"""Small faults: what a refusal leaves, what a line says, how often a warning is shown."""

import io
import os
import stat
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from selfdistill.errors import ArgumentError
from selfdistill.progress import Progress
from selfdistill.runs import ray_cluster
from selfdistill.training import train
from tests.faults.tiny import RECIPE, images, run_tiny, status


@pytest.mark.parametrize("out", [(), ("--out", "a/b/run")])
def test_a_refused_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status("train", "--data", "digits", "--per-class", 2, "--model", "resnet999_cifar", *out) == 2
    assert "unknown model" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_refused_start_leaves_the_other_runs(tmp_path: Path) -> None:
    (tmp_path / "runs" / "other").mkdir(parents=True)
    with pytest.raises(ValueError, match="unknown model"):
        run_tiny(tmp_path / "runs" / "new" / "run", model="resnet999_cifar")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_more_threads_than_any_machine_has_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^`{name}` must be from \d to 1,024"):
        type(RECIPE)(**{name: 100_000_000})


def test_the_rate_counts_the_images_that_there_were(tmp_path: Path) -> None:
    """40 images are one batch of at most a million."""
    told: list[Progress] = []
    record = train(replace(RECIPE, epochs=1, batch_size=10**6), tmp_path, data=images(), progress=told.append)
    epoch = next(event.training for event in told if event.epoch_done)
    assert epoch is not None
    assert epoch.images_per_second == pytest.approx(record.log[0].images_per_second, rel=0.01)
    assert epoch.images_per_second * record.log[0].seconds == pytest.approx(40, rel=0.05)


def test_a_warning_of_several_runs_is_shown_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(words: list[str]) -> None:
        for _ in range(3):
            with warnings.catch_warnings():  # as the libraries that a run calls
                warnings.simplefilter("always")
                warnings.warn("once", stacklevel=1)

    monkeypatch.setattr("selfdistill.cli._run", warn)
    assert status("train") == 0
    assert capsys.readouterr().err == "selfdistill: warning: once\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_messages_that_find_no_room_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--data digits --per-class 4 --test-per-class 2 --model resnet10_cifar --width 4 --epochs 1 --threads 1"
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        assert status("train", *words.split(), "--lr", "x") == 2
        assert status("train", *words.split(), "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "result.json").is_file()


def test_a_cluster_of_our_own_listens_on_the_loopback_with_a_private_token(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("ray._private.ray_constants")
    services = pytest.importorskip("ray._private.services")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    before = constants.ENABLE_RAY_CLUSTER
    with ray_cluster._private():
        assert services.get_node_ip_address() == "127.0.0.1"
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
        assert len(token.read_text()) == 64
    assert before == constants.ENABLE_RAY_CLUSTER
    assert ray_cluster._token_file() == token, "Ray reads a token once in a process"
