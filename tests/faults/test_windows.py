"""Commands in a process that lacks what Windows lacks: some modules, signals and flags, and to move open files."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.shared import SMALL

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds open files in /proc")

WINDOWS = """
import asyncio, filelock, os, pathlib, signal, subprocess, sys  # which have other code for Windows
filelock.lock_descriptor  # with flock
sys.modules["fcntl"] = None
for name in ("O_NOFOLLOW", "O_NONBLOCK", "pread", "setpgrp"):
    delattr(os, name)
for name in ("SIGHUP", "SIGALRM", "SIGCHLD", "alarm"):
    delattr(signal, name)

def refuse_open(function):
    def moved(path, *more, **keywords):
        for number in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{number}") and os.path.samefile(f"/proc/self/fd/{number}", path):
                raise PermissionError(13, "The process cannot access the file", str(path))
        return function(path, *more, **keywords)
    return moved

def refuse_folders(path, *more, **keywords):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return opened(path, *more, **keywords)

opened, os.open = os.open, refuse_folders
os.replace, os.rename, os.unlink, os.remove = map(refuse_open, (os.replace, os.rename, os.unlink, os.remove))
"""

ON_FILES = """
import signal
from pathlib import Path
from selfdistill import files
from selfdistill.data.files import ignore_termination_signals
from selfdistill.config.train_config import TrainConfig
from selfdistill.training.folder import RunFolder

files.write_atomically(Path("a.json"), b"one\\r\\n")
files.write_atomically(Path("a.json"), b"two\\r\\n")
print(files.read_file(Path("a.json")), [file.name for file in Path().iterdir()])
Path(".a.json.abcdefgh.tmp").touch()
with files.open_lock(Path(".b.json.abcdefgh.tmp")) as live:
    print(files.lock(live))
    with files.open_lock(Path(".b.json.abcdefgh.tmp")) as again:
        print(files.lock(again), files.lock(again, inherited=False))
    files.remove_leftovers(Path())
print(sorted(file.name for file in Path().iterdir()))
Path("link.json").symlink_to("a.json")
for function in (files.open_file, files.open_lock, files.read_file):
    try:
        function(Path("link.json"))
    except OSError as error:
        print("symbolic link" in str(error))
try:
    with RunFolder(Path("runs/x")).opened(TrainConfig()):
        print(sorted(file.name for file in Path("runs/x").iterdir()))
        raise RuntimeError
except RuntimeError:
    print(Path("runs").exists())
ignore_termination_signals(0)
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""

ON_CACHES = """
import warnings
from pathlib import Path
import numpy as np
from PIL import Image
from selfdistill.data.cache import cached_images

for name in ("0.png", "1.png"):
    Image.fromarray(np.full((8, 8, 3), int(name[0]), np.uint8)).save(name)
paths = [Path("0.png"), Path("1.png")]
made = lambda: cached_images(paths, [None, None], side=8, name="x", folder=Path("cache"))
print([int(np.asarray(image).max()) for image in made()])
file = next(Path("cache").glob("*.pixels"))
file.write_bytes(file.read_bytes()[:-1] + b"?")
images = made()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    print(np.asarray(images[0]).max(), images[1], file.exists())
print([int(np.asarray(image).max()) for image in made()])
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, list[str]]:
    """Run the three in one such process, each in a folder of its own; return the lines that each prints."""
    codes = {"caches": ON_CACHES, "commands": commands(pictures), "files": ON_FILES}  # the last ignores signals
    root = tmp_path_factory.mktemp("windows")
    parts = [
        f"os.mkdir({str(root / name)!r}); os.chdir({str(root / name)!r}); print({chr(12) + name!r})" for name in codes
    ]
    whole = "".join(f"\n{begin}\n{code}" for begin, code in zip(parts, codes.values(), strict=True))
    command = [sys.executable, "-c", WINDOWS + whole]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list((root / "commands").rglob(".*.tmp"))
    for file in ("run/result.json", "out.csv", "page/report.html"):
        assert (root / "commands" / file).is_file()
    sections = (part.splitlines() for part in done.stdout.split("\f")[1:])
    return {name: lines for name, *lines in sections}


def commands(pictures: Path) -> str:
    """Code that trains, predicts and reports; figures stay empty."""
    words = [
        ["train", "--data", str(pictures), *map(str, SMALL), "--epochs", "1", "--out", "run"],
        ["predict", "run", str(pictures / "test"), "--csv", "out.csv"],
        ["report", "run", "--out", "page"],
    ]
    return f"""
from selfdistill.cli import main
from selfdistill.report import pages
pages.panel_svg = lambda *_, **__: "<svg/>"
for words in {words!r}:
    try:
        main(words)
    except SystemExit as end:
        print("status", end.code)
"""


def test_files_are_replaced_locked_and_cleared_away(said: dict[str, list[str]]) -> None:
    assert said["files"] == [
        "b'two\\r\\n' ['a.json']",
        "True",
        "False False",
        "['.b.json.abcdefgh.tmp', 'a.json']",
        *["True"] * 3,
        "['.lock', 'recipe.yaml']",
        "False",
        "True",
    ]


def test_a_damaged_cache_is_made_again(said: dict[str, list[str]]) -> None:
    assert said["caches"] == ["[0, 1]", "0 None False", "[0, 1]"]


def test_a_run_trains_and_is_used(said: dict[str, list[str]]) -> None:
    assert [line for line in said["commands"] if line.startswith("status")] == ["status 0"] * 3
