"""Kill runs at random, fill the disk, damage files and mistype options; print one table. Run before each release.

    python benchmarks/torture.py          # 100 of each: about an hour on one core
    python benchmarks/torture.py --quick  # a handful of each

Right is: a killed run resumes to the same bits; a full disk is one line, and the run goes on when there is room; with a
damaged file a command gives what it gave before, or is refused in one line; a wrong option is one line and leaves
nothing.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_TRAIN = (
    "train --data digits --per-class 5 --test-per-class 2 --model resnet10_cifar --width 4 --epochs 8 --batch-size 16 "
    "--lr 0.05 --threads 1 --keep-epochs 2 --accelerator cpu --save-every"
)
TRAIN = [*_TRAIN.split(), "3 steps"]
LONGEST = 300.0  # seconds of one command

_NUMBERS = (
    "epochs batch-size lr momentum weight-decay milestones gamma warmup-epochs clip seed threads workers width "
    "features head-layers image-size per-class test-per-class classes accumulate keep-epochs eval-every devices "
    "nodes save-every"
)
_TEXTS = "data method model weights augment precision"
_WRONG = ("abc", "-1", "nan", "", "1e400", "9" * 400, "0x10", "1,,x")
WRONG_OPTIONS = [
    *([*TRAIN, f"--{name}", value] for name in _NUMBERS.split() for value in _WRONG),
    *(
        [*TRAIN, f"--{name}", "no such thing"]
        for name in ("data", "method", "model", "weights", "augment", "precision")
    ),
    *([command, "no such folder"] for command in ("predict", "export", "evaluate", "report")),
    ["predict"],
    ["reproduce", "table99"],
    ["no such command"],
]


@dataclass(frozen=True)
class Outcome:
    """What a command came to: its status (negative: the signal that ended it) and what it said on standard error."""

    status: int | None
    said: str

    def one_line(self) -> str:
        """Return what is wrong with a refusal, or nothing: it is status 2 and one line, besides warnings."""
        lines = [line for line in self.said.splitlines() if not line.startswith("selfdistill: warning: ")]
        errors = [line for line in lines if line.startswith("selfdistill: error: ")]
        if self.status is None:
            return "it hangs"
        if self.status != 2 or "Traceback" in self.said or len(errors) != 1 or lines[-1] != errors[0]:
            return f"status {self.status}: {(lines or [''])[-1][:200]}"
        return "" if len(errors[0]) <= 600 else f"a line of {len(errors[0])} characters"


def call(words: list[str], folder: Path, *, kill: tuple[float, int] | None = None, most: int | None = None) -> Outcome:
    """Run a command in a process of its own; kill it after so many seconds, or let it write files of so many bytes."""
    log = folder.with_suffix(".stderr")  # not on the disk that is filled
    process = multiprocessing.get_context("fork").Process(target=_run, args=(words, folder, log, most))
    process.start()
    if kill is not None:
        process.join(kill[0])
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, kill[1])
    process.join(LONGEST)
    if hangs := process.is_alive():
        process.kill()
        process.join()
    said = log.read_text(errors="replace") if log.is_file() else ""
    log.unlink(missing_ok=True)
    return Outcome(None if hangs else process.exitcode, said)


def _run(words: list[str], folder: Path, log: Path, most: int | None) -> None:
    from selfdistill.cli import main

    os.chdir(folder)
    for stream, file in ((sys.stdout, Path(os.devnull)), (sys.stderr, log)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream.fileno())
    if most is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    main(words)


class Torture:
    """The trials, on a finished run and in folders of their own.

    Args:
        work: an empty folder.
        random: decides when and what.
    """

    def __init__(self, work: Path, random: random.Random):
        self.work, self.random = work, random
        self.run = self._folder() / "run"
        for at in range(3):
            pixels = np.random.default_rng(at).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(work / f"{at}.png")
        started = time.monotonic()
        first = call([*TRAIN, "--out", "run"], self.run.parent)
        if first.status != 0:
            raise RuntimeError(f"the undisturbed run failed: {first.said}")
        self.seconds = time.monotonic() - started
        self.weights = digest(self.run / "model.safetensors")
        self.predicted = self._predict(self.run)

    def kill(self) -> str:
        """Kill a run at a random time, again and again, until it comes to its end."""
        folder, kills = self._folder(), self.random.randint(1, 2)
        for _ in range(kills):
            number = self.random.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
            found = call([*TRAIN, "--out", "run"], folder, kill=(self.random.uniform(0, self.seconds), number))
            if found.status not in (0, -number, 128 + number):
                return f"after {number.name}: {found.one_line() or found.said}"
        return self._ends_alike(folder)

    def fill_disk(self) -> str:
        """Run out of room, and go on when there is some."""
        folder = self._folder()
        with small_disk(folder, self.random.randint(1_000, 400_000)) as most:
            found = call([*TRAIN, "--out", "run"], folder, most=most)
            if found.status != 0 and (wrong := found.one_line()):
                return wrong
            whole = self._folder()
            if (folder / "run").is_dir():
                shutil.copytree(folder / "run", whole / "run")
        return self._ends_alike(whole)

    def damage(self) -> str:
        """Damage a file of a finished run; a command gives what it gave before, or is refused in one line."""
        folder = self._folder()
        run = Path(shutil.copytree(self.run, folder / "run"))
        file = self.random.choice([path for path in sorted(run.rglob("*")) if path.is_file()])
        how = self.random.choice((_flip, _cut, _zero, _empty, _link))
        how(file, self.random)
        about = f"{how.__name__[1:]} {file.relative_to(run)}: "
        command = self.random.choice(("predict", "train", "export", "evaluate", "report"))
        if command == "train":
            found = call([*TRAIN, "--out", "run"], folder)
            alike = found.status != 0 or digest(run / "model.safetensors") == self.weights
        elif command == "predict":
            found = call(["predict", "run", *self._pictures(), "--csv", "out.csv"], folder)
            alike = found.status != 0 or (folder / "out.csv").read_text() == self.predicted
        else:
            words = {"export": ["--format", "safetensors"], "evaluate": ["--quick"], "report": []}[command]
            found = call([command, "run", *words], folder)
            alike = True
        if found.status == 0:
            return "" if alike else f"{about}{command} silently gives something else"
        return (wrong := found.one_line()) and f"{about}{command}: {wrong}"

    def mistype(self) -> str:
        """Give a wrong option: one line, and nothing is left."""
        folder = self._folder()
        words = self.random.choice(WRONG_OPTIONS)
        wrong = call(words, folder).one_line()
        if not wrong and (left := sorted(path.name for path in folder.rglob("*"))):
            wrong = f"it leaves {left[:3]}"
        return wrong and f"{' '.join(word[:20] for word in words if word not in TRAIN)}: {wrong}"

    def _ends_alike(self, folder: Path) -> str:
        last = call([*TRAIN, "--out", "run"], folder)
        if last.status != 0:
            return f"it does not go on: {last.one_line() or last.said}"
        if digest(folder / "run" / "model.safetensors") != self.weights:
            return "other weights"
        left = [path.name for path in folder.rglob(".*.tmp")]
        return f"left: {left[:3]}" if left else ""

    def _predict(self, run: Path) -> str:
        call(["predict", str(run), *self._pictures(), "--csv", "out.csv"], run.parent)
        return (run.parent / "out.csv").read_text()

    def _pictures(self) -> list[str]:
        return [str(self.work / f"{at}.png") for at in range(3)]

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.work))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[int | None]:
    """Mount a disk of so many bytes there; without the right to, yield the bytes that a file may have."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size + 40_000}", "torture", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield None if mounted else size
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def digest(file: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _flip(file: Path, random: random.Random) -> None:
    content = bytearray(file.read_bytes() or b"\0")
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def _cut(file: Path, random: random.Random) -> None:
    os.truncate(file, random.randrange(file.stat().st_size + 1))


def _zero(file: Path, random: random.Random) -> None:
    content = file.read_bytes()
    at = random.randrange(len(content) + 1)
    file.write_bytes(content[:at] + bytes(len(content) - at))


def _empty(file: Path, random: random.Random) -> None:
    file.write_bytes(b"")


def _link(file: Path, random: random.Random) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def main() -> int:
    """Print the table; the status is 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a handful of each")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Imported once, for all processes that are forked; nothing is computed here.
    import lightning_fabric  # noqa: F401

    import selfdistill.cli.app
    import selfdistill.training.run  # noqa: F401

    count = 4 if given.quick else 100
    rows = []
    with tempfile.TemporaryDirectory(prefix="torture-") as work:
        torture = Torture(Path(work), random.Random(given.seed))
        trials: dict[str, Callable[[], str]] = {
            "random kills": torture.kill,
            "full disk": torture.fill_disk,
            "damaged files": torture.damage,
            "wrong options": torture.mistype,
        }
        for name, trial in trials.items():
            started = time.monotonic()
            wrong = [found for _ in range(count) if (found := trial())]
            rows.append((name, count, len(wrong), time.monotonic() - started))
            print(*(f"{name}: {line}" for line in wrong), sep="\n", file=sys.stderr, end="\n" if wrong else "")
    print("Trial           Times   Wrong   Seconds")
    for name, times, bad, seconds in rows:
        print(f"{name:<14} {times:>6} {bad:>7} {seconds:>9.0f}")
    return int(any(bad for _, _, bad, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
