"""Wrong words on the command line: each is one line that names the option, before anything is done or left behind."""

import shlex
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
import yaml

from selfdistill.cli.app import COMMANDS, app
from selfdistill.runs.failures import Failure
from tests.cli.shared import Run, files_in
from tests.pictures import write_digits

HUGE = "1" + "0" * 400
WRONG = {
    int: ("x", "1.5", "-1", "inf", "nan", "1e3", "0x10", "", " ", HUGE, f"-{HUGE}"),
    float: ("x", "inf", "-inf", "nan", "1e400", "1,5", "", HUGE),
    bool: ("=perhaps", "=", "=2"),
    str: ("", " "),
    Path: ("", " "),
    Literal: ("nope", "", "None", "0"),
}
TINY = "--data digits --per-class 2 --test-per-class 2 --model resnet10_cifar --width 4 --threads 1"
RIGHT = {  # words with which the command would work
    "demo": "--seeds 1 --jobs 1",
    "compare": f"{TINY} --seeds 1 --epochs 1 --methods CrossEntropy() --quick",
    "train": f"{TINY} --epochs 1",
    "evaluate": "run --quick",
    "detect": "--data coco --model resnet18 --epochs 1 --image-size 64",
    "reproduce": "table1 --scale smoke",
    "tune": f"{TINY} --trials 1 --epochs 1 --seeds 1",
    "report": "run",
    "predict": "run photos",
    "calibrate": "run --data unseen",
    "export": "run --format safetensors",
    "methods": "--width 4 --image-size 8 --batch-size 4",
}


class Case(NamedTuple):
    """Words, and what the line must name: one of these."""

    words: tuple[str, ...]
    named: tuple[str, ...]


def kind_of(hint: Any) -> Any:
    """Return the type of one value."""
    if typing.get_origin(hint) is Literal:
        return Literal
    inner = [one for one in typing.get_args(hint) if one not in (type(None), Ellipsis)]
    return kind_of(inner[0]) if inner else hint


def without(words: list[str], option: str) -> list[str]:
    """Return the words but for one option and its values."""
    if option not in words:
        return words
    at = words.index(option)
    end = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:at] + words[end:]


def generated() -> Iterator[Case]:
    """Every option of every command with every wrong value of its type, without a value, twice, and misspelled."""
    for command in COMMANDS:
        for argument in app[command].assemble_argument_collection():
            name, kind = argument.name, kind_of(argument.hint)
            if not name.startswith("--"):
                continue
            rest, right = without(RIGHT[command].split(), name), "" if kind is bool else "1"
            for value in WRONG[kind]:
                words = (f"{name}{value}",) if kind is bool else (name, value)
                yield Case((command, *rest, *words), (name,))
            yield Case((command, *rest, f"{name}x", right), (name,))
            if kind is not bool and argument.name not in ("--csv", "--json", "--ood"):
                yield Case((command, *rest, name), (name,))
            if typing.get_origin(argument.hint) not in (list, tuple):
                yield Case((command, *rest, *[name, right][: 1 + bool(right)] * 2), (name,))
        yield Case((command, *RIGHT[command].split(), "--nothing"), ("--nothing",))


# What no type tells: names, files, ranges and options that exclude each other or would be ignored.
POSITIONAL = ("RUN", "RUNS", "PATHS", "TABLE")
BY_HAND = {
    "": "xyz|--epochs 3|'' |comapre|TRAIN|-1|--data digits train",
    "demo": "--out file|--out file/runs|more|--seeds 1001|--jobs 5000",
    "compare": "--budget 60|--budget 1e9h|--budget -5m|--budget 5m5m|--budget inf|"
    "--methods CrossEntropy() CrossEntropy()|--methods SDDroput()|--methods SDDropout|--methods 1|"
    "--methods __import__('os')|--methods SDDropout(p=2)|--methods SDDropout(nope=1)|--methods ++|--jobs 5000|"
    "--seeds 5000|--epochs 0|--budget 5m|--out file|--corruptions nowhere|--max-images 5|--max-images 0|"
    "--model resnet_10|--model timm:nope --width null|--model torchvision:|--weights nothing.pt|--weights default|"
    "--weights file|--data digts|--data file|--data folder|--recipe nothing.yaml|--recipe folder|"
    "--recipe broken.yaml|--recipe twice.yaml|--recipe words.yaml|--recipe bomb.yaml|--head nothing|--width 0|"
    "--width 2000|--classes 11|--classes 1|--per-class 1000|--test-per-class 1000|--augment resized_crop_flip|"
    "--resize 64|--cache|--image-size 7|--image-size 5000|--lr 0|--clip 0|--ema 0|--ema 1|--momentum 1.5|"
    "--milestones 0.7,0.5|--mixup 0|--cutmix -1|--erasing 1.5|--auto-augment nope|--class-weights 1,2|"
    "--balanced-sampling --class-weights balanced|--schedule one_cycle --gamma 0.5|--schedule onecycle|"
    "--val-fraction 1|--keep best|--patience 3|--patience 0|"
    "--milestones 1.5|--schedule cosine --gamma 0.5|--schedule cosine --milestones 0.3|"
    "--nesterov --momentum 0|--warmup-epochs 1|--keep-epochs 2|--keep-epochs 0|--threads 0|"
    "--threads 100000000|--workers 5000|--head-layers 3|--features 0|--accumulate 0|--eval-every 0|"
    "--batch-size 0|--weight-decay -1",
    "train": "--method SDDroput()|--method SDDropout|--method CrossEntropy()+CrossEntropy()|"
    "--method SDDropout(weight=-1)|--method LabelSmoothing(eps=2)|--method SDDropout(at='nope')|--devices 0|"
    "--devices 1000000|--nodes 2|--nodes 0|--nodes 100000|--accelerator cuda|--accelerator cuda --devices 4|"
    "--accelerator tpu|--out file|--out file/run|--seed -1|--seed 9223372036854775808|--stages layer1,layer2|"
    "--stages nope --method BYOT()|--data digts|--data file|--data folder|--data hole.npz|--data damaged.npz|"
    "--data wrong.csv|"
    "--data wrong.parquet|--data wds:nothing|--data wds:folder|--data wds:photos/{0..3}.tar|--data hf:folder|"
    "--cache --cache --data photos|--weights run/model.json|--weights folder|--width 4 --model timm:resnet18|"
    "--features 8 --width null --model torchvision:resnet18|--recipe words.yaml|--recipe run/model.json|--recipe run|"
    "--recipe bytes.yaml|--recipe deep.yaml|--keep-epochs 1,x|--data-root file --data cifar10|--image-size 7|"
    "--lr 1e400|--lr -1|--precision 16-mixed --accelerator cpu|--gradient-checkpointing|--sync-batchnorm|"
    "--sync-batchnorm --devices 2 --accelerator cpu|--schedule one_cycle --milestones 0.5|"
    "--schedule cosine --milestones 0.5",
    "evaluate": "--model timm:resnet18|--width 4|--checkpoint file|--mean 0.5,0.5,0.5|--std 1,1,1|--image-size 32|"
    "--max-images 5|--ood photographs dtd|--corruptions folder|--out elsewhere|--json folder|"
    "--json nowhere/x.json|--data nothing|--data folder|--data file|--data digits|more",
    "evaluate *": "nothing|folder|file|broken|run --ood nothing|run --ood folder|run --ood file|run --out file|"
    "run --ood photographs photographs|run --corruptions nowhere|run --corruptions folder|"
    "run --corruptions file|run --max-images 0|--model resnet_10 --data photos|"
    "--model timm:nope --data photos|--data photos|"
    "--checkpoint nothing.pt --model resnet10_cifar --data photos|"
    "--checkpoint file --model resnet10_cifar --data photos|"
    "--checkpoint folder --model resnet10_cifar --data photos|"
    "--data nothing --model resnet10_cifar --checkpoint run/model.safetensors|"
    "--checkpoint run/model.safetensors --model resnet10_cifar --data photos --width 8|"
    "--image-size 5000 --checkpoint run/model.safetensors --model resnet10_cifar --data photos --width 4|"
    "--mean 0.5 --checkpoint run/model.safetensors --model resnet10_cifar --data photos --width 4|"
    "--mean 2,2,2 --checkpoint run/model.safetensors --model resnet10_cifar --data photos --width 4|"
    "--std 0,0,0 --checkpoint run/model.safetensors --model resnet10_cifar --data photos --width 4",
    "detect": "--model resnet19|--model vgg16|--backbone run|--backbone nothing|--backbone run --weights default|"
    "--norm frozen|--trainable-layers 6|--data nothing|--data file|--data photos|--shedule 1x|"
    "--devices 1000000|--accelerator cuda|--images 0|--eval-images 0|--rois 0|--image-size 0|"
    "--schedule cosine --gamma 0.3",
    "detect *": "--backbone '' |--recipe words.yaml --data coco --model resnet18",
    "reproduce": "--seeds 1 1|--seeds -1|--list --print-commands|--list --jobs 2|--print-commands --ray auto|--cpus 2|"
    "--jobs 2 --ray auto|--ray nowhere|--ray host:port|--ray :1|--jobs 5000|--out file|--scale tiny|table2",
    "reproduce *": "|''|tabel9|table99|figure|all more|--scale smoke",
    "report": "--baseline SDDropout(weight=7)|--baseline nope|--out file|--title ''|nothing",
    "report *": "|nothing|folder|file|broken|''",
    "predict": "nothing|--csv folder|--csv x.png|--csv nowhere/x.csv|--skip-unreadable=3|--json x.png|--csv --json|"
    "--abstain 0|--abstain 1|--abstain 0.05|--conformal 1|--conformal 0.9|--sets aps|--ood|--ood knn|- --csv x.csv",
    "predict *": "|run|nothing photos|folder photos|file photos|broken photos|run folder|run file|'' photos|run ''",
    "calibrate": "more|--data nothing|--data folder|--data file|--data digits|--data photos|--data-root file|"
    "--max-pixels 0",
    "calibrate *": "run --skip-unreadable|run --max-pixels 9|run|nothing|folder|file|broken|''|run/model.safetensors",
    "export": "--probabilities|--out net.onnx|--out folder|--out run/model.safetensors|--format tf|"
    "--out file/x.safetensors|more",
    "export *": "|nothing|folder|file|broken|''",
    "methods": "--no-measure|--model nope|--width 2000|--image-size 0|--batch-size 1|more",
}


def by_hand() -> Iterator[Case]:
    """The cases above; a name with a star gives all words itself."""
    for name, texts in BY_HAND.items():
        command, _, whole = name.partition(" ")
        for text in texts.split("|"):
            words = shlex.split(text)
            options = [word.partition("=")[0] for word in words if word.startswith("--")]
            right = [] if whole or not command else RIGHT[command].split()
            for option in options:
                right = without(right, option)
            yield Case((*([command] if command else []), *right, *words), (*(options[:1] or words), *POSITIONAL))


def cases() -> list[Case]:
    """All of them, each once."""
    return list(dict.fromkeys([*by_hand(), *generated()]))


def faults_of(case: Case, run: Run) -> list[str]:
    """Run a command that must be refused; return what is wrong with how it was."""
    before = files_in(Path.cwd())
    try:
        ran = run(*case.words)
    except Exception as error:  # in the place of a traceback
        return [f"{type(error).__name__}: {error}"]
    checks = {
        f"status {ran.status}": ran.status in (1, 2),
        f"not one line: {ran.err[-300:]}": ran.err.startswith("selfdistill: error: ") and ran.err.count("\n") == 1,
        f"not named: {ran.err[-300:]}": any(name in ran.err for name in case.named),
        f"printed {ran.out[:100]}": not ran.out,
        f"{len(ran.err)} characters": len(ran.err) < 700,
        f"left behind {files_in(Path.cwd()).keys() - before.keys()}": files_in(Path.cwd()) == before,
    }
    return [fault for fault, holds in checks.items() if not holds]


@pytest.fixture
def site(run: Run, finished: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what the cases name; training, evaluation and the measuring of costs end at once."""

    def begin(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    work = "training.loop.Loop.run runs.evaluation.evaluate runs.predict.predict runs.cost.measure_costs"
    for place in (*work.split(), "runs.calibrate.read_features", "paper.reproduce_tables", "runs.processes._start"):
        monkeypatch.setattr(f"selfdistill.{place}", begin)
    shutil.copytree(finished, "run")
    shutil.copytree(pictures / "train", "photos")
    write_digits(Path("unseen"), train=14, test=4)
    for folder in ("folder", "broken"):
        Path(folder).mkdir()
    Path("file").touch()
    Path("broken/model.json").write_text('{"model": 3}')
    Path("broken/result.json").write_text("{}")
    Path("broken.yaml").write_text("lr: [\n")
    Path("twice.yaml").write_text("lr: 1\nlr: 2\n")
    Path("words.yaml").write_text("epoch: 3\n")
    Path("bomb.yaml").write_text("a: &a [x]\nb: *a\n")
    Path("deep.yaml").write_text(f"method: {'[' * 3000}\n")
    Path("bytes.yaml").write_bytes(b"\xff\xfe")
    Path("damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    Path("wrong.csv").write_text("path,label\nnothing.jpg,a\n")
    Path("wrong.parquet").write_bytes(b"PAR1")
    np.savez("hole.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.array([0, 0, 2, 2]))


CASES = cases()
SHARE = 24  # of so many cases the default run checks one


def test_there_are_many_wrong_words_for_every_command() -> None:
    for command in COMMANDS:
        assert sum(case.words[:1] == (command,) for case in CASES) >= 20
    assert len(CASES) >= 1000


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("share", [0, *(pytest.param(share, marks=pytest.mark.slow) for share in range(1, SHARE))])
def test_wrong_words_are_refused_in_one_line(run: Run, share: int) -> None:
    found = {case.words: faults for case in CASES[share::SHARE] if (faults := faults_of(case, run))}
    assert not found, yaml.safe_dump({" ".join(words)[-200:]: faults for words, faults in found.items()}, width=200)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 46.9 GiB for an array with shape (9,)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: tried to allocate 46.9 GiB. Error code 12"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 46.9 GiB. GPU 0 has ...\nSee documentation"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_is_told_in_our_words(
    run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = "memory ran out (46.9 GiB were to be allocated): choose smaller batches, images or networks"

    def allocate(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("selfdistill.training.classification.build", allocate)
    assert run("train", *RIGHT["train"].split()) == (2, "", f"selfdistill: error: {said}\n")
    assert Failure.of(error, tmp_path).reason == said


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("command", [command for command in RIGHT if command not in ("demo", "detect")])
def test_the_words_beside_the_wrong_one_are_right(run: Run, command: str) -> None:
    """Else a case would be refused for another reason; a demo takes longer, and a detector's images are not there."""

    def end() -> str:
        try:
            return f"status {run(command, *shlex.split(RIGHT[command])).status}"
        except AssertionError as error:
            return str(error)

    assert end() in ("status 0", "the work began")
