"""The command line as a user meets it: real commands on real digits, and every mistake."""

import csv
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

import selfdistill
from selfdistill import commands, options
from selfdistill.cli import COMMANDS, main
from selfdistill.runs.cost import measure_costs
from selfdistill.train.recipe import Recipe
from tests.pictures import NAMES, write_digits

SCRIPT = Path(sys.executable).parent / "selfdistill"
SMALL = ["--model", "resnet10_cifar", "--width", "4", "--threads", "1"]
TINY = ["--data", "digits", "--per-class", "4", "--test-per-class", "4", *SMALL]
PAIR = ["--methods", "CrossEntropy()", "SDDropout()"]


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder: ``run("train", "--data", "digits")``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)

    def command(*words: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        return Ran(int(str(end.value.code)), *capsys.readouterr())

    return command


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command that must fail with one line and write nothing at all; returns the line."""

    def command(*words: object) -> str:
        before = files_in(Path.cwd())
        ran = run(*words)
        assert ran.status == 2, ran
        assert ran.err.startswith("selfdistill: error: ")
        assert ran.err.count("\n") == 1, ran.err
        assert ran.out == ""
        assert files_in(Path.cwd()) == before
        return ran.err.removeprefix("selfdistill: error: ").rstrip("\n")

    return command


def files_in(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, but for the (empty) lock of a run."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.name != ".lock"}
    return {name: path.read_bytes() if path.is_file() else None for name, path in found.items()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("pictures") / "digits3", train=8, test=6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """One finished run on the pictures."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.raises(SystemExit) as end:
        main(["train", "--data", str(pictures), *SMALL, "--epochs", "3", "--lr", "0.05", "--out", str(out)])
    assert end.value.code == 0
    return out


# Help, and words that are not understood.


def test_the_overview_names_every_command_in_eighty_columns(run: Run) -> None:
    for words in ([], ["--help"], ["-h"]):
        status, out, err = run(*words)
        assert (status, err) == (0, "")
        for name in COMMANDS:
            assert f"\n  {name} " in out
        assert max(map(len, out.splitlines())) <= 80
    assert run("--version") == (0, f"{selfdistill.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_explains_every_option_in_eighty_columns(run: Run, name: str) -> None:
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for option in options.options_of(getattr(commands, name)):
        assert option.help
        assert re.search(rf"^  {option.spelled}\b", out, re.MULTILINE), option.name
    assert "Args:" not in out


def test_the_help_of_an_option_has_all_its_lines(run: Run) -> None:
    told = " ".join(run("reproduce", "--help").out.split())
    assert "shares its batches among N GPUs, as one would for Table 3" in told


def test_the_help_says_what_of_a_recipe_is_not_used(run: Run) -> None:
    assert "its method and seed are not used here" in " ".join(run("compare", "--help").out.split())
    assert "not used" not in run("train", "--help").out


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"], ["compare", "--epohs", "3"]])
def test_help_and_typing_errors_need_no_torch_and_less_than_a_second(words: list[str]) -> None:
    code = (
        "import sys, selfdistill.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "False False"
    assert after.ru_utime - before.ru_utime < 1  # of the processor: a busy machine is not the command's fault


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("comapre", "unknown command 'comapre'; did you mean 'compare'?"),
        ("xyz", f"unknown command 'xyz'; there are {', '.join(COMMANDS)}"),
        ("--epochs 3", "the command comes first: selfdistill demo|compare|"),
        ("compare --epoch 3", "unknown option '--epoch'; did you mean '--epochs'?"),
        ("compare --image_size 3", "unknown option '--image_size'; did you mean '--image-size'?"),
        ("compare --epochs abc", "--epochs must be a whole number, not 'abc'"),
        ("compare --epochs 2.5", "--epochs must be a whole number, not '2.5'"),
        ("train --epochs 0", "--epochs must be at least 1, not 0"),
        ("train --lr fast", "--lr must be a number, not 'fast'"),
        ("train --lr inf", "--lr must be a number, not 'inf'"),
        ("train --milestones 0.5,x", "--milestones must be a list of numbers, not ['0.5', 'x']"),
        ("train --schedule cosin", "--schedule must be one of step, cosine, not 'cosin'"),
        ("train --accelerator tpu", "--accelerator must be one of auto, cuda, cpu, not 'tpu'"),
        ("train --epochs", "--epochs needs a value"),
        ("train --epochs --lr 1", "--epochs needs a value"),
        ("compare --methods", "--methods needs a value"),
        ("train --epochs 1 --epochs 2", "--epochs is given twice"),
        ("train --nesterov=yes", "--nesterov takes no value"),
        ("train --out=", "--out must not be empty"),
        ("train --data=", "--data must be not empty, not ''"),
        ("compare more", "not understood: more"),
        ("methods -x", "not understood: -x"),
        ("predict", "RUN and PATHS must be given: selfdistill predict RUN PATHS ... [--option value ...]"),
        ("evaluate", "RUN or --model must be given, and not both: selfdistill evaluate RUN"),
        ("evaluate run --model timm:resnet18", "RUN or --model must be given, and not both"),
        ("evaluate --model timm:resnet18", "--model needs --data: the images that it is measured on"),
        ("evaluate run --width 3", "--width belongs to --model: a run knows its own"),
        ("evaluate run --max-images 0", "--max-images must be at least 1, not 0"),
        ("compare --budget 60", "--budget must be a duration such as 90s, 60m or 1h30m, not '60'"),
        ("compare --seeds 0", "--seeds must be at least 1, not 0"),
        ("compare --jobs 0", "--jobs must be at least 1, not 0"),
        ("train --recipe nothing.yaml", "nothing.yaml: No such file or directory"),
        ("evaluate nothing", "nothing holds no finished run: there is no model.json in it"),
        ("export", "RUN must be given: selfdistill export RUN [--option value ...]"),
        ("export nothing", "nothing holds no finished run: there is no model.json in it"),
        ("export nothing --format tf", "--format must be one of onnx, pt2, safetensors, not 'tf'"),
        ("export nothing --out net.pt2", "--out net.pt2 does not end in .onnx, as --format onnx does"),
        ("report nothing", "nothing: no result.json here or below; only a finished run has one"),
    ],
)
def test_what_is_typed_wrong(refused: Callable[..., str], words: str, message: str) -> None:
    assert refused(*words.split()).startswith(message)


def test_a_switch_needs_no_value_and_can_be_switched_off(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("nesterov: true\nskip_unreadable: true\n")
    parse = options.parse
    assert parse("train", commands.train, ["--skip-unreadable", "--data", "x"])["recipe"].skip_unreadable
    switched = parse("train", commands.train, ["--recipe", str(file), "--no-nesterov"])["recipe"]
    assert (switched.nesterov, switched.skip_unreadable) == (False, True)


def test_a_recipe_gives_what_it_says_and_what_is_typed_wins(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("lr: 1e-2\nmethod: Dropout()\nseed: 7\nwidth: 8\n")

    def parsed(command: str, *words: str) -> dict[str, Any]:
        return options.parse(command, getattr(commands, command), ["--recipe", str(file), *words])

    trained = parsed("train", "--width", "null", "--keep-epochs", "[5, 9]")["recipe"]
    assert trained == Recipe(lr=0.01, method="Dropout()", seed=7, width=None, keep_epochs=(5, 9))
    compared = parsed("compare")  # neither its method nor its seed, and no epochs that it does not give
    assert compared == {"recipe": Recipe(lr=0.01, width=8)}
    file.write_text("epochs: 12\n")
    assert parsed("compare")["epochs"] == 12
    assert parsed("compare", "--epochs", "3")["epochs"] == 3


# Mistakes in what the options name: one line, status 2, and nothing written.


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("SDDropuot()", "unknown method 'SDDropuot'; did you mean 'SDDropout'?"),
        ("SDDropout(weigth=1)", "SDDropout has no argument 'weigth'; did you mean 'weight'?"),
        ("SDDropout", "'SDDropout' is no method; did you mean 'SDDropout()'?"),
        ("SDDropout(p=1.0)", "SDDropout: p is the probability to drop a feature, in [0, 1), not 1.0"),
        ("SDDropout(p=-0.1)", "SDDropout: p is the probability to drop a feature, in [0, 1), not -0.1"),
        ("SDDropout(temperature=0)", "SDDropout: temperature must be positive and finite, not 0"),
        ("SDDropout(weight=-1)", "SDDropout: weight must be at least 0 and finite, not -1"),
        ("__import__('os').remove('x')", "\"__import__('os').remove('x')\" is no method"),
    ],
)
def test_a_wrong_method(refused: Callable[..., str], method: str, message: str) -> None:
    assert refused("train", *TINY, "--method", method, "--out", "run").startswith(message)
    assert refused("compare", *TINY, "--methods", "CrossEntropy()", method, "--out", "runs").startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model resnet_10", "unknown model 'resnet_10', did you mean 'resnet10_cifar'?"),
        ("--model torchvision:resnet19", "unknown model 'torchvision:resnet19', did you mean 'torchvision:resnet1"),
        ("--width 4 --model timm:resnet18", "width, features and head_layers apply only to densenet121_cifar, "),
        ("--head nothing --model resnet10_cifar", "head='nothing'"),
        ("--weights nothing.pt --model resnet10_cifar", "weights 'nothing.pt' are neither 'none' nor 'default' nor a"),
        ("--data digts", "no data set 'digts' (did you mean 'digits'?)"),
        ("--per-class 1000", "per_class=1000: class '0' of digits has 14"),
        ("--classes 11", "classes=11: digits has 10 classes"),
        ("--augment resized_crop_flip --model resnet10_cifar --width 4", "augment='resized_crop_flip' is for image"),
    ],
)
def test_a_wrong_network_or_set(refused: Callable[..., str], words: str, message: str) -> None:
    given = ["--data", "digits", *words.split()] if "--data" not in words else words.split()
    assert refused("train", *given, "--epochs", 1, "--out", "run").startswith(message)
    assert refused("compare", *given, "--epochs", 1, "--out", "runs", "--seeds", 1).startswith(message)


def test_a_recipe_with_an_unknown_key_or_a_wrong_value(refused: Callable[..., str]) -> None:
    Path("recipe.yaml").write_text("data: digits\nepoch: 3\n")
    for command in ("train", "compare"):
        assert refused(command, "--recipe", "recipe.yaml") == "recipe.yaml: unknown key 'epoch'; did you mean 'epochs'?"
    Path("recipe.yaml").write_text("epochs: many\n")
    told = "recipe.yaml: --epochs must be a whole number, not 'many'"
    assert refused("compare", "--recipe", "recipe.yaml") == told


def test_folders_that_are_no_set_of_images(refused: Callable[..., str], pictures: Path) -> None:
    def told(data: str, *more: str) -> str:
        line = refused("compare", "--data", data, *SMALL, "--epochs", 1, "--out", "runs", *more)
        assert refused("train", "--data", data, *SMALL, "--epochs", 1, "--out", "run", *more) == line
        return line

    Path("empty").mkdir()
    assert told("missing").startswith("no data set 'missing'")
    assert told("empty") == "empty has no class folders: put the images of each class in a folder of its own"
    shutil.copytree(pictures / "train" / "one", Path("single/one"))
    assert told("single") == "single has one class folder, 'one': at least 2 classes are needed"
    shutil.copytree(pictures / "train", Path("photos"))
    Path("photos/dog").mkdir()
    assert told("photos") == "class 'dog' has no image in photos/dog: add images or remove the folder"
    Path("photos/dog").rmdir()
    whole = Path("photos/two/001.png").read_bytes()
    for damage, reason in ((whole[:60], "truncated"), (b"", "the file is empty"), (b"<html>", "not an image")):
        Path("photos/two/001.png").write_bytes(damage)
        line = told("photos")
        assert line.startswith("photos/two/001.png: ")
        assert reason in line.lower()
        assert line.endswith("(1 unreadable of 24 images in photos: repair or remove it, or pass --skip-unreadable)")


def test_unreadable_files_can_be_left_out_and_are_counted(run: Run, pictures: Path) -> None:
    shutil.copytree(pictures / "train", Path("photos"))
    Path("photos/two/001.png").write_bytes(b"")
    words = ["--data", "photos", *SMALL, "--epochs", "1", "--skip-unreadable", "--out", "run"]
    status, _, err = run("train", *words)
    assert status == 0
    assert "photos: 18 training images, 5 test images (20 % held out, seed 0), 3 classes, 32 px, 1 unreadable" in err
    assert json.loads(Path("run/result.json").read_text())["data"]["skipped"] == 1


def test_arrays_that_are_no_set_of_images(refused: Callable[..., str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 4

    def told(**arrays: Any) -> str:
        np.savez("set.npz", **({"images": images, "labels": labels} | arrays))
        return refused("train", "--data", "set.npz", *SMALL, "--epochs", 1, "--out", "run")

    for changed, message in (
        ({"labels": labels - 1}, "set.npz: label -1 is out of range"),
        ({"labels": labels, "classes": np.array(["a", "b", "c"])}, "set.npz: label 3 is out of range, there are 3"),
        ({"labels": labels * 0}, "set.npz: one class only, at least 2 are needed"),
        ({"labels": labels * 2}, "set.npz: no image of class 1 although label 6 occurs"),
        ({"labels": labels[:-1]}, "set.npz: 20 images but 19 labels"),
        ({"images": images.astype(np.float32)}, "set.npz: images are float32, wanted uint8 with values 0 to 255"),
        ({"images": images.transpose(0, 3, 1, 2)}, "set.npz: images have shape (20, 3, 8, 8), wanted (N, H, W, 3)"),
        ({"images": images[0]}, "set.npz: 8 images but 20 labels"),
    ):
        assert told(**changed).startswith(message)


class Bomb:
    """A pickle of this makes the file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("boom").absolute(),)


def test_a_pickle_is_never_run(refused: Callable[..., str]) -> None:
    torch.save({"fc.weight": Bomb()}, "bomb.pt")
    np.savez("bomb.npz", images=np.array([Bomb()] * 4, dtype=object), labels=np.arange(4) % 2)
    words = ["--epochs", "1", "--out", "run"]
    line = refused("train", *TINY, *words, "--weights", "bomb.pt")
    assert line.startswith("weights 'bomb.pt' hold more than tensors, or are damaged (nothing in them was run)")
    line = refused("train", "--data", "bomb.npz", *SMALL, *words)
    assert line.startswith("bomb.npz: holds pickled objects, which are never loaded")
    assert not Path("boom").exists()
    torch.load("bomb.pt", weights_only=False)  # what the files would have done
    assert Path("boom").exists()


def test_weights_of_another_network(refused: Callable[..., str], finished: Path) -> None:
    wide = ["--model", "resnet10_cifar", "--width", "8", "--epochs", "1", "--out", "run"]
    line = refused("train", *TINY[:6], *wide, "--weights", finished / "model.safetensors")
    assert line.startswith(f"weights '{finished / 'model.safetensors'}' do not fit this model; of another shape: ")
    assert line.endswith("build the model they were saved from")


def test_a_folder_of_another_recipe_is_left_as_it_is(refused: Callable[..., str], run: Run) -> None:
    assert run("compare", *TINY, *PAIR, "--seeds", 1, "--epochs", 1, "--out", "runs").status == 0
    end = "choose another --out, or delete it"
    again = ["--seeds", 1, "--out", "runs"]
    line = refused("compare", *TINY, *PAIR, *again, "--epochs", 2)
    assert line == f"runs/crossentropy-seed0 belongs to another recipe: epochs (1 there, 2 here); {end}"
    line = refused("compare", *TINY, "--methods", "SDDropout()", *again, "--momentum", 0.5)
    assert line == f"runs/sddropout-seed0 belongs to another recipe: momentum (0.9 there, 0.5 here); {end}"
    line = refused("train", *TINY, "--epochs", 1, "--out", "runs/sddropout-seed0", "--method", "Dropout(p=0.2)")
    there = "runs/sddropout-seed0 belongs to another recipe: method"
    assert line == f"{there} ('SDDropout()' there, 'Dropout(p=0.2)' here); {end}"


def test_a_file_where_a_folder_should_be(refused: Callable[..., str]) -> None:
    Path("taken").write_text("mine")
    told = "taken is a file, not a folder: choose another --out"
    assert refused("train", *TINY, "--epochs", 1, "--out", "taken") == told
    assert refused("compare", *TINY, "--epochs", 1, "--out", "taken") == told
    assert refused("compare", *TINY, "--epochs", 1, "--out", "taken/runs").endswith(told)
    line = refused("train", *TINY, "--epochs", 1, "--out", "taken/run")
    assert line == "the run folder taken/run cannot be made: Not a directory; choose another --out"


def test_a_mistake_in_this_package_shows_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        """Break."""
        raise KeyError("a bug")

    monkeypatch.setattr(commands, "methods", broken)
    with pytest.raises(KeyError, match="a bug"):
        main(["methods"])
    monkeypatch.undo()
    monkeypatch.setenv("SELFDISTILL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["comapre"])


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_more() -> None:
        """Need more."""
        raise ModuleNotFoundError("No module named 'rich'", name="rich")

    monkeypatch.setattr(commands, "methods", needs_more)
    told = 'selfdistill: error: the command line needs rich: pip install "selfdistill[lab]"\n'
    assert run("methods") == (2, "", told)


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen([SCRIPT, "methods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == b""
    assert command.returncode == 1


# Commands that do what they say.


def test_methods(run: Run) -> None:
    status, out, err = run("methods", "--no-measure")
    assert (status, err) == (0, "")
    for name in ("CrossEntropy()", "LabelSmoothing(eps=0.1)", "SDDropout(p=0.5, weight=1.0, temperature=3.0,"):
        assert f"\n{name}" in f"\n{out}"
    assert "What a step costs" not in out


def test_what_methods_cost_on_this_machine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_costs, "__kwdefaults__", measure_costs.__kwdefaults__ | {"seconds": 0.0})
    words = ["--model", "resnet10_cifar", "--width", 4, "--image-size", 8, "--batch-size", 8]
    status, out, err = run("methods", *words)
    assert (status, err) == (0, "")
    listed, _, measured = out.partition("\nWhat a step costs with resnet10_cifar of width 4, 8 images of 8 px, 100 ")
    assert listed == run("methods", "--no-measure").out
    assert max(len(line) for line in measured.splitlines() if line.startswith(" ")) <= 80
    for name in selfdistill.methods.__all__:
        (row,) = re.findall(rf"^ {name} +(.*?)  *$", measured, re.MULTILINE)
        number = r"[+−]?[\d,]+"  # noqa: RUF001
        wanted = r"–( +–)+" if name == "RDrop" else rf"{number}( +{number}){{2}}"  # noqa: RUF001
        assert re.fullmatch(wanted, row), (name, row)
    assert measured.splitlines()[-1].startswith("RDrop() compares two passes under the model's own dropout, but this")


def test_methods_that_cannot_be_measured_are_listed_all_the_same(run: Run) -> None:
    status, out, err = run("methods", "--model", "resnet_10")
    assert status == 2
    assert out == run("methods", "--no-measure").out
    assert err.startswith("selfdistill: error: unknown model 'resnet_10', did you mean 'resnet10_cifar'?")
    assert run("methods", "--batch-size", 1).err == "selfdistill: error: --batch-size must be at least 2, not 1\n"


@pytest.mark.parametrize("kind", ["onnx", "pt2", "safetensors"])
def test_export_writes_what_predict_and_others_read(run: Run, finished: Path, kind: str) -> None:
    status, out, err = run("export", finished, "--format", kind, "--out", f"net.{kind}")
    assert (status, err) == (0, "")
    size = Path(f"net.{kind}").stat().st_size / 2**20
    assert re.match(rf"net.{kind}: {size:.2f} MiB; logits differ from PyTorch's by at most \S+\ninput: \(B, 3, 32", out)
    assert files_in(Path.cwd()).keys() == {f"net.{kind}"}


def test_an_exported_file_predicts_as_its_run(run: Run, finished: Path, pictures: Path) -> None:
    assert run("export", finished, "--format", "safetensors", "--out", "net.safetensors").status == 0
    wanted = run("predict", finished, pictures / "test", "--csv").out
    assert run("predict", "net.safetensors", pictures / "test", "--csv") == (0, wanted, "")


def test_an_export_without_its_packages(refused: Callable[..., str], finished: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        told = '--format onnx needs onnxruntime: pip install "selfdistill[onnx]"'
        assert refused("export", finished, "--out", "net.onnx") == told


def test_demo(run: Run) -> None:
    """The whole command as it is, with one seed."""
    status, out, err = run("demo", "--seeds", 1)
    assert status == 0
    assert re.search(r"^digits: 50 training images, 200 test images \(20 % held out, seed 0\), 10 classes", err)
    assert re.search(r"^about \d+:\d\d for 4 runs of \d+ epochs", err, re.MULTILINE)
    assert "Handwritten digits: does it help? (1 seed)" in out
    rows = [line for line in out.splitlines() if re.match(r" (CrossEntropy|LabelSmoothing|SDDropout)", line)]
    assert [row.split()[0] for row in rows] == list(commands.DEFAULT_METHODS)
    for row in rows:
        assert float(row.split()[-1]) > 95, "the training images are learnt by heart"
        assert float(row.split()[1]) > 70
    assert "One seed for each method: no verdict" in out
    page = Path("runs/demo/report.html").read_text()
    assert "1,797 handwritten digits" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    status, out_again, err = run("demo", "--seeds", 1)
    assert (status, out_again) == (0, out)
    assert "4 of 4 runs are in runs/demo already" in err


@contextmanager
def signalled(number: signal.Signals, folder: Path) -> Iterator[None]:
    """Send this process a signal as soon as a run below the folder has finished an epoch.

    An empty log would be too early: it is there before there is anything to save.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if any(log.stat().st_size for log in folder.glob("*/log.csv")):
                os.kill(os.getpid(), number)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def test_a_comparison_in_two_processes_is_stopped_and_goes_on_in_one(run: Run) -> None:
    words = ["compare", *TINY, *PAIR, "--seeds", "1", "--out", "runs"]
    with signalled(signal.SIGTERM, Path("runs")):
        status, out, err = run(*words, "--epochs", "60", "--jobs", "2")
    assert (status, out) == (128 + signal.SIGTERM, "")
    assert re.search(r"^about \d+:\d\d for 2 runs of 60 epochs \(.* an epoch\), 2 at a time$", err, re.MULTILINE)
    told = "selfdistill: stopped by SIGTERM and saved; give the same command again to go on (runs)"
    assert err.splitlines()[-1] == told
    assert "Traceback" not in err
    assert multiprocessing.active_children() == []
    assert list(Path("runs").glob("*/checkpoints/*.pt"))
    assert not list(Path("runs").glob("*/result.json"))
    status, _, err = run(*words)
    assert status == 0
    assert " for 2 runs of 60 epochs" in err, "nobody said the epochs again"
    results = [json.loads(path.read_text()) for path in sorted(Path("runs").glob("*/result.json"))]
    assert [(result["method"], result["epochs"]) for result in results] == [
        ("CrossEntropy()", 60),
        ("SDDropout()", 60),
    ]


@pytest.mark.slow
def test_compare_in_several_processes_gives_the_same(run: Run) -> None:
    words = ["compare", *TINY, *PAIR, "--seeds", 1, "--epochs", 2]
    assert run(*words, "--out", "one").status == 0
    status, _, err = run(*words, "--jobs", 2, "--out", "two")
    assert status == 0
    assert "epoch 2/2" in err, "what the processes tell is shown"
    assert "[2/2]" in err
    for name in ("crossentropy-seed0", "sddropout-seed0"):
        ours, theirs = (Path(folder, name, "model.safetensors").read_bytes() for folder in ("one", "two"))
        assert ours == theirs


def test_report_over_two_folders(run: Run) -> None:
    for seed in (0, 1):
        for method in ("CrossEntropy()", "LabelSmoothing()"):
            out = f"seed{seed}/{method[:5]}"
            words = ["--method", method, "--seed", seed, "--epochs", 1, "--out", out]
            assert run("train", *TINY, *words).status == 0
    status, out, err = run("report", "seed0", "seed1", "seed1/Cross", "--title", "Twice", "--out", "both")
    assert (status, err) == (0, "")
    assert "Twice (2 seeds, mean ± sd)" in out
    assert out.rstrip().endswith("Report: both/report.html")
    assert {path.name for path in Path("both").iterdir()} == {"report.html", "report.md", "figures"}
    text = Path("both/report.md").read_text()
    assert text.index("CrossEntropy()") < text.index("LabelSmoothing")
    status, out, _ = run("report", "seed0", "seed1", "--baseline", "LabelSmoothing()", "--out", "both")
    assert status == 0
    assert out.index("LabelSmoothing") < out.index("CrossEntropy")
    assert run("report", "seed0", "--baseline", "SDDropout()").status == 2


def test_train_writes_a_run_and_a_second_time_changes_nothing(run: Run, pictures: Path) -> None:
    words = ["train", "--data", pictures, *SMALL, "--epochs", 1, "--method", "SDDropout(weight=0.1)", "--seed", 3]
    status, out, err = run(*words)
    assert status == 0
    assert err.startswith("digits3: 24 training images, 18 test images (test folder), 3 classes, 32 px; resnet10_cifar")
    assert "sddropout-weight-0.1-seed3: epoch 1/1 " in err
    folder = Path("runs/digits3-sddropout-weight-0.1-seed3")
    assert out.rstrip().endswith(f"Report: {folder}/report.html")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (recipe["seed"], recipe["batch_size"], recipe["classes"]) == (3, 128, 3)
    before = files_in(folder)
    assert run(*words) == (0, out, "")
    assert files_in(folder) == before
    again = ["train", "--recipe", folder / "recipe.yaml", "--out", folder]  # its own recipe is the same run
    assert run(*again).status == 0
    assert files_in(folder) == before


def test_evaluate_repeats_the_numbers_of_the_run(run: Run, finished: Path, pictures: Path) -> None:
    recorded = json.loads((finished / "result.json").read_text())["evaluation"]
    status, out, err = run("evaluate", finished, "--quick", "--json", "numbers.json")
    assert (status, err) == (0, "measuring accuracy and calibration\n")
    assert "digits3 (test folder)" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    numbers = json.loads(Path("numbers.json").read_text())
    assert numbers["reliability"]["count"] == recorded["reliability"]["count"]
    for name in ("top1", "train_top1", "nll", "brier", "ece", "gap"):
        assert numbers[name] == pytest.approx(recorded[name], rel=1e-5)
    assert numbers["robustness"] is None
    status, out, _ = run("evaluate", finished, "--data", pictures / "test", "--quick", "--json")
    other = json.loads(out)
    assert (other["n"], other["train_n"]) == (18, None), "images without a test part are all scored"
    assert other["top1"] == recorded["top1"]
    assert other["nll"] == pytest.approx(recorded["nll"], rel=1e-5)
    line = run("evaluate", finished, "--data", "digits", "--quick").err.splitlines()[-1]
    assert line == f"selfdistill: error: digits has other classes than {finished}: 10 instead of 3"
    assert not (finished / "evaluation.json").exists()


def test_evaluate_measures_a_run_and_its_report_shows_it(run: Run, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    status, out, err = run("evaluate", copy, "--max-images", 6, "--json", "numbers.json")
    assert status == 0
    begun = ["accuracy and calibration", "attacks", "corruptions", "out-of-distribution"]
    assert err.splitlines() == [f"measuring {measure}" for measure in begun]
    assert max(map(len, out.splitlines()[:-1])) <= 80  # but for the path
    for told in ("PGD-20", "mCA", "AUROC", "AURC", "photographs"):
        assert told in out
    assert out.rstrip().endswith(f"Report: {copy}/report.html")
    numbers = json.loads(Path("numbers.json").read_text())
    assert numbers["robustness"]["pgd_n"] == 6
    assert numbers["shift"]["n"] == 6
    assert [one["name"] for one in numbers["ood"]] == ["photographs"]
    page = (copy / "report.html").read_text()
    assert "own corruptions" in page
    assert "PGD" in page
    first = json.loads((copy / "evaluation.json").read_text())
    assert run("evaluate", copy, "--max-images", 6).status == 0
    again = json.loads((copy / "evaluation.json").read_text())
    assert again["evaluation"] == first["evaluation"], "the same bits a second time"


def test_evaluate_other_images_and_other_unknown_ones(run: Run, finished: Path, pictures: Path) -> None:
    np.save("noise.npy", np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
    words = ["--data", pictures / "test", "--max-images", 4, "--ood", "noise.npy", pictures / "test", "--out", "page"]
    status, out, _ = run("evaluate", finished, *words)
    assert status == 0
    assert out.rstrip().endswith("Report: page/evaluation.html")
    assert "noise" in Path("page/evaluation.md").read_text()
    assert not (finished / "evaluation.json").exists()


def test_evaluate_anybody_s_network(run: Run, refused: Callable[..., str], pictures: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    torch.save(resnet18(num_classes=3).state_dict(), "net.pt")
    words = ["evaluate", "--model", "torchvision:resnet18", "--image-size", 32, "--max-images", 2]
    constants = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    status, out, _ = run(*words, *constants, "--checkpoint", "net.pt", "--data", pictures)
    assert status == 0
    assert out.rstrip().endswith("Report: runs/torchvision-resnet18-on-digits3/evaluation.html")
    page = Path("runs/torchvision-resnet18-on-digits3/evaluation.html").read_text()
    assert "11,178,051 parameters" in page
    shutil.rmtree("runs")
    line = refused(*words, "--checkpoint", "net.pt", "--data", "digits")
    assert "3 classes" in line
    assert "10" in line
    assert "nothing.pt" in refused(*words, "--checkpoint", "nothing.pt", "--data", pictures)


def test_unknown_images_that_cannot_be_used(refused: Callable[..., str], finished: Path) -> None:
    Path("empty").mkdir()
    np.save("large.npy", np.zeros((4, 40, 40, 3), dtype=np.uint8))
    for words, told in (
        (["--ood", "empty"], "empty"),
        (["--ood", "large.npy"], "40 x 40"),
        (["--ood", "photograph"], "photographs"),
        (["--ood", "photographs", "photographs"], "given twice"),
        (["--corruptions", "nowhere"], "nowhere: no such folder"),
    ):
        assert told in refused("evaluate", finished, *words)


def test_predict_writes_what_evaluate_scores(run: Run, finished: Path, pictures: Path) -> None:
    status, out, err = run("predict", finished, pictures / "test", "--csv", "table.csv")
    assert (status, out, err) == (0, "18 images, table.csv\n", "")
    with Path("table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "class", "confidence", "p(one)", "p(two)", "p(zero)"]
    assert [row["file"] for row in rows] == sorted(str(path) for path in pictures.glob("test/*/*.png"))
    for row in rows:
        chances = {name: float(row[f"p({name})"]) for name in NAMES}
        assert sum(chances.values()) == pytest.approx(1, abs=3e-6)
        assert row["class"] == max(chances, key=lambda name: chances[name])
        assert float(row["confidence"]) == max(chances.values())
    right = sum(row["class"] == Path(row["file"]).parent.name for row in rows)
    recorded = json.loads((finished / "result.json").read_text())["evaluation"]
    assert right / 18 == pytest.approx(recorded["top1"])
    assert np.mean([float(row["confidence"]) for row in rows]) == pytest.approx(recorded["confidence"], abs=1e-5)
    status, out, _ = run("predict", finished, "--csv", "again.csv", pictures / "test" / "one", pictures / "test/two")
    assert (status, out) == (0, "12 images, again.csv\n")
    assert run("predict", finished, pictures / "test", "--csv").out == Path("table.csv").read_text()


def test_predict_shows_a_table_and_names_what_it_cannot_read(run: Run, finished: Path, pictures: Path) -> None:
    image = next(pictures.glob("test/two/*.png"))
    status, out, _ = run("predict", finished, image)
    assert status == 0
    assert re.search(r"(zero|one|two) +\d+\.\d%", out)
    Path("note.txt").write_text("no image")
    status, out, err = run("predict", finished, image, "note.txt", "--csv", "table.csv")
    assert (status, out) == (2, "")
    told = "note.txt: not an image, or a format that cannot be read (1 unreadable of 2 files: repair or remove it, or"
    assert err.startswith(f"selfdistill: error: {told}")
    assert not Path("table.csv").exists()
    status, out, err = run("predict", finished, image, "note.txt", "--csv", "table.csv", "--skip-unreadable")
    assert status == 0
    assert out.splitlines()[1].startswith("1 unreadable file left out; the first: note.txt: ")


def test_predict_never_writes_over_an_image(run: Run, finished: Path, pictures: Path) -> None:
    shutil.copytree(pictures / "test", Path("mine"))
    before = files_in(Path("mine"))
    status, _, err = run("predict", finished, "mine/one/000.png", "--csv", "mine/one/001.png")
    assert status == 2
    assert err.startswith("selfdistill: error: --csv mine/one/001.png has the name of an image")
    assert files_in(Path("mine")) == before


def test_fine_tuning_from_a_file_has_its_own_learning_rate(run: Run, finished: Path, pictures: Path) -> None:
    words = ["--weights", finished / "model.safetensors", "--epochs", 1, "--out", "tuned"]
    status, _, err = run("train", "--data", pictures, *SMALL, *words)
    assert status == 0
    assert "model.safetensors, batches of 128, lr 0.01\n" in err
    model = selfdistill.load("tuned")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_the_budget_sets_the_epochs(run: Run, refused: Callable[..., str]) -> None:
    words = ["compare", *TINY, "--methods", "CrossEntropy()", "--seeds", 1, "--out", "runs"]
    assert refused(*words, "--budget", "0.001s").startswith("--budget 0:00 is too short: one epoch of 1 run(s) takes")
    status, _, err = run(*words, "--budget", "1.5s")
    assert status == 0
    told = re.search(r"for 1 run of (\d+) epochs?", err)
    assert told is not None
    record = json.loads(Path("runs/crossentropy-seed0/result.json").read_text())
    assert 1 <= record["epochs"] == int(told[1]) <= 200
