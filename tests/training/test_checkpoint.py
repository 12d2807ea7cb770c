import pickle
import re
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from selfdistill.training.checkpoint import Checkpoints, load_into


def payload(value: float) -> dict[str, object]:
    return {"weights": torch.full((50,), value), "epoch": 1, "rows": [{"loss": 0.5, "test_top1": None}]}


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, 0, payload(epoch))
    return checkpoints


def newest_value(folder: Path) -> float:
    found = Checkpoints(folder).newest()
    assert found is not None
    return float(found[1]["weights"][0])


def test_the_last_two_are_kept_with_their_checksums(store: Checkpoints, tmp_path: Path) -> None:
    names = ["epoch-00002-step-0000000.pt", "epoch-00003-step-0000000.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names + [f"{name}.sha256" for name in names])
    assert newest_value(tmp_path) == 3
    subprocess.run(["sha256sum", "-c", "--strict", *(f"{name}.sha256" for name in names)], cwd=tmp_path, check=True)


def test_a_step_within_an_epoch_comes_after_the_epoch(store: Checkpoints, tmp_path: Path) -> None:
    store.save(3, 17, payload(9))
    assert newest_value(tmp_path) == 9


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "it is damaged (its checksum differs)"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "it is damaged (its checksum differs)"),
        (lambda path: path.write_bytes(b""), "it is damaged (its checksum differs)"),
        (lambda path: path.with_name(path.name + ".sha256").unlink(), "its checksum file is missing or damaged"),
        (lambda path: path.with_name(path.name + ".sha256").write_text(""), "its checksum file is missing or damaged"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    store: Checkpoints, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    path = store.paths()[0]
    damage(path)
    with pytest.warns(UserWarning, match=re.escape(f"checkpoint {path} is not used: {message}")):
        assert newest_value(tmp_path) == 2


class Attack:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("writer", [lambda o: pickle.dumps(o), None])
def test_code_in_a_checkpoint_never_runs(
    store: Checkpoints, tmp_path: Path, writer: Callable[[object], bytes] | None
) -> None:
    trace = tmp_path / "it ran"
    if writer is None:  # saved as we save, checksum and all
        path = Checkpoints(tmp_path).save(4, 0, {"weights": Attack(trace)})
    else:
        path = store.paths()[0]
        path.write_bytes(writer({"weights": Attack(trace)}))
        digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
        path.with_name(path.name + ".sha256").write_text(digest)
    with pytest.warns(UserWarning, match=re.escape(f"checkpoint {path} is not used: it holds more than numbers")):
        assert newest_value(tmp_path) in (2, 3)
    assert not trace.exists()
    torch.load(path, weights_only=False) if writer is None else pickle.loads(path.read_bytes())
    assert trace.exists(), "the test's own attack does nothing"


def test_nothing_left_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "no folder").newest() is None


def test_a_full_disk_leaves_the_one_before(store: Checkpoints, tmp_path: Path) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, former[1]))  # a write beyond it fails as on a full disk
    try:
        store.save(4, 0, {"weights": torch.zeros(1000)})
        with pytest.raises(OSError, match="cannot write") as error:
            store.save(5, 0, {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    wanted = f"cannot write {tmp_path}/epoch-00005-step-0000000.pt: File too large; the checkpoints before it are kept"
    assert str(error.value) == f"{wanted}: make room and run the same command again"
    assert not list(tmp_path.glob(".*")), "a temporary file was left"
    assert not list(tmp_path.glob("epoch-00005*"))
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found[0].name == "epoch-00004-step-0000000.pt"


def test_leftovers_of_a_killed_writer_go(store: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / ".epoch-00004-step-0000000.pt.x1y2.tmp").write_bytes(b"half")
    (tmp_path / "epoch-00004-step-0000000.pt.sha256").write_text("of a checkpoint that never came")
    assert newest_value(tmp_path) == 3
    assert not list(tmp_path.glob(".*"))
    store.save(5, 0, payload(5))
    assert not (tmp_path / "epoch-00004-step-0000000.pt.sha256").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            nn.Linear(3, 5),
            "'weight' is (5, 3) there and (2, 3) here; it belongs to another model; choose another `out`",
        ),
        (nn.Linear(3, 2, bias=False), "'bias' is only here; it belongs to another model; choose another `out`"),
        (nn.Sequential(nn.Linear(3, 2)), "'0.bias' is only there; it belongs to another model"),
    ],
)
def test_another_model_is_one_line(other: nn.Module, message: str) -> None:
    own = nn.Linear(3, 2)
    before = own.weight.clone()
    with pytest.raises(ValueError, match=re.escape(f"checkpoint runs/x.pt: {message}")):
        load_into(own, other.state_dict(), Path("runs/x.pt"))
    assert torch.equal(own.weight, before)
