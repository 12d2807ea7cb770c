"""The docs keep their word: code blocks run, links lead somewhere, numbers are those of the committed records."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import selfdistill.methods
from selfdistill.cli.app import app
from selfdistill.config import TrainConfig
from selfdistill.data import load_data
from selfdistill.paper import TABLES, PaperConfig, collect_result
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.timing.budget import measure_step_seconds
from selfdistill.training import train
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")])
TESTED_ELSEWHERE = [ROOT / "CONTRIBUTING.md"]  # its Python, in test_contributing.py
TOOLS = {"pip", "uv", "cp", "split", "torchrun"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run that the README loads."""
    folder = tmp_path_factory.mktemp("docs")
    recipe = TrainConfig(data="digits", per_class=2, test_per_class=2, model="resnet10_cifar", width=4, epochs=1)
    run = folder / "runs" / "demo" / "sddropout-weight-0.1-seed0"
    train(recipe, run, data=load_data("digits", per_class=2, test_per_class=2))
    return folder


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and page not in TESTED_ELSEWHERE], ids=ids
)
@pytest.mark.usefixtures("undrawn")
def test_python_blocks_run(page: Path, demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_step_seconds, "__defaults__", (2,))  # few steps are timed
    monkeypatch.chdir(demo_run)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


def commands(page: Path) -> list[list[str]]:
    """The words of each command in a page's blocks, and of those of ours in its sentences."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    if page.name != "CHANGELOG.md":  # which speaks of versions past
        lines += [line for line in re.findall(r"`([^`\n]+)`", page.read_text()) if line.startswith("selfdistill ")]
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=ids)
def test_commands_exist_with_these_options(page: Path) -> None:
    for words in commands(page):
        if words[:2] == ["uv", "run"]:
            words = [word for word in words[2:] if word not in ("--no-dev", "--extra", "lab")]
        match words:
            case ["selfdistill", *arguments]:
                app.parse_args(arguments)
            case ["python", "-m", "pip", *_]:
                pass
            case ["python" | "torchrun", *arguments]:
                assert any((ROOT / word).is_file() for word in arguments), words
            case [tool, *_]:
                assert tool in TOOLS | {"pytest", "pre-commit", "mypy", "lint-imports", "mkdocs"}, words


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", selfdistill.methods.__all__)
def test_every_method_has_a_card(name: str) -> None:
    file = getattr(selfdistill.methods, name).__module__.rpartition(".")[2]
    assert (ROOT / "docs" / "methods" / f"{file}.md").is_file()


def make() -> ModuleType:
    return load_script("docs/make.py")


def test_tables_and_figures_are_those_of_the_records(tmp_path: Path) -> None:
    for path, text in make().pages(tmp_path).items():
        assert path.read_text() == text, f"{path.name} is stale: uv run python docs/make.py"
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 2
    for path in written:
        assert (ROOT / path).read_bytes() == (tmp_path / path).read_bytes(), (
            f"{path} is stale: uv run python docs/make.py"
        )


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    module: ModuleType = make().paper
    return module


@pytest.fixture(scope="module")
def unpacked(paper: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of the paper's tables."""
    folder = tmp_path_factory.mktemp("records") / "small"
    paper.archive.unpack(paper.archive_of("small"), folder)
    return folder


Copy = Callable[..., Path]


@pytest.fixture
def copy_runs(unpacked: Path, tmp_path: Path) -> Copy:
    """Return a function that copies the records of some runs, by a pattern of their folders, into an empty folder."""

    def copy(pattern: str, part: slice = slice(None)) -> Path:
        for run in sorted((unpacked / "runs").glob(pattern))[part]:
            shutil.copytree(run, tmp_path / "small" / "runs" / run.name)
        return tmp_path / "small"

    return copy


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("recipe_hash", "0123456789abcdef", "the recipe's hash is"),
        ("commit", None, "does not say of which commit"),
        ("recipe", {"epochs": 21}, r"not the table's: epochs \(21 there, 200 here\)"),
        ("recipe", {"per_class": 10, "clip": 1.0}, r"per_class \(10 there, 15 here\), clip \(1.0 there, None here\)"),
        ("data", {"train_n": 200}, "trained on 200 images and scored on 10,000, of 100 classes, not on 1,500 images"),
        ("evaluation", {"n": 7}, "scored on 7 of 10000 test images"),
    ],
)
def test_a_record_that_is_not_what_it_says_is_refused(
    paper: ModuleType, copy_runs: Copy, field: str, value: object, said: str
) -> None:
    records = copy_runs("*", slice(1))
    config = PaperConfig("small", records)
    assert list(paper.problems(config)) == []
    (file,) = records.glob("runs/*/result.json")
    there = json.loads(file.read_text())
    there[field] = there[field] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(there))
    with pytest.raises(ValueError, match=f"^{re.escape(str(file.parent))}: .*{said}"):
        paper.results(config)


@pytest.mark.parametrize(
    ("part", "changed", "said"),
    [
        ("robustness", {"commit": None}, "it does not say of which commit it is"),
        ("robustness", {"of": {"recipe_hash": "0", "date": "0"}}, "measured of another run"),
        ("robustness", {"evaluation": {"n": 7}}, "scored on 7 of 10000 test images"),
        ("robustness", {"evaluation": {"robustness": {"pgd_n": 7}}}, "measured on other numbers of images than"),
        ("lemma1-head-1", {"evaluation": {"n": 7}}, "measured on other numbers of images than"),
    ],
)
def test_what_was_measured_of_a_run_is_checked_too(
    paper: ModuleType, unpacked: Path, copy_runs: Copy, part: str, changed: dict[str, Any], said: str
) -> None:
    measured = sorted(unpacked.glob(f"runs/*/measured/{part}.json"))
    if len(measured) < 2:
        pytest.skip(f"{part} is measured of fewer than two runs of the scale small yet")
    for path in measured[-2:]:
        records = copy_runs(path.parents[1].name)
    assert list(paper.problems(PaperConfig("small", records))) == []
    file = sorted(records.glob(f"runs/*/measured/{part}.json"))[-1]
    file.write_text(json.dumps(merged(json.loads(file.read_text()), changed)))
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}: {said}"):
        paper.results(PaperConfig("small", records))


def merged(values: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    deeper = {name: merged(values[name], value) for name, value in changed.items() if isinstance(value, dict)}
    return values | changed | deeper


def test_what_no_table_measures_never_stands_in_the_docs(paper: ModuleType, copy_runs: Copy) -> None:
    records = copy_runs("*", slice(1))
    (run,) = (records / "runs").iterdir()
    (run / "measured").mkdir(exist_ok=True)
    odd = run / "measured" / "else.json"
    record = RunRecord.load(run / "result.json")
    EvaluationRecord(
        of={"recipe_hash": record.recipe_hash, "date": record.date},
        config={},
        evaluation={"n": record.evaluation.n},
        seconds=1.0,
        device="cpu",
        threads=1,
        versions={},
        date=record.date,
        commit=record.commit,
    ).save(odd)
    assert list(paper.problems(PaperConfig("small", records))) == [f"{odd}: no table measures this"]


@pytest.mark.parametrize(("field", "value"), [("commit", "f" * 40), ("date", "2020-01-01T00:00:00+00:00")])
def test_a_page_says_of_which_runs_it_is(
    paper: ModuleType, copy_runs: Copy, tmp_path: Path, field: str, value: str
) -> None:
    config = PaperConfig("small", copy_runs("*"))

    def page() -> str:
        paper.write_pages([collect_result(TABLES["table1"], config)], tmp_path / "pages")
        return (tmp_path / "pages" / "table1.md").read_text()

    committed = ROOT / "docs" / "results" / "paper" / "small" / "table1.md"
    assert page() == committed.read_text()
    file = next(iter(sorted(config.runs.glob("cifar100-resnet18-crossentropy-seed*/result.json"))))
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    shutil.rmtree(file.parent / "measured", ignore_errors=True)  # of another run now
    assert page() != committed.read_text()


def test_another_scale_never_stands_in_the_docs(paper: ModuleType, copy_runs: Copy) -> None:
    records = copy_runs("*", slice(1))
    (run,) = (records / "runs").iterdir()
    smoke = run.rename(run.with_name(run.name.replace("-small", "-smoke")))
    assert list(paper.problems(PaperConfig("small", records))) == [
        f"{smoke}: no table has such a run at the scale 'small'"
    ]
