"""From words to arguments: help, recipes, did-you-mean, exit statuses, start-up."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import selfdistill
from selfdistill.cli import main
from selfdistill.cli.app import COMMANDS, app
from selfdistill.cli.errors import spell_options
from selfdistill.cli.options import OPTIONS, RECIPES
from selfdistill.config.train_config import TrainConfig
from selfdistill.detect.config import DetectConfig
from selfdistill.errors import ArgumentError
from selfdistill.network import DIVERGED
from tests.cli.shared import SCRIPT, Refused, Run


def test_the_overview_names_every_command_in_eighty_columns(run: Run) -> None:
    for words in ([], ["--help"], ["-h"]):
        status, out, err = run(*words)
        assert (status, err) == (0, "")
        for name in COMMANDS:
            assert f"\n  {name} " in out
        assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_printed(run: Run) -> None:
    for words in (["--version"], ["-V"]):
        assert run(*words) == (0, f"{selfdistill.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option_in_eighty_columns(run: Run, name: str) -> None:
    status, out, err = run(name, "--help")
    assert (status, err) == (0, "")
    assert run(name, "-h").out == out
    assert max(map(len, out.splitlines())) <= 80
    for argument in app[name].assemble_argument_collection(parse_docstring=True):
        assert argument.parameter.help
        assert re.search(rf" (-\w, )?{argument.name}\b", out) or f"  --[no-]{argument.name[2:]}" in out
    titles = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("kind", [TrainConfig, DetectConfig])
def test_every_field_of_a_recipe_is_in_a_group_of_its_kind(kind: Any) -> None:
    command = "train" if kind is TrainConfig else "detect"
    in_options = {
        argument.field_info.name for argument in app[command].assemble_argument_collection().filter_by(group=OPTIONS)
    }
    assert in_options & set(kind.__dataclass_fields__) <= {"keep_epochs", "eval_every", "log", "save_every"}


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["compare", "--epohs", "3"]])
def test_help_and_mistakes_need_no_torch(words: list[str]) -> None:
    code = (
        "import sys, selfdistill.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules, len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    torch, numpy, modules = done.stdout.splitlines()[-1].split()
    assert (torch, numpy) == ("False", "False")
    assert int(modules) < 400  # the start-up time follows their number, and does not depend on the machine


def test_python_m_selfdistill_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "selfdistill", "-V"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{selfdistill.__version__}\n"


def test_completion_is_generated_for_every_command() -> None:
    for shell in ("bash", "zsh", "fish"):
        script = app.generate_completion(shell=shell)
        assert all(name in script for name in COMMANDS)
        assert "batch-size" in script


# What a command is called with.


class CalledError(Exception):
    """Instead of a training: what it was called with."""


@pytest.fixture
def recipe_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return the recipe that a command would train by: ``recipe_of("train", "--lr", "1")``."""

    def record(recipe: Any, *_: Any, epochs: int | None = None, **__: Any) -> None:
        raise CalledError(recipe, epochs)

    for function in ("single.run_single", "compare.run_comparison", "single.run_detector"):
        monkeypatch.setattr(f"selfdistill.runs.{function}", record)

    def call(*words: object) -> Any:
        with pytest.raises(CalledError) as called:
            main(list(map(str, words)))
        recipe, epochs = called.value.args
        return (recipe, epochs) if words[0] == "compare" else recipe

    return call


def arguments_of(*words: object) -> dict[str, Any]:
    """Return what a command without a recipe would be called with."""
    return dict(app.parse_args(list(map(str, words)))[1].arguments)


def test_values_of_a_recipe_are_converted(recipe_of: Callable[..., Any]) -> None:
    words = ("--lr", "1e-2", "--keep-epochs", "[5, 9]", "--milestones", "0.25,0.5", "--clip", "null")
    assert recipe_of("train", *words) == TrainConfig(lr=0.01, keep_epochs=(5, 9), milestones=(0.25, 0.5))
    assert recipe_of("train", "--milestones", "0.25", "0.5").milestones == (0.25, 0.5)
    assert recipe_of("train", "--keep-epochs", "[]").keep_epochs == ()
    assert recipe_of("train", "--augment", "none").augment == "none"
    assert recipe_of("train", "--skip-unreadable").skip_unreadable
    assert not recipe_of("detect", "--no-flip").flip
    assert recipe_of("compare", "--epochs", "null") == (TrainConfig(), None)


def test_values_of_a_command_are_converted() -> None:
    assert arguments_of("reproduce", "table1", "--seeds", 41, 42, 43) == {"table": "table1", "seeds": [41, 42, 43]}
    assert arguments_of("evaluate", "--mean", "0.5,0.4,0.3", "run") == {"run": Path("run"), "mean": (0.5, 0.4, 0.3)}
    home = Path("~/x").expanduser()
    assert arguments_of("report", "a", "--out", "~/x", "b") == {"runs": (Path("a"), Path("b")), "out": home}
    assert arguments_of("methods", "--width", "null", "--image_size", "8") == {"width": None, "image_size": 8}
    assert arguments_of("compare", "--methods", "A()", "B()", "--seeds", "2") == {"methods": ["A()", "B()"], "seeds": 2}


def test_the_value_of_csv_and_json_is_optional() -> None:
    files = {"run": Path("run"), "paths": (Path("a"),)}
    assert arguments_of("predict", "run", "a", "--csv") == files | {"csv": True}
    assert arguments_of("predict", "run", "--csv", "x.csv", "a") == files | {"csv": Path("x.csv")}
    assert arguments_of("evaluate", "run", "--json", "--quick") == {"run": Path("run"), "json": True, "quick": True}


def test_what_is_typed_overrides_the_recipe(recipe_of: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("lr: 1e-2\nmethod: Dropout()\nseed: 7\nwidth: 8\nnesterov: true\n")
    trained = recipe_of("train", "--recipe", file, "--width", "null", "--no-nesterov")
    assert trained == TrainConfig(lr=0.01, method="Dropout()", seed=7, width=None)
    # Neither its method nor its seed, and no epochs that it does not give.
    assert recipe_of("compare", "--recipe", file) == (TrainConfig(lr=0.01, width=8, nesterov=True), None)
    file.write_text("epochs: 12\n")
    assert recipe_of("compare", "--recipe", file)[1] == 12
    assert recipe_of("compare", "--recipe", file, "--epochs", 3)[1] == 3


def test_a_shipped_recipe_is_found_by_its_name(
    recipe_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = TrainConfig.from_yaml(RECIPES / "digits.yaml")
    assert recipe_of("train", "--recipe", "digits") == shipped
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("epochs: 3\n")
    assert recipe_of("train", "--recipe", "digits") == TrainConfig(epochs=3)  # a file of that name comes first


def test_a_wrong_recipe_names_the_file_and_the_key(refused: Refused) -> None:
    Path("recipe.yaml").write_text("data: digits\nepoch: 3\n")
    for command in ("train", "compare"):
        line = refused(command, "--recipe", "recipe.yaml")
        assert line.startswith("--recipe: recipe.yaml: ")
        assert "'epochs'" in line
    Path("recipe.yaml").write_text("epochs: many\n")
    line = refused("compare", "--recipe", "recipe.yaml")
    assert line.startswith("--recipe: recipe.yaml: ")
    assert "epochs must be" in line


# Mistakes in the words: the golden file has the sentences; here, that each is one line that names what is wrong.


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("comapre", "'compare'"),
        ("xyz", "'xyz'"),
        ("--epochs 3", "--epochs"),
        ("compare --epoch 3", "--epochs"),
        ("compare --image_sise 3", "--image-size"),
        ("compare --epochs abc", "--epochs"),
        ("train --epochs 2.5", "--epochs"),
        ("train --epochs 0", "--epochs"),
        ("train --lr fast", "--lr"),
        ("train --lr inf", "--lr"),
        ("train --milestones 0.5,x", "--milestones"),
        ("train --schedule cosin", "--schedule"),
        ("train --accelerator tpu", "--accelerator"),
        ("train --epochs", "--epochs needs a value"),
        ("train --epochs --lr 1", "--epochs needs a value"),
        ("compare --methods", "--methods needs a value"),
        ("train --epochs 1 --epochs 2", "--epochs is given twice"),
        ("train --nesterov=perhaps", "--nesterov"),
        ("train --out=", "--out"),
        ("train --data=", "--data"),
        ("compare photos/", "--data photos/"),
        ("compare more words", "more words"),
        ("train --dry", "train --help"),
        ("compare -q -v", "--quiet and --verbose"),
        ("methods -x", "-x"),
        ("predict", "RUN"),
        ("predict run", "PATHS"),
        ("predict run a --csv=", "--csv"),
        ("evaluate", "RUN or --model"),
        ("evaluate run --model timm:resnet18", "RUN or --model"),
        ("evaluate --model timm:resnet18", "--data"),
        ("evaluate run --width 3", "--width"),
        ("evaluate run --max-images 0", "--max-images"),
        ("evaluate run --mean 0.5,x", "--mean"),
        ("compare --budget 60", "--budget"),
        ("compare --seeds 0", "--seeds"),
        ("compare --seeds 1.5", "--seeds"),
        ("compare --jobs 0", "--jobs"),
        ("train --recipe nothing.yaml", "nothing.yaml"),
        ("train --recipe digit", "'digits'"),
        ("evaluate nothing", "nothing"),
        ("export", "RUN"),
        ("export nothing", "nothing"),
        ("export nothing --format tf", "--format"),
        ("export nothing --out net.pt2", "--out"),
        ("report nothing", "nothing"),
        ("reproduce", "TABLE"),
        ("reproduce tabel9", "'table9'"),
        ("reproduce table1 --seeds 1 1", "--seeds"),
        ("reproduce --list --print-commands", "--list and --print-commands"),
        ("detect --shedule 1x", "--schedule"),
    ],
)
def test_a_mistake_in_the_words_is_named_in_one_line(refused: Refused, words: str, named: str) -> None:
    assert named in refused(*words.split())


def test_arguments_of_the_library_become_options() -> None:
    assert spell_options(str(ArgumentError("batch_size", "must be 1")), ["train"]) == "--batch-size must be 1"
    text = "`run` and `no_such_thing`: pass `skip_unreadable=True` or `format='onnx'`"
    assert spell_options(text, ["predict"]) == "RUN and `no_such_thing`: pass --skip-unreadable or `format='onnx'`"
    assert spell_options(text, ["export"]) == "RUN and `no_such_thing`: pass `skip_unreadable=True` or --format onnx"
    assert spell_options(text, []) == text
    for command in ("train", "predict", "evaluate", "export", "calibrate"):
        assert spell_options(DIVERGED, [command]) == "the training diverged: train again with a lower --lr or --clip 1"


# What becomes of other ends.


def test_a_bug_shows_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise KeyError("a bug")

    monkeypatch.setattr("selfdistill.report.lists.method_lines", broken)
    with pytest.raises(KeyError, match="a bug"):
        main(["methods"])
    monkeypatch.undo()
    monkeypatch.setenv("SELFDISTILL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="comapre"):
        main(["comapre"])


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete() -> list[str]:
        raise ModuleNotFoundError("No module named 'rich'", name="rich")

    monkeypatch.setattr("selfdistill.report.lists.method_lines", incomplete)
    told = 'selfdistill: error: the command needs rich: pip install "selfdistill[lab]"\n'
    assert run("methods") == (2, "", told)
    monkeypatch.setitem(sys.modules, "selfdistill.cli.app", None)
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    assert run("--help").err == told.replace("rich", "cyclopts")


def test_an_interrupt_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("selfdistill.report.lists.method_lines", interrupted)
    assert run("methods") == (130, "", "selfdistill: interrupted\n")


def test_a_closed_pipe_is_no_error() -> None:
    with subprocess.Popen([SCRIPT, "methods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == b""
    assert command.returncode == 1
